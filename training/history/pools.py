"""The images that benign streams are made of: what the network and the detectors never learned from.

A thing is one object with all its images: a track of frames in order, or a single image. Calibration takes those of the
parts `calibration` and `fusion`, the check those of the part `test`. Published test images have no tracks, so where
there are tracks a third of the calibration's is kept for the check.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from service.detection.engine import Engine
from service.detection.types import Bytes8
from service.errors import SetupError
from training.checkpoint import load_parts
from training.config import recipe_from_dict
from training.data.types import DataSet, ImageSet

__all__ = ["Pools", "Things", "pools_of"]

Things: TypeAlias = Sequence[Bytes8]
"""Each (n, H, W, C), n >= 1."""

CHECK_SHARE = 1 / 3
"""Of the tracks, kept for the check."""
_TOLERANCE = 1e-3
_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Pools:
    """Disjoint."""

    calibration: Things
    check: Things
    """Single images."""
    check_tracks: Things
    """Empty where the set has no tracks."""


def pools_of(engine: Engine, data_root: Path | None) -> Pools:
    """The images of a bundle's data.

    Raises:
        SetupError: the bundle does not tell its recipe, or the data are missing, damaged or not those that it was
            calibrated on.
    """
    manifest = engine.bundle.manifest
    if not manifest.training:
        raise SetupError(f"{manifest.name}: expected a bundle with its recipe in the manifest, got one without")
    recipe = recipe_from_dict(manifest.training)
    dataset, parts = load_parts(recipe, data_root)
    _check_same(engine, parts.calibration)
    singles = [*parts.calibration.images[:, None], *parts.fusion.images[:, None]]
    test = list(parts.test.images[:, None])
    if dataset.train.tracks is None:
        return Pools(calibration=singles, check=test, check_tracks=())
    tracks = _tracks(dataset, parts.calibration, parts.fusion)
    order = np.random.default_rng(np.random.SeedSequence([recipe.data.seed, 8])).permutation(len(tracks))
    kept = round(CHECK_SHARE * len(tracks))
    return Pools(
        calibration=[tracks[place] for place in sorted(order[kept:])],
        check=test,
        check_tracks=[tracks[place] for place in sorted(order[:kept])],
    )


def _tracks(dataset: DataSet, *parts: ImageSet) -> list[Bytes8]:
    """All frames of the tracks that the parts have one frame of."""
    wanted = np.concatenate([part.tracks for part in parts if part.tracks is not None])
    assert dataset.train.tracks is not None
    return [dataset.train.images[dataset.train.tracks == track] for track in np.unique(wanted)]


def _check_same(engine: Engine, calibration: ImageSet) -> None:
    bundle, images = engine.bundle, calibration.images
    expected = bundle.calibration.detector_scores  # (K, n), each row rising
    scores = [engine.graph.run(images[start : start + _BATCH]).scores for start in range(0, len(images), _BATCH)]
    found = np.sort(np.concatenate(scores), axis=0).T
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise SetupError(
            f"{bundle.manifest.name}: expected the data that the bundle was calibrated on, got others; name their "
            "folder with --data or ADVSENTRY_DATA"
        )
