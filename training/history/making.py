"""The history's calibration of a bundle, from benign streams."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from service.detection.engine import Engine
from service.errors import SetupError
from service.history.calibrate import LEAST_UNRELATED, calibrate
from service.history.calibration import Calibration
from service.history.fingerprints import KEY_BYTES
from training.history.kinds import KINDS, OWN, RANDOM, TRACKS
from training.history.pools import Pools, Things
from training.history.queries import queries_of
from training.history.traffic import Stream, traffic

__all__ = ["made_history", "own_history", "secret_of", "streams_for"]

EVERY = 4
"""Streams of a kind, of which one says how benign queries join components; the others are ranked among."""
MOST_UNRELATED = 2000
"""More of them cost time by their square, and say no more of what is near."""


def ranked_for(level: float) -> int:
    """How many streams of a kind must be ranked among for a level."""
    return max(1, math.ceil(1 / level - 1e-9) - 1)


def streams_for(level: float) -> int:
    """How many streams of a kind a level needs: all but the first of `EVERY` are ranked among."""
    return EVERY * -(-ranked_for(level) // (EVERY - 1))


def made_history(engine: Engine, pools: Pools, *, level: float, seed: int, own: Sequence[Stream] = ()) -> Calibration:
    """Of streams that are made of the bundle's data.

    Args:
        engine: the bundle.
        pools: its data.
        level: the smallest that flags can be raised at.
        seed: of every draw; the same gives the same calibration.
        own: further streams, real ones of an application. Where they are too few to be a kind of their own, they are
            ranked with those of each kind.

    Raises:
        SetupError: there are too few images.
    """
    pool = pools.calibration
    if len(pool) < LEAST_UNRELATED:
        raise SetupError(
            f"{engine.bundle.manifest.name}: expected {LEAST_UNRELATED} images or tracks in the parts calibration and "
            f"fusion together, of which the query history's benign streams are made, got {len(pool)}"
        )
    names = [name for name in KINDS if pools.check_tracks or name != TRACKS]
    kinds = [name for name in names for _ in range(EVERY)] * (streams_for(level) // EVERY)
    made = list(traffic(pool, kinds, seed=seed))
    of_own = OWN if len(own) >= streams_for(level) else ""
    return _calibrated(engine, pool, [*made, *own], [*kinds, *(of_own for _ in own)], level=level, seed=seed)


def own_history(engine: Engine, own: Sequence[Stream], *, level: float, seed: int) -> Calibration:
    """Of an application's streams alone; one image of each says what unrelated ones are.

    Raises:
        SetupError: they are too few.
    """
    wanted = max(streams_for(level), LEAST_UNRELATED)
    if len(own) < wanted:
        raise SetupError(
            f"--streams: expected {wanted} streams or more for a level of {level:g}, got {len(own)}; add some, leave "
            "--only-streams out, or take a larger --level"
        )
    return _calibrated(engine, [stream.images for stream in own], own, [OWN] * len(own), level=level, seed=seed)


def secret_of(seed: int) -> bytes:
    """Keys of a history that lives for one measurement only, where figures shall come out the same again."""
    return hashlib.blake2b(str(seed).encode(), digest_size=KEY_BYTES).digest()


def _calibrated(
    engine: Engine, things: Things, streams: Sequence[Stream], kinds: Sequence[str], *, level: float, seed: int
) -> Calibration:
    draws = np.random.default_rng(np.random.SeedSequence([seed, 82]))
    chosen = sorted(draws.permutation(len(things))[:MOST_UNRELATED].tolist())
    images = np.stack([things[number][int(draws.integers(len(things[number])))] for number in chosen])
    unrelated = Stream(kind=RANDOM, images=images, clients=("",) * len(images), times=(0.0,) * len(images))
    (asked,) = queries_of(engine, [unrelated])
    calibration = calibrate(
        asked,
        queries_of(engine, streams),
        alpha=engine.bundle.manifest.default_alpha,
        kinds=kinds,
        every=EVERY,
        secret=secret_of(seed),
    )
    calibration.check_level(level)
    return calibration
