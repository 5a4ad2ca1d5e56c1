"""`make bench`: what the service costs on top of its graph, all figures from one run on one machine.

The server and the client are processes of their own, each on one core, and the graph runs on one thread. The ratio to
the bare onnxruntime session therefore contains everything: gRPC, parsing, the queue, calibration, verdict and answer.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.load import BATCH_ITEMS, STREAMS, Load, loads
from deploy.result_file import write_result
from deploy.server_process import pinned, server
from service.detection.bundle import SHIPPED, Bundle, find_bundle, load_bundle
from service.detection.graph import Graph
from service.detection.types import Bytes8
from service.errors import AdvsentryError, BundleError

DEFAULTS = (SHIPPED / "digits", Path("build/demo/digits"))
BATCHES = (1, 8, 16, 32, 64, 128)
ALIKE = 1.02
"""Times the least processor time of an image: sizes within it are alike, and the smallest is the best, since it keeps
nobody waiting."""
ASKED = 0.7
"""Of StreamDetect's rate to the bare session's, at its best batch."""
SEED = 0

LOADS = {
    "stream": "StreamDetect, 1 stream",
    f"stream_{STREAMS}": f"StreamDetect, {STREAMS} streams",
    "batch": f"BatchDetect of {BATCH_ITEMS}, 2 calls",
    "detect_32": "Detect, 32 calls",
    "detect_1": "Detect, 1 call",
}


@dataclass(frozen=True, kw_only=True)
class Bare:
    """The session alone, on the server's core."""

    images_per_s: float
    """At its best batch."""
    batch: int
    cpu_us: float
    """Processor time for an image at that batch, which other work on the machine disturbs less than the rate."""
    one_by_one_images_per_s: float
    one_by_one_cpu_us: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One bundle's figures."""

    path: Path
    bundle: Bundle
    bare: Bare
    loads: dict[str, Load]

    def ratio(self, name: str) -> float:
        """To the bare session."""
        return self.loads[name].images_per_s / self.bare.images_per_s

    def metrics(self) -> dict[str, float]:
        """Flat, each with the bundle's name before it."""
        flat: dict[str, float | None] = {f"bare_{key}": value for key, value in dataclasses.asdict(self.bare).items()}
        for name, load in self.loads.items():
            flat |= {f"{name}_{key}": value for key, value in dataclasses.asdict(load).items()}
            flat[f"{name}_ratio_to_bare"] = self.ratio(name)
        return {f"{self.bundle.manifest.name}_{key}": value for key, value in flat.items() if value is not None}


def main() -> int:
    """Runs the benchmark; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--bundle", action="append", help="a directory or a shipped name, once or more; digits when left out"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure (3)")
    parser.add_argument("--max-batch", type=int, default=64, help="the server's (64)")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object instead of the table")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    parser.add_argument("--role", choices=["bare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    started = time.monotonic()
    try:
        paths = [find_bundle(name) for name in options.bundle] if options.bundle else [_default_bundle()]
        if options.role == "bare":
            print(json.dumps(dataclasses.asdict(_bare(paths[0], options.seconds))))
            return 0
        measured = [_measure(path, options.seconds, options.max_batch) for path in paths]
    except AdvsentryError as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 1
    metrics = {name: value for one in measured for name, value in one.metrics().items()}
    print(json.dumps(metrics) if options.json else "\n\n".join(_table(one) for one in measured))
    if options.result:
        files = {one.bundle.manifest.name: one.bundle.manifest.files["model.onnx"] for one in measured}
        write_result(
            options.result,
            name="bench",
            module="deploy.bench",
            recipe={"seconds": options.seconds, "max_batch": options.max_batch},
            seed=SEED,
            seconds=time.monotonic() - started,
            data={name: file.sha256[:12] for name, file in files.items()},
            metrics=metrics,
        )
    return 0


def _default_bundle() -> Path:
    for path in DEFAULTS:
        if (path / "manifest.json").exists():
            return path
    raise BundleError("there is no bundle to measure: run `make demo` first, or name one with --bundle")


def _measure(path: Path, seconds: float, max_batch: int) -> Measured:
    bundle = load_bundle(path)
    everywhere = os.sched_getaffinity(0)
    server_core, client_core = min(everywhere), max(everywhere)
    first = bare_elsewhere(path, seconds, server_core)
    os.sched_setaffinity(0, {client_core})
    try:
        with server(path, server_core, max_batch, history="off") as running:
            found = loads(running, random_images(bundle, 256), seconds)
    finally:
        os.sched_setaffinity(0, everywhere)
    again = bare_elsewhere(path, seconds, server_core)  # other work on the machine may have slowed the first
    bare = max(first, again, key=lambda one: one.images_per_s)
    return Measured(path=path, bundle=bundle, bare=bare, loads=found)


def random_images(bundle: Bundle, count: int) -> Bytes8:
    """(count, H, W, C) of noise, of the bundle's shape."""
    shape = bundle.manifest.input
    size = (count, shape.height, shape.width, shape.channels)
    return np.random.default_rng(SEED).integers(0, 256, size, dtype=np.uint8)


def _bare(path: Path, seconds: float) -> Bare:
    """Images a second of the session alone, on this process's core, at each batch size."""
    bundle = load_bundle(path)
    graph, images = Graph(bundle.graph, bundle.graph_shape, threads=1), random_images(bundle, max(BATCHES))
    rates, cpu_us = {}, {}
    for batch in BATCHES:
        runs = 0
        graph.run(images[:batch])
        start, start_cpu = time.perf_counter(), time.process_time()
        while (took := time.perf_counter() - start) < seconds / len(BATCHES):
            graph.run(images[:batch])
            runs += 1
        rates[batch] = runs * batch / took
        cpu_us[batch] = 1e6 * (time.process_time() - start_cpu) / (runs * batch)
    best = min(batch for batch, spent in cpu_us.items() if spent <= ALIKE * min(cpu_us.values()))
    return Bare(
        images_per_s=rates[best],
        batch=best,
        cpu_us=cpu_us[best],
        one_by_one_images_per_s=rates[1],
        one_by_one_cpu_us=cpu_us[1],
    )


def bare_elsewhere(path: Path, seconds: float, core: int) -> Bare:
    """The session alone; in a process of its own, so that its threads are born on the core that the server gets."""
    arguments = [sys.executable, "-m", "deploy.bench", "--role", "bare", "--bundle", str(path)]
    done = subprocess.run(
        [*arguments, "--seconds", str(seconds)], stdout=subprocess.PIPE, check=True, preexec_fn=pinned(core)
    )
    return Bare(**json.loads(done.stdout))


def _table(measured: Measured) -> str:
    shape, manifest, bare = measured.bundle.manifest.input, measured.bundle.manifest, measured.bare
    cores = min(2, len(os.sched_getaffinity(0)))
    lines = [
        f"{manifest.name} {manifest.version} ({measured.path}): {shape.height} x {shape.width} x {shape.channels}, "
        f"{len(manifest.detectors)} detectors, graph of {len(measured.bundle.graph) / 1e6:.2f} MB on one thread",
        f"server and client on {cores} core(s); us are processor time for an image; requests are serialised before",
        f"{'':<40} {'images/s':>9} {'of bare':>8} {'asked':>7} {'server us':>10} {'client us':>10} "
        f"{'p50 ms':>8} {'p99 ms':>8}",
        _row(f"{manifest.name} bare session, batch {bare.batch}", bare.images_per_s, server_us=bare.cpu_us),
        _row(f"{manifest.name} bare session, batch 1", bare.one_by_one_images_per_s, server_us=bare.one_by_one_cpu_us),
    ]
    for name, text in LOADS.items():
        load = measured.loads[name]
        lines.append(
            _row(
                f"{manifest.name} {text}",
                load.images_per_s,
                ratio=measured.ratio(name),
                asked=ASKED if name == "stream" else None,
                server_us=load.server_us,
                client_us=load.client_us,
                p50_ms=load.p50_ms,
                p99_ms=load.p99_ms,
            )
        )
    return "\n".join(lines)


def _row(
    text: str,
    rate: float,
    *,
    ratio: float | None = None,
    asked: float | None = None,
    server_us: float,
    client_us: float | None = None,
    p50_ms: float | None = None,
    p99_ms: float | None = None,
) -> str:
    cells = [
        f"{text:<40} {rate:9.0f}",
        _cell(ratio, "{:.2f}", 8),
        _cell(asked, ">= {:.2f}", 7),
        _cell(server_us, "{:.0f}", 10),
        _cell(client_us, "{:.0f}", 10),
        _cell(p50_ms, "{:.2f}", 8),
        _cell(p99_ms, "{:.2f}", 8),
    ]
    return " ".join(cells).rstrip()


def _cell(value: float | None, form: str, width: int) -> str:
    return ("" if value is None else form.format(value)).rjust(width)


if __name__ == "__main__":
    sys.exit(main())
