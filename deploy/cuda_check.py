"""What waits for a GPU, in one call of a few minutes: training on CUDA, the CUDA provider, and the service on it.

    python -m deploy.cuda_check --out build/cuda [--device cuda] [--epochs 5]
    python -m deploy.cuda_check --bundle gtsrb [--bundle ...] [--result FILE] [-- flags of `advsentry serve`]

Trains the digits recipe and exports it, or takes the bundles named. Compares answers and rates of both providers, then
loads a server on that device through gRPC and gives its share of the bare session's best rate. With `--device cpu` it
compares the CPU with itself, which proves the script.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deploy.load import loads
from deploy.result_file import write_result
from deploy.server_process import serving
from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.detection.types import Bytes8
from service.errors import AdvsentryError
from training.checkpoint import load_run
from training.config import load_recipe
from training.export import export
from training.fit import fit

BATCHES = (1, 8, 64, 256)
SECONDS = 1.0
SERVED_SECONDS = 5.0
IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class Plan:
    """On what is measured, and how the server is started."""

    device: str
    max_batch: int
    flags: Sequence[str]
    """Further flags of `advsentry serve`."""


def main(arguments: list[str] | None = None) -> int:
    """Prints one JSON object; exit status 1 when a label of the trained bundle differs."""
    parser = argparse.ArgumentParser(prog="python -m deploy.cuda_check", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where the digits recipe is trained and exported")
    parser.add_argument("--bundle", action="append", default=[], help="measure this one, a directory or shipped name")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--max-batch", type=int, default=64, help="the server's (64)")
    parser.add_argument("--result", type=Path, metavar="FILE", help="a file for docs/results")
    parser.add_argument("flags", nargs="*", help="further flags of `advsentry serve`, behind --")
    options = parser.parse_args(arguments)
    if not options.out and not options.bundle:
        parser.error("expected --out DIR, --bundle B, or both")
    plan = Plan(device=options.device, max_batch=options.max_batch, flags=options.flags)
    began = time.monotonic()
    try:
        trained = _train(options.out, plan, options.epochs) if options.out else {}
        found = trained | {name: value for path in options.bundle for name, value in _named(path, plan).items()}
    except AdvsentryError as error:
        print(f"cuda_check: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2))
    if options.result:
        write_result(
            options.result,
            name="gpu",
            module="deploy.cuda_check",
            recipe={"device": plan.device, "max_batch": plan.max_batch, "flags": " ".join(plan.flags)},
            seed=0,
            seconds=time.monotonic() - began,
            data={"images": "noise", "of_each": IMAGES},
            metrics=found,
            arguments=arguments,
        )
    return int(found.get("other_labels", 0) > 0)


def _train(out: Path, plan: Plan, epochs: int) -> dict[str, float]:
    """Trains, exports and measures; flat names to figures.

    Raises:
        SetupError: the device does not come up.
    """
    began = time.monotonic()
    fit(load_recipe("digits", [f"train.epochs={epochs}"]), None, out / "run", device=torch.device(plan.device))
    fitted = {"fit_seconds": time.monotonic() - began}
    bundle = export(out / "run", out / "bundle", data_root=None, replace=True).path
    return fitted | measure(bundle, load_run(out / "run").parts(None).test.images, plan)


def _named(name: str, plan: Plan) -> dict[str, float]:
    """A bundle's figures on noise, behind its name."""
    path = find_bundle(name)
    shape = Engine.load(path).bundle.manifest.input
    size = (IMAGES, shape.height, shape.width, shape.channels)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    return {f"{path.name}_{what}": value for what, value in measure(path, images, plan).items()}


def measure(bundle: Path, images: Bytes8, plan: Plan) -> dict[str, float]:
    """Compares the device with the processor, and the service on the device with its bare session.

    Raises:
        BundleError: the bundle cannot be used.
        SetupError: the device does not come up.
    """
    here = Engine.load(bundle, device="cpu")
    there = Engine.load(bundle, device="cuda" if plan.device == "cuda" else "cpu")
    found = _compared(here, there, images)
    for size in BATCHES:
        found[f"cpu_images_per_s_at_{size}"] = _rate(here, images[:size])
        found[f"{plan.device}_images_per_s_at_{size}"] = _rate(there, images[:size])
    best = max(found[f"{plan.device}_images_per_s_at_{size}"] for size in BATCHES)
    del there  # the server needs the device's memory
    flags = ("--device", plan.device, "--max-batch", plan.max_batch, *plan.flags)
    with serving(bundle, *flags) as server:
        found["start_s"] = server.start_s
        for name, load in loads(server, images[:IMAGES], SERVED_SECONDS).items():
            found[f"{name}_images_per_s"] = load.images_per_s
            found[f"{name}_ratio_to_bare"] = load.images_per_s / best
    return found


def _compared(here: Engine, there: Engine, images: Bytes8) -> dict[str, float]:
    ours, theirs = here.measure(images), there.measure(images)
    return {
        "other_labels": float((ours.labels != theirs.labels).sum()),
        "largest_logit_difference": float(np.abs(ours.outputs.logits - theirs.outputs.logits).max()),
        "largest_score_difference": float(np.abs(ours.outputs.scores - theirs.outputs.scores).max()),
        "other_fused_p_values": float((ours.fused_p_value != theirs.fused_p_value).sum()),
    }


def _rate(engine: Engine, images: Bytes8) -> float:
    engine.graph.run(images)
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        engine.graph.run(images)
        runs += 1
    return runs * len(images) / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
