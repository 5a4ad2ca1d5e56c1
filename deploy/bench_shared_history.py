"""What it costs that several processes share one query history through Redis.

    python -m deploy.bench_shared_history [--entries 100000] [--result FILE]

Starts a redis-server of its own on this machine; so the time of a call has no network in it. Of a query, one by one and
in batches: microseconds of a core beside those of a history of one process, the call's time, and what Redis counts:
commands, bytes in and out, its own time. Then what a second process reads for each query of the first, what an entry
takes in Redis and in a process, how long a new process needs to catch up with so many entries, and how long a core is
busy for each of them.

The traffic is that of deploy.bench_history.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from deploy.bench_history import BATCHES, DIMENSIONS, SEED, SHAPE, World
from deploy.redis_process import RedisProcess, wait_for
from deploy.result_file import write_result
from service.errors import AdvsentryError
from service.history.bounds import Bounds
from service.history.calibrate import calibrate
from service.history.calibration import Calibration
from service.history.history import History
from service.history.opening import open_history
from service.history.shared import POLL_S, SharedHistory
from service.history.types import Query

ENTRIES = 100_000
QUERIES = 2048
BATCH = max(BATCHES)
MOST_CATCH_UP_S = 3600.0
COUNTED = {
    "commands": ("total_commands_processed",),
    "in_bytes": ("total_net_input_bytes",),
    "out_bytes": ("total_net_output_bytes",),
    "redis_us": ("used_cpu_sys", "used_cpu_user"),
}


class Rig:
    """A Redis server, and processes that share a history."""

    def __init__(self, folder: Path, server: RedisProcess, calibration: Calibration, bounds: Bounds) -> None:
        self.server, self.bounds, self._calibration = server, bounds, calibration
        self._secret = folder / "secret"
        self._secret.touch(mode=0o600)
        self._secret.write_text(bytes(range(32)).hex(), encoding="utf-8")

    def alone(self) -> History:
        """A history of one process."""
        return History(self._calibration, dimensions=DIMENSIONS, bounds=self.bounds)

    @contextmanager
    def sharing(self) -> Iterator[SharedHistory]:
        """Another process, as far as the stream sees, when it has caught up."""
        history = open_history(
            self.server.url, self._calibration, dimensions=DIMENSIONS, bounds=self.bounds, secret=self._secret
        )
        assert isinstance(history, SharedHistory)
        try:
            wait_for(lambda: not history.is_degraded, seconds=MOST_CATCH_UP_S)
            yield history
        finally:
            history.close()

    def counts(self) -> dict[str, float]:
        """What Redis counted since it started."""
        found = self.server.client().info("everything")
        made = {name: sum(float(found[key]) for key in keys) for name, keys in COUNTED.items()}
        return made | {"redis_us": 1e6 * made["redis_us"]}


def main(arguments: list[str] | None = None) -> int:
    """Prints one JSON object of flat names; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_shared_history", description=__doc__.split("\n")[0])
    parser.add_argument("--entries", type=int, default=ENTRIES, help=f"to catch up with ({ENTRIES})")
    parser.add_argument("--queries", type=int, default=QUERIES, help=f"timed in each way ({QUERIES})")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    world = World()
    bounds = Bounds(entries=options.entries + 6 * options.queries, max_bytes=2**40, client_share=1.0)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            server = RedisProcess(Path(folder))
            try:
                calibration = calibrate(world.queries(2000), [world.queries(256) for _ in range(4)], alpha=0.01)
                rig = Rig(Path(folder), server, calibration, bounds)
                metrics = _measured(rig, world, options.queries, options.entries)
            finally:
                server.kill()
    except (AdvsentryError, TimeoutError) as error:
        print(f"bench_shared_history: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(metrics, indent=2))
    if options.result:
        write_result(
            options.result,
            name="shared-history",
            module="deploy.bench_shared_history",
            recipe={"entries": options.entries, "queries": options.queries, "batch": BATCH, "dimensions": DIMENSIONS},
            seed=SEED,
            seconds=time.monotonic() - began,
            data={"images": "noise", "shape": list(SHAPE)},
            metrics=metrics,
        )
    return 0


def _measured(rig: Rig, world: World, count: int, entries: int) -> dict[str, float]:
    found, alone = dict[str, float](), rig.alone()
    with rig.sharing() as history:
        for size in (1, BATCH):
            found |= _named(f"batch_{size}_alone", _timed(alone.observe_all, world.queries(count), size))
            before = rig.counts()
            found |= _named(f"batch_{size}", _timed(history.observe_all, world.queries(count), size))
            found |= _named(f"batch_{size}", _each(before, rig.counts(), count))
        found |= _named("reader", _reader(rig, world, history, count))
        while len(history) < entries:
            _timed(history.observe_all, world.queries(min(10_000, entries - len(history))), BATCH)
    return found | _caught_up(rig)


def _named(start: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{start}_{name}": value for name, value in figures.items()}


def _timed(ask: Callable[[list[Query]], object], queries: list[Query], size: int) -> dict[str, float]:
    """Of a query: microseconds of a core; of a call: milliseconds by the clock."""
    calls, began = list[float](), time.thread_time()
    for start in range(0, len(queries), size):
        call = time.perf_counter()
        ask(queries[start : start + size])
        calls.append(1000 * (time.perf_counter() - call))
    took = time.thread_time() - began
    return {
        "us": 1e6 * took / len(queries),
        "call_ms": float(np.median(calls)),
        "call_p99_ms": float(np.quantile(calls, 0.99)),
    }


def _each(before: dict[str, float], after: dict[str, float], count: int) -> dict[str, float]:
    return {name: (after[name] - value) / count for name, value in before.items()}


def _reader(rig: Rig, world: World, history: SharedHistory, count: int) -> dict[str, float]:
    """What Redis sends for a query to each process that follows, and how often an idle one asks."""
    queries = world.queries(2 * count)
    with rig.sharing() as other:
        before = rig.counts()
        _timed(history.observe_all, queries[:count], BATCH)
        wait_for(lambda: len(other) == len(history))
        with_other = _each(before, rig.counts(), count)
    before = rig.counts()
    _timed(history.observe_all, queries[count:], BATCH)
    without = _each(before, rig.counts(), count)
    return {"out_bytes": with_other["out_bytes"] - without["out_bytes"], "polls_per_s": 1 / POLL_S}


def _caught_up(rig: Rig) -> dict[str, float]:
    client = rig.server.client()
    (stream,) = client.keys()
    entries = client.xlen(stream)
    began, busy = time.monotonic(), time.process_time()
    with rig.sharing() as history:
        took, busy = time.monotonic() - began, time.process_time() - busy
        kept, replica = len(history), history.nbytes
    return {
        "entry_bytes": client.memory_usage(stream, samples=0) / entries,
        "replica_bytes": replica / rig.bounds.entries,
        "catch_up_entries": kept,
        "catch_up_s": took,
        "catch_up_us": 1e6 * busy / kept,
    }


if __name__ == "__main__":
    sys.exit(main())
