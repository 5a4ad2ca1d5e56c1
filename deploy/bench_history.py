"""What the query history costs: time and memory for each query, at several numbers of kept ones.

    python -m deploy.bench_history [--kept 10000 ...] [--result FILE]

Processor time, which other work on the machine disturbs less than the clock's. On one core and random data of the shape
of the traffic-sign bundle: noise images of 32 x 32 x 3, embeddings of 256 numbers in as many clusters as there are
classes. Kept queries are put into the store without being looked for, since
that takes minutes at a million. Beside it: how long an exact search of all embeddings takes, and how many of those that
it finds at the radius, and at half of it, the projections find, too.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from deploy.result_file import write_result
from service.errors import AdvsentryError
from service.history.bounds import Bounds
from service.history.calibrate import calibrate
from service.history.calibration import Calibration
from service.history.entries import Entry, shortened
from service.history.fingerprints import KEY_BYTES, SKETCH, Fingerprints
from service.history.history import History
from service.history.projections import TABLES
from service.history.recent import RECENT
from service.history.search import compared
from service.history.types import Bytes8, Float32s, Query

KEPT = (10_000, 100_000, 1_000_000)
SHAPE = (32, 32, 3)
DIMENSIONS = 256
CLUSTERS = 43
SPREAD, WITHIN = 0.05, 12
"""Of a cluster: deviation along each of so many directions; elsewhere next to none."""
QUERIES = 2048
"""Timed at each number of kept ones, in batches of each size."""
BATCH = 32
BATCHES = (1, 8, BATCH)
SLACK = 1.01
"""Of a distance, for the rounding of what is kept."""
PLANTED = 500
SEED = 0


class World:
    """Random traffic."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(SEED)
        self._centres = self._units(self._generator.standard_normal((CLUSTERS, DIMENSIONS)))
        self._along = np.linalg.qr(self._generator.standard_normal((DIMENSIONS, WITHIN)))[0].T

    def _units(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def embeddings(self, count: int) -> tuple[Float32s, np.ndarray]:
        """(count, D) embeddings, and their clusters."""
        labels = self._generator.integers(0, CLUSTERS, count)
        places = self._generator.standard_normal((count, WITHIN)) @ self._along * SPREAD
        noise = self._generator.standard_normal((count, DIMENSIONS)) * 0.001
        return self._units(self._centres[labels] + places + noise).astype(np.float32), labels

    def images(self, count: int) -> Bytes8:
        """(count, *SHAPE) of noise."""
        return self._generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)

    def queries(self, count: int, *, start: float = 0.0) -> list[Query]:
        """So many, a millisecond apart, of eight clients in turn."""
        images, (embeddings, labels) = self.images(count), self.embeddings(count)
        draws = self._generator.uniform(0, 1, (count, 2)).tolist()
        return [
            Query(
                client=f"client {number % 8}",
                image=images[number],
                embedding=embeddings[number],
                label=int(labels[number]),
                margin=draws[number][0],
                p_value=draws[number][1],
                now=start + number / 1000,
            )
            for number in range(count)
        ]

    def fill(self, history: History, count: int, *, secrets: int = 1) -> None:
        """Keeps so many queries, with sketches under one secret, or under two."""
        while count > 0:
            part = min(count, 10_000)
            embeddings, labels = self.embeddings(part)
            sketches = self._generator.integers(2**31, 2**32, (secrets, part, SKETCH), dtype=np.uint32)
            sketches.sort(axis=2)
            shorts = shortened(embeddings)
            cells, own_cells = history.projections.keys(shorts), history.own_projections.keys(shorts)
            digests = self._generator.integers(1, 2**63, part).tolist()
            for number in range(part):
                entry = Entry(
                    client=1 + number % 8,
                    digest=digests[number],
                    generation=0,
                    sketches=tuple(sketches[:, number]),
                    cells=cells[number],
                    own_cells=own_cells[number],
                    embedding=shorts[number],
                    label=int(labels[number]),
                    margin=1.0,
                    marks=0,
                    now=0.0,
                )
                history.store.put(entry)
                if len(history.store.recent) == RECENT:
                    history.store.settle()
            count -= part
        history.store.settle()


def main(arguments: list[str] | None = None) -> int:
    """Prints one JSON object of flat names; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_history", description=__doc__.split("\n")[0])
    parser.add_argument("--kept", type=int, nargs="+", default=list(KEPT), help="kept queries (10000 100000 1000000)")
    parser.add_argument("--queries", type=int, default=QUERIES, help=f"timed at each of them ({QUERIES})")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    threadpool_limits(1, "blas")  # as the server has it
    world = World()
    try:
        calibration = calibrate(world.queries(2000), [world.queries(256) for _ in range(4)], alpha=0.01)
        metrics = _fingerprint(world, options.queries)
        for kept in options.kept:
            metrics |= {
                f"{name}_at_{kept}": value for name, value in _kept(world, calibration, kept, options.queries).items()
            }
    except AdvsentryError as error:
        print(f"bench_history: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(metrics, indent=2))
    if options.result:
        write_result(
            options.result,
            name="history",
            module="deploy.bench_history",
            recipe={
                "queries": options.queries,
                "batches": list(BATCHES),
                "sketch": SKETCH,
                "tables": TABLES,
                "dimensions": DIMENSIONS,
            },
            seed=SEED,
            seconds=time.monotonic() - began,
            data={"images": "noise", "shape": list(SHAPE), "clusters": CLUSTERS},
            metrics=metrics,
        )
    return 0


def _fingerprint(world: World, queries: int) -> dict[str, float]:
    fingerprints, images = Fingerprints(os.urandom(KEY_BYTES)), world.images(queries)
    fingerprints.sketches(images[:1])
    return {
        f"fingerprint_ms_in_{batch}": float(np.median(_each_ms(fingerprints.sketches, images, batch)))
        for batch in BATCHES
    }


def _kept(world: World, calibration: Calibration, kept: int, count: int) -> dict[str, float]:
    """Figures with so many kept queries, and with a store that they fill, from which each newcomer pushes another."""
    found = dict[str, float]()
    for name, room in (("", len(BATCHES) * count + PLANTED), ("full_", 0)):
        bounds = Bounds(entries=kept + room, max_bytes=2**40, client_share=1.0)
        history = History(calibration, dimensions=DIMENSIONS, bounds=bounds)
        world.fill(history, kept)
        for batch in BATCHES:
            queries = world.queries(count)
            history.observe_all(queries[: max(BATCHES)])
            each = _each_ms(history.observe_all, queries[max(BATCHES) :], batch)
            found |= {
                f"{name}ms_in_{batch}": float(np.mean(each)),
                f"{name}p99_ms_in_{batch}": float(np.quantile(each, 0.99)),
            }
        if room:
            found["bytes"] = history.nbytes / history.store.capacity
            found |= {"recall": _recall(history, 1.0), "half_recall": _recall(history, 0.5)}
        history.close()
    found |= _while_replaced(world, calibration, kept)
    return found | {"exact_ms": _exact_ms(world, kept)}


def _while_replaced(world: World, calibration: Calibration, kept: int) -> dict[str, float]:
    """Bytes for each query with sketches under two secrets, and how long it takes when the second takes over."""
    bounds = Bounds(entries=kept, max_bytes=2**40, client_share=1.0)
    history = History(calibration, dimensions=DIMENSIONS, bounds=bounds)
    history.store.begin_next()
    world.fill(history, kept, secrets=2)
    found = {"most_bytes": history.nbytes / kept}
    return found | {"replace_ms": _took_ms(history.store.end_last)}


def _each_ms(action: Callable[[Any], object], rows: Any, batch: int) -> list[float]:
    """Milliseconds for each of the rows, of each batch."""
    starts = range(0, len(rows), batch)
    return [
        _took_ms(partial(action, rows[start : start + batch])) / len(rows[start : start + batch]) for start in starts
    ]


def _exact_ms(world: World, kept: int) -> float:
    """One query against so many embeddings of 32-bit numbers."""
    rows = np.concatenate([world.embeddings(min(kept, 10_000))[0] for _ in range(-(-kept // 10_000))])[:kept]
    query = world.embeddings(1)[0][0]
    return min(_took_ms(lambda: float((rows @ query).max())) for _ in range(10))


def _recall(history: History, part: float) -> float:
    """Of embeddings at a part of the radius from one that is kept, the share for which one at least as near is found.

    The step aside is brought back to the unit sphere, which makes it a little shorter than the radius.
    """
    radius = part * history.radius
    slots = np.flatnonzero(history.store.bucket > 0)
    rows = history.store.embeddings[np.random.default_rng(SEED).choice(slots, PLANTED)].astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    aside = np.random.default_rng(SEED + 1).standard_normal(rows.shape)
    aside -= (aside * rows).sum(axis=1, keepdims=True) * rows
    aside *= radius / np.linalg.norm(aside, axis=1, keepdims=True)
    moved = (rows + aside).astype(np.float32)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    shorts, found = shortened(moved), 0
    cells = history.projections.keys(shorts)
    for number in range(PLANTED):
        entry = Entry(
            client=0,
            digest=1,
            generation=0,
            sketches=(np.zeros(SKETCH, np.uint32),),
            cells=cells[number],
            own_cells=cells[number],
            embedding=shorts[number],
            label=0,
            margin=1.0,
            marks=0,
            now=0.0,
        )
        found += compared(history.store, [entry])[0].everyone.distance <= SLACK * radius
    return found / PLANTED


def _took_ms(action: Callable[[], object]) -> float:
    began = time.thread_time()
    action()
    return 1000 * (time.thread_time() - began)


if __name__ == "__main__":
    sys.exit(main())
