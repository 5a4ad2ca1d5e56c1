"""A query history that is full of what a bundle says of images."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.distinct_images import DistinctImages
from service.detection.engine import Engine
from service.detection.types import Float32s, Integers
from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.history import History
from service.history.types import Query

__all__ = ["filled"]

TOGETHER = 64
"""Run, and observed, at once."""
PART = 4096
"""Images that are in memory at once."""


def filled(
    path: Path, bounds: Bounds, images: DistinctImages, clients: Sequence[str], *, measured: int, seed: int
) -> History:
    """A history that has observed as many queries of now as it keeps.

    The graph runs for so many images only, since it takes minutes for all; what it would say of the others lies between
    what it said of two of one label.

    Args:
        path: of the bundle.
        clients: whose queries they are, in turn.
        measured: images that the graph runs for.
        seed: of what lies between.

    Raises:
        BundleError: the bundle cannot be used.
        SetupError: it has no calibration of the history, or there are not so many images.
    """
    engine = Engine.load(path, threads=1)
    manifest = engine.bundle.manifest
    if engine.bundle.history is None:
        raise SetupError(f"{manifest.name}: expected a bundle with a calibration of the history, got none")
    history = History(engine.bundle.history, dimensions=manifest.embedding_dim, bounds=bounds)
    known = images.take(measured)
    found = [engine.measure(known[start : start + TOGETHER]) for start in range(0, measured, TOGETHER)]
    embeddings = np.concatenate([one.outputs.embedding for one in found])
    labels = np.concatenate([one.labels for one in found])
    margins = np.concatenate([one.margins for one in found]).tolist()
    p_values = np.concatenate([one.fused_p_value for one in found]).tolist()
    draws, now, room = np.random.default_rng(seed), time.time(), history.store.capacity
    for start in range(0, room, PART):
        part = images.take(min(PART, room - start))
        chosen = draws.integers(0, measured, len(part))
        between = _between(embeddings, labels, chosen, draws)
        queries = [
            Query(
                client=clients[(start + number) % len(clients)],
                image=part[number],
                embedding=between[number],
                label=int(labels[one]),
                margin=margins[one],
                p_value=p_values[one],
                now=now,
            )
            for number, one in enumerate(chosen.tolist())
        ]
        for first in range(0, len(queries), TOGETHER):
            history.observe_all(queries[first : first + TOGETHER])
    return history


def _between(embeddings: Float32s, labels: Integers, chosen: Integers, draws: np.random.Generator) -> Float32s:
    """(n, D) of unit length: each between that of the image chosen and that of another of its label."""
    others = np.empty_like(chosen)
    for label in np.unique(labels[chosen]):
        same, places = np.flatnonzero(labels == label), np.flatnonzero(labels[chosen] == label)
        others[places] = same[draws.integers(0, len(same), len(places))]
    share = draws.random((len(chosen), 1))
    between = embeddings[chosen] * share + embeddings[others] * (1 - share)
    return np.asarray((between / np.linalg.norm(between, axis=1, keepdims=True)).astype(np.float32))
