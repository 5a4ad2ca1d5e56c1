"""The training part of `make bench`: images a second of each method, and what an attacked step costs beside bare ones.

A step of PGD with k gradients passes the network k times for the attack and once for the weights. It is measured
beside k + 1 bare passes: forward, cross-entropy and backward with gradients of the weights, of one batch, and one step
of the optimiser. Everything is measured in turn, round after round, so that other work on the machine slows all alike;
with one thread on a CPU the processor's time is taken, which other work hardly changes.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from deploy.result_file import write_result
from service.errors import SetupError
from training.config import Recipe, recipe_from_dict
from training.data.splits import Parts
from training.data.types import ImageSet
from training.loop import Loop
from training.precision import autocast, computes_in_bf16, deterministic

CLASSES = 10
SIDE = 32
SEED = 0
STEPS = (5, 10)
ASKED = 1.15
"""At most, of a PGD step's time to that of as many bare passes."""

TLA: Mapping[str, Any] = {"weight": 0.5}
SAR: Mapping[str, Any] = {"weight": 0.06}
METHODS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "at": {},
    "tla": {"tla": TLA},
    "sar": {"sar": SAR},
    "tla_sar": {"tla": TLA, "sar": SAR},
    "trades": {"trades": {"weight": 6.0}, "attack": {"loss": "kl"}},
    "alp": {"pairing": {"weight": 0.1}},
    "awp": {"awp": {"weight": 0.01}},
    "n_fgsm": {"attack": {"name": "n_fgsm"}},
    "n_fgsm_tla_sar": {"attack": {"name": "n_fgsm"}, "tla": TLA, "sar": SAR},
    "at_pgd_10": {"attack": {"steps": 10}},
    "at_float32": {"train": {"precision": "float32"}},
}

Work = Callable[[], None]


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_training", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure (3)")
    parser.add_argument("--batch", type=int, default=128, help="images a step (128)")
    parser.add_argument("--width", type=int, default=48, help="of small_cnn (48)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes a minute")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object instead of the table")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with deterministic(options.threads):
        works = _works(options, device)
        clock = _clock(options.threads, device)
        metrics = _metrics(_rounds(works, options.seconds, clock), options.batch, device)
    print(json.dumps(metrics) if options.json else _table(metrics))
    if options.result:
        write_result(
            options.result,
            name="bench-training",
            module="deploy.bench_training",
            recipe={key: getattr(options, key) for key in ("seconds", "batch", "width", "threads")},
            seed=SEED,
            seconds=time.monotonic() - started,
            data={"set": "random", "side": SIDE, "channels": 3, "classes": CLASSES},
            metrics=metrics,
        )
    return 0


def _works(options: argparse.Namespace, device: torch.device) -> dict[str, Work]:
    """All that is measured, by name; the bare passes as `bare_6` and `bare_11`."""
    parts = _parts(options.batch)
    works: dict[str, Work] = {}
    for name, sections in METHODS.items():
        works[name] = _step(_loop(_recipe(options, sections), parts, device))
    for steps in STEPS:
        works[f"bare_{steps + 1}"] = _bare(_loop(_recipe(options, {}), parts, device), steps + 1, device)
    works["at_contiguous"] = _step(_contiguous(_loop(_recipe(options, {}), parts, device)))
    if not options.no_compile:
        try:
            works["at_compiled"] = _step(_loop(_recipe(options, {"train": {"compile": True}}), parts, device))
        except SetupError as error:
            print(f"bench_training: torch.compile is left out: {error}", file=sys.stderr)
    return works


def _parts(batch: int) -> Parts:
    random = np.random.default_rng(SEED)
    images = random.integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)
    train = ImageSet(images=images, labels=np.arange(batch) % CLASSES)
    none = ImageSet(images=images[:0], labels=train.labels[:0])
    return Parts(train=train, selection=none, fit=none, calibration=none, fusion=none, test=none)


def _recipe(options: argparse.Namespace, sections: Mapping[str, Mapping[str, Any]]) -> Recipe:
    table: dict[str, dict[str, Any]] = {
        "data": {"set": "npz", "fit": 0, "calibration": 1, "fusion": 1},
        "model": {"width": options.width, "depth": 3, "stem_stride": 2},
        "train": {"epochs": 1, "batch_size": options.batch, "seed": SEED},
        "attack": {"eps": 8 / 255, "steps": STEPS[0]},
    }
    for name, section in sections.items():
        table[name] = {**table.get(name, {}), **section}
    return recipe_from_dict(table)


def _loop(recipe: Recipe, parts: Parts, device: torch.device) -> Loop:
    return Loop(recipe, parts, CLASSES, device)


def _step(loop: Loop) -> Work:
    """A training step; it waits for the device itself."""

    def work() -> None:
        loop.step()
        loop.batch = 0  # there is one batch only

    return work


def _bare(loop: Loop, passes: int, device: torch.device) -> Work:
    """Passes of the network that a loop trains, in its precision, and one step of its optimiser."""
    images, labels = loop.source.take(torch.arange(loop.batch_size)), loop.source.labels
    bf16 = computes_in_bf16(device)

    def work() -> None:
        for _ in range(passes):
            loop.optimiser.zero_grad(set_to_none=True)
            with autocast(device, bf16=bf16):
                loss = F.cross_entropy(loop.model(images).float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
        loop.optimiser.step()
        loss.item()  # waits for the device

    return work


def _contiguous(loop: Loop) -> Loop:
    """The same with images and weights laid out channel after channel."""
    embed = loop.model.to(memory_format=torch.contiguous_format).embed  # type: ignore[call-overload]
    loop.model.embed = lambda images: embed(images.contiguous())  # type: ignore[method-assign]
    return loop


def _clock(threads: int, device: torch.device) -> Callable[[], float]:
    """Processor time where one thread does all the work, else the time of day."""
    return time.process_time if threads == 1 and device.type == "cpu" else time.perf_counter


def _rounds(works: Mapping[str, Work], seconds: float, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each work in each round; a first round, of which compiling is a part, is left out."""
    for work in works.values():
        work()
    took: dict[str, list[float]] = {name: [] for name in works}
    began = time.perf_counter()
    while not took["at"] or time.perf_counter() - began < seconds * len(works):
        for name, work in works.items():
            start = clock()
            work()
            took[name].append(clock() - start)
    return took


def _metrics(took: Mapping[str, list[float]], batch: int, device: torch.device) -> dict[str, float]:
    """Flat: rates from the fastest round, and medians over the rounds of ratios within one."""
    metrics: dict[str, float] = {}
    for name, seconds in took.items():
        if not name.startswith("bare_"):
            metrics[f"{name}_images_per_s"] = batch / min(seconds)
    for steps in STEPS:
        name = "at" if steps == STEPS[0] else f"at_pgd_{steps}"
        metrics[f"pgd_{steps}_ratio_to_bare"] = _ratio(took[name], took[f"bare_{steps + 1}"])
    if computes_in_bf16(device):
        metrics["bf16_speedup"] = _ratio(took["at_float32"], took["at"])
    metrics["channels_last_speedup"] = _ratio(took["at_contiguous"], took["at"])
    if "at_compiled" in took:
        metrics["compile_speedup"] = _ratio(took["at"], took["at_compiled"])
    return metrics | {"rounds": float(len(took["at"]))}


def _ratio(seconds: list[float], to: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(seconds, to, strict=True))


def _table(metrics: Mapping[str, float]) -> str:
    lines = [f"{'training':<32} {'':>10} {'asked':>8}"]
    for name, value in metrics.items():
        figure = f"{value:.0f}" if name.endswith("_per_s") or name == "rounds" else f"{value:.2f}"
        asked = f"<= {ASKED:.2f}" if name.endswith("_ratio_to_bare") else ""
        lines.append(f"{name:<32} {figure:>10} {asked:>8}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
