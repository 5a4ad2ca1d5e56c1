"""How long the service takes to start, what memory it holds, and what a kept optimised graph saves.

    python -m deploy.footprint [--bundle gtsrb ...] [--starts 5] [--result FILE]

Memory is that of a server that has just started, of one under load, and of one whose query history is full by the
default settings, all of noise. Prints one JSON object of flat names. Start is from the start of the process until it
says that it serves; with the bundle's files in the page cache, since the first start is not counted.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from deploy.result_file import write_result
from deploy.server_process import serving
from service.client import Client
from service.detection.bundle import Bundle, find_bundle, load_bundle
from service.detection.graph_cache import GraphCache
from service.detection.sessions import open_session
from service.errors import AdvsentryError
from service.history.bounds import Bounds
from service.history.recent import RECENT
from service.settings import Settings

__all__ = ["deep_graph"]

BUNDLES = ("digits", "mnist", "gtsrb")
IMAGES = 2000
SESSIONS = 7
MOST_KEPT = 10**6
"""Queries that a history is filled with."""
LAYERS = 500
CHANNELS = 32
SEED = 0


def main(arguments: list[str] | None = None) -> int:
    """Prints one JSON object; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.footprint", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", action="append", help=f"a directory or shipped name ({', '.join(BUNDLES)})")
    parser.add_argument("--starts", type=int, default=5, help="of each server (5)")
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"of the graph made for the cache ({LAYERS})")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        bundles = [load_bundle(find_bundle(name)) for name in options.bundle or BUNDLES]
        metrics = {name: value for bundle in bundles for name, value in _of_bundle(bundle, options.starts).items()}
    except AdvsentryError as error:
        print(f"footprint: error: {error}", file=sys.stderr)
        return 1
    metrics |= _sessions(f"layers_{options.layers}", deep_graph(options.layers))
    print(json.dumps(metrics, indent=2))
    if options.result:
        write_result(
            options.result,
            name="footprint",
            module="deploy.footprint",
            recipe={"starts": options.starts, "images": IMAGES, "sessions": SESSIONS},
            seed=SEED,
            seconds=time.monotonic() - began,
            data={bundle.manifest.name: bundle.manifest.files["model.onnx"].sha256[:12] for bundle in bundles},
            metrics=metrics,
        )
    return 0


def _of_bundle(bundle: Bundle, starts: int) -> dict[str, float]:
    """Median start and memory of some starts; the memory also after load."""
    found: list[tuple[float, ...]] = []
    with serving(bundle.path):
        pass  # brings the files into the page cache
    for _ in range(starts):
        with serving(bundle.path) as server:
            at_start = (server.start_s, server.cpu_s(), server.resident_bytes() / 1e6)
            _load(server.target, bundle)
            found.append((*at_start, server.resident_bytes() / 1e6))
    names = ("start_s", "start_cpu_s", "resident_mb", "resident_mb_under_load")
    name = bundle.manifest.name
    medians = {f"{name}_{what}": median(values) for what, values in zip(names, zip(*found, strict=True), strict=True)}
    return medians | _with_full_history(name, bundle) | _sessions(name, bundle.graph)


def _with_full_history(name: str, bundle: Bundle) -> dict[str, float]:
    """How many queries the history keeps, and the memory with so many; nothing of a bundle that has none.

    Each answer waits for its query to be observed, or some would go unobserved.
    """
    if bundle.history is None:
        return {}
    made = Settings(bundle=str(bundle.path))
    bounds = Bounds(entries=made.history_entries, max_bytes=made.history_bytes)
    entries = min(bounds.capacity(bundle.manifest.embedding_dim), MOST_KEPT)
    with serving(bundle.path, "--history", "annotate", "--history-wait-s", "10") as server:
        for start in range(0, entries + RECENT, IMAGES):
            _load(server.target, bundle, different=IMAGES, seed=SEED + 1 + start)
        return {f"{name}_history_entries": entries, f"{name}_resident_mb_full_history": server.resident_bytes() / 1e6}


def _load(target: str, bundle: Bundle, *, different: int = 256, seed: int = SEED) -> None:
    shape = bundle.manifest.input
    size = (different, shape.height, shape.width, shape.channels)
    images = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    with Client(target, timeout_s=60.0) as client:
        for result in client.detect_stream(images[number % len(images)] for number in range(IMAGES)):
            if isinstance(result, AdvsentryError):
                raise result


def _sessions(name: str, graph: bytes) -> dict[str, float]:
    """Milliseconds until a graph is ready, as the bundle has it and as an earlier start kept it; the best of some."""
    with tempfile.TemporaryDirectory() as folder:
        cache = GraphCache(Path(folder), pays_s=0)
        open_session("model.onnx", graph, threads=1, cache=cache)
        plain, kept = list[float](), list[float]()
        for _ in range(SESSIONS):
            plain.append(_took_ms(lambda: open_session("model.onnx", graph, threads=1)))
            kept.append(_took_ms(lambda: open_session("model.onnx", graph, threads=1, cache=cache)))
    return {
        f"{name}_session_ms": min(plain),
        f"{name}_session_kept_ms": min(kept),
    }


def _took_ms(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - began)


def deep_graph(layers: int) -> bytes:
    """A graph of so many small convolutions, each with what onnxruntime fuses into it."""
    generator = np.random.default_rng(SEED)
    nodes, constants, last = [], {}, "images"
    for layer in range(layers):
        weights = generator.standard_normal((CHANNELS, CHANNELS, 3, 3), dtype=np.float32)
        constants[f"weights{layer}"] = weights
        for number, what in enumerate(("scale", "shift", "mean", "variance")):
            constants[f"{what}{layer}"] = np.full(CHANNELS, float(number), np.float32)
        names = [f"{what}{layer}" for what in ("scale", "shift", "mean", "variance")]
        nodes += [
            helper.make_node("Conv", [last, f"weights{layer}"], [f"sum{layer}"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"sum{layer}", *names], [f"normal{layer}"]),
            helper.make_node("Relu", [f"normal{layer}"], [f"out{layer}"]),
        ]
        last = f"out{layer}"
    made = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", CHANNELS, 8, 8])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", CHANNELS, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    sys.exit(main())
