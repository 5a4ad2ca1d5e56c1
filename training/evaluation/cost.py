"""What an answer of a bundle costs on one core."""

import time

import numpy as np
import torch

from service.detection.bundle import Bundle
from service.detection.engine import Engine
from service.detection.types import Bytes8
from training.attacks.rounding import from_8_bit
from training.evaluation.provenance import processor
from training.evaluation.records import Cost
from training.graph import BundleGraph

__all__ = ["BATCH", "measure_cost", "passes_of"]

BATCH = 32
_REPEATS = {1: 15, BATCH: 5}


def measure_cost(bundle: Bundle, images: Bytes8, *, passes: int | None) -> Cost:
    """Times an engine of one thread: medians of a few calls after one that warms up.

    Args:
        bundle: whose engine answers.
        images: (N, H, W, C), N >= 1; repeated where they are fewer than a batch.
        passes: through the classifier, see `passes_of`; None where it is not known.
    """
    engine = Engine(bundle, threads=1)
    filled = np.ascontiguousarray(np.resize(images, (BATCH, *images.shape[1:])))
    return Cost(
        single_ms=_median_ms(engine, filled[:1]),
        batched_ms=_median_ms(engine, filled) / BATCH,
        batch=BATCH,
        graph_mb=len(bundle.graph) / 1e6,
        passes=passes,
        processor=processor(),
    )


def passes_of(graph: BundleGraph, images: Bytes8) -> int:
    """How often one answer runs the classifier: detectors that read a changed image run it again.

    Args:
        graph: in eval mode.
        images: (N, H, W, C), N >= 1; the first is looked at.
    """
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    device = next(graph.model.parameters()).device
    hook = graph.model.head.register_forward_hook(count)
    try:
        with torch.no_grad():
            graph.score(from_8_bit(images[:1].copy()).to(device))
    finally:
        hook.remove()
    return calls


def _median_ms(engine: Engine, images: Bytes8) -> float:
    engine.measure(images)
    seconds = []
    for _ in range(_REPEATS[len(images)]):
        began = time.perf_counter()
        engine.measure(images)
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds))
