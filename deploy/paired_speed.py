"""How fast two graphs are on one core or one GPU, timed in turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.detection.bundle import Bundle
from service.detection.graph import Graph
from service.detection.providers import Device
from service.detection.types import Bytes8

__all__ = ["BATCHES", "ROUNDS", "Speed", "measured_speed", "speed_metrics"]

BATCHES: Mapping[Device, Sequence[int]] = {"cpu": (1, 8, 16, 32, 64), "cuda": (1, 16, 64, 128, 256, 512)}
ROUNDS = 15
"""Turns of both graphs at each batch."""
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Both graphs on one core, or on one GPU."""

    batches: tuple[int, int]
    """At which each is fastest: the float one, the other."""
    images_per_s: tuple[float, float]
    """There, of the time that the clock tells."""
    ratio: float
    """Median over the rounds of float time to the other's time, each at its best batch."""
    quartiles: tuple[float, float]
    """Of the same."""
    single_ratio: float
    """The median at batch 1."""


def measured_speed(
    bundles: Sequence[Bundle], *, device: Device = "cpu", rounds: int = ROUNDS, seconds: float = 0.1
) -> Speed:
    """Runs two graphs in turns.

    Args:
        bundles: the float one, the other.
        device: what runs them; on a GPU the clock is that on the wall.
        rounds: turns at each batch.
        seconds: that one turn takes, at least.

    Raises:
        SetupError: the device does not come up.
    """
    graphs = [Graph(bundle.graph, bundle.graph_shape, device=device, threads=1) for bundle in bundles]
    shape, batches = bundles[0].manifest.input, BATCHES[device]
    size = (max(batches), shape.height, shape.width, shape.channels)
    images = np.random.default_rng(_SEED).integers(0, 256, size, dtype=np.uint8)
    clock = time.process_time if device == "cpu" else time.perf_counter
    took = np.array([[_turns(graphs, images[:batch], seconds, clock) for _ in range(rounds)] for batch in batches])
    typical = np.median(took, axis=1)  # (batches, 2)
    best = typical.argmin(axis=0)
    ratios = took[best[0], :, 0] / took[best[1], :, 1]
    return Speed(
        batches=(batches[best[0]], batches[best[1]]),
        images_per_s=(1 / typical[best[0], 0], 1 / typical[best[1], 1]),
        ratio=float(np.median(ratios)),
        quartiles=(float(np.quantile(ratios, 0.25)), float(np.quantile(ratios, 0.75))),
        single_ratio=float(np.median(took[0, :, 0] / took[0, :, 1])),
    )


def _turns(graphs: Sequence[Graph], images: Bytes8, seconds: float, clock: Callable[[], float]) -> list[float]:
    """Seconds an image of each graph, one after the other."""
    return [_seconds_an_image(graph, images, seconds, clock) for graph in graphs]


def _seconds_an_image(graph: Graph, images: Bytes8, seconds: float, clock: Callable[[], float]) -> float:
    graph.run(images)
    runs, began = 0, clock()
    while (took := clock() - began) < seconds:
        graph.run(images)
        runs += 1
    return took / (runs * len(images))


def speed_metrics(
    speed: Speed, precisions: Sequence[str] = ("float", "int8"), device: Device = "cpu"
) -> dict[str, float]:
    """Flat."""
    flat = {
        "ratio": speed.ratio,
        "ratio_lower_quartile": speed.quartiles[0],
        "ratio_upper_quartile": speed.quartiles[1],
    }
    flat["batch_1_ratio"] = speed.single_ratio
    per = "images_per_cpu_s" if device == "cpu" else "images_per_s"
    for name, batch, rate in zip(precisions, speed.batches, speed.images_per_s, strict=True):
        flat |= {f"{per}_{name}": rate, f"best_batch_{name}": batch}
    return flat
