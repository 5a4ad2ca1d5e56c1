"""What waits for a GPU, in one call of a few minutes: training on CUDA, and the CUDA provider against the CPU's.

    python -m deploy.cuda_check --out build/cuda [--device cuda] [--epochs 5]

Trains the digits recipe, exports it, and compares the bundle's answers and rates on both providers. With `--device cpu`
it compares the CPU with itself, which proves the script.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from service.detection.engine import Engine
from service.detection.types import Bytes8
from service.errors import AdvsentryError
from training.checkpoint import load_run
from training.config import load_recipe
from training.export import export
from training.fit import fit

BATCHES = (1, 8, 64, 256)
SECONDS = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Prints one JSON object; exit status 1 when a label or a verdict differs beyond the band of rounding."""
    parser = argparse.ArgumentParser(prog="python -m deploy.cuda_check", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        found = check(options.out, options.device, options.epochs)
    except AdvsentryError as error:
        print(f"cuda_check: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2))
    return int(found["other_labels"] > 0)


def check(out: Path, device: str, epochs: int) -> dict[str, float]:
    """Trains, exports and compares; flat names to figures.

    Raises:
        SetupError: the device does not come up.
    """
    began = time.monotonic()
    fit(load_recipe("digits", [f"train.epochs={epochs}"]), None, out / "run", device=torch.device(device))
    found = {"fit_seconds": time.monotonic() - began}
    bundle = export(out / "run", out / "bundle", data_root=None, replace=True)
    here = Engine(bundle, device="cpu")
    there = Engine(bundle, device="cuda" if device == "cuda" else "cpu")
    images = load_run(out / "run").parts(None).test.images
    ours, theirs = here.measure(images), there.measure(images)
    found["other_labels"] = float((ours.probabilities.argmax(1) != theirs.probabilities.argmax(1)).sum())
    found["largest_logit_difference"] = float(np.abs(ours.outputs.logits - theirs.outputs.logits).max())
    found["other_fused_p_values"] = float((ours.fused_p_value != theirs.fused_p_value).sum())
    for size in BATCHES:
        found[f"cpu_images_per_s_at_{size}"] = _rate(here, images[:size])
        found[f"{device}_images_per_s_at_{size}"] = _rate(there, images[:size])
    return found


def _rate(engine: Engine, images: Bytes8) -> float:
    engine.graph.run(images)
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        engine.graph.run(images)
        runs += 1
    return runs * len(images) / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
