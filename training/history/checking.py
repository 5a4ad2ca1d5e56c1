"""False positives of a bundle's history on benign streams of images that its calibration never saw.

The clock is simulated; the history is that of a server, with its default bounds. The kinds are those of the
calibration, and so is how they are drawn, but for real tracks: what is like none of them is not measured.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import merge

from service.detection.engine import Engine
from service.errors import SetupError
from service.history.calibration import Calibration
from service.history.history import History
from training.history.kinds import KINDS, RANDOM, TRACKS
from training.history.making import secret_of
from training.history.pools import Pools
from training.history.queries import queries_of
from training.history.traffic import Stream, traffic

__all__ = ["SIMILAR", "Check", "Flagged", "false_positives", "figures"]

SIMILAR = "similar"
"""All kinds but random traffic together."""
_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Check:
    """What is measured, and how."""

    engine: Engine
    calibration: Calibration
    level: float
    """To flag at."""
    streams: int
    """Of each kind."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Flagged:
    """How many of one kind's queries, streams and clients there are, and how many are flagged."""

    queries: int
    flagged_queries: int
    streams: int
    flagged_streams: int
    clients: int
    flagged_clients: int


def false_positives(check: Check, pools: Pools | None, own: Sequence[Stream] = ()) -> dict[str, Flagged]:
    """By kind, all kinds of similar images together first.

    Args:
        check: what is measured.
        pools: of the bundle's data; only what is kept for the check is used. None: `own` alone.
        own: further streams.

    Raises:
        SetupError: the calibration has too few streams for the level, or no image is kept for the check.
    """
    check.calibration.check_level(check.level)
    made = [*(_made(check, pools) if pools else ()), *own]
    flags = _flags(check, made)
    kinds = list(dict.fromkeys(stream.kind for stream in made))
    found = {SIMILAR: _flagged(made, flags, [kind for kind in kinds if kind != RANDOM])}
    return found | {kind: _flagged(made, flags, [kind]) for kind in kinds}


def figures(found: Mapping[str, Flagged]) -> dict[str, float]:
    """Flat names: KIND_queries, KIND_false_positive_rate, KIND_flagged_streams and KIND_flagged_clients (shares)."""
    made: dict[str, float] = {}
    for kind, one in found.items():
        made |= {
            f"{kind}_queries": one.queries,
            f"{kind}_false_positive_rate": one.flagged_queries / one.queries,
            f"{kind}_flagged_streams": one.flagged_streams / one.streams,
            f"{kind}_flagged_clients": one.flagged_clients / one.clients,
        }
    return made


def _made(check: Check, pools: Pools) -> list[Stream]:
    if not pools.check:
        raise SetupError(f"{check.engine.bundle.manifest.name}: expected test images to check with, got none")
    kinds = [name for name in KINDS if pools.check_tracks or name != TRACKS] * check.streams
    return list(traffic(pools.check, kinds, seed=check.seed, name="check ", tracks=pools.check_tracks or None))


def _flags(check: Check, streams: Sequence[Stream]) -> list[list[bool]]:
    """Which queries of each stream are flagged, all of them asked in the order of time."""
    manifest = check.engine.bundle.manifest
    history = History(check.calibration, dimensions=manifest.embedding_dim, secret=secret_of(check.seed))
    asked = queries_of(check.engine, streams)
    numbered = [[(number, query) for query in queries] for number, queries in enumerate(asked)]
    queries = list(merge(*numbered, key=lambda pair: pair[1].now))
    found: list[list[bool]] = [[] for _ in streams]
    for start in range(0, len(queries), _BATCH):
        batch = queries[start : start + _BATCH]
        seen = history.observe_all([query for _, query in batch])
        for (number, _), observation in zip(batch, seen, strict=True):
            found[number].append(observation.p_value <= check.level)
    return found


def _flagged(streams: Sequence[Stream], flags: Sequence[Sequence[bool]], kinds: Sequence[str]) -> Flagged:
    chosen = [(stream, of_one) for stream, of_one in zip(streams, flags, strict=True) if stream.kind in kinds]
    clients: defaultdict[str, bool] = defaultdict(bool)
    for stream, of_one in chosen:
        for client, is_flagged in zip(stream.clients, of_one, strict=True):
            clients[client] |= is_flagged
    return Flagged(
        queries=sum(len(of_one) for _, of_one in chosen),
        flagged_queries=sum(sum(of_one) for _, of_one in chosen),
        streams=len(chosen),
        flagged_streams=sum(any(of_one) for _, of_one in chosen),
        clients=len(clients),
        flagged_clients=sum(clients.values()),
    )
