"""What an int8 or fp16 bundle gains over the float one that it was made of, and what it loses: one run, one machine.

Speed: the bare graphs in turns, so that other work on the machine slows both alike; on the processor one thread each,
and processor time, not time on the wall. Loss: clean accuracy, labels, and the AUROC of the fused score on the same
attacked images, made on the float network (of the run) that both come from. Each bundle is calibrated on its own graph.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from deploy.paired_speed import BATCHES, ROUNDS, measured_speed, speed_metrics
from deploy.result_file import write_result
from service.detection.bundle import Bundle, find_bundle, load_bundle
from service.detection.engine import Engine
from service.detection.types import Integers
from service.errors import AdvsentryError, SetupError
from training.checkpoint import load_run
from training.evaluation.attack_cache import ATTACKED, AttackCache
from training.evaluation.attacking import attack_images
from training.evaluation.blind_strength import STANDARD
from training.evaluation.decisions import FUSED, Decisions, decide
from training.evaluation.held_out import choose_images
from training.evaluation.metrics import auroc
from training.evaluation.pairing import check_pair
from training.evaluation.suite import blind_suite, budgets_for, chosen
from training.precision import deterministic

SHORT = {"int8": "int8", "float16": "fp16"}
"""What metrics call a manifest's precision."""
ATTACKS = ("fgsm", "margin_pgd", "mim", "apgd_ce", "square", "pgd_l2", "deepfool", "fmn_linf", "ddn", "cw_l2")
"""Fast ones, of every kind: full budgets, random search, and smallest changes, which rounding undoes most easily."""
LEAST_FOOLED = 20
"""Images that an attack must fool for its AUROC of successful ones to be told."""
SEED = 0


def attack_metrics(
    name: str,
    clean: Sequence[Decisions],
    attacked: Sequence[Decisions],
    truth: Integers,
    precisions: Sequence[str] = ("float", "int8"),
) -> dict[str, float]:
    """AUROC of the fused score on the same images: of all of them, and of those that fool the bundle.

    Args:
        name: of the attack.
        clean: of the float bundle and of the other one, N images.
        attacked: likewise.
        truth: (N,) classes.
        precisions: what both are called.
    """
    metrics = dict[str, float]()
    for of, before, after in zip(precisions, clean, attacked, strict=True):
        right = before.labels == truth
        fooled = right & (after.labels != truth)
        every = auroc(after.scores[FUSED], before.scores[FUSED])
        successful = auroc(after.scores[FUSED][fooled], before.scores[FUSED][right])
        if every is not None:
            metrics[f"{name}_auroc_{of}"] = every
        if successful is not None and fooled.sum() >= LEAST_FOOLED:
            metrics[f"{name}_auroc_successful_{of}"] = successful
    return metrics


def differences(metrics: Mapping[str, float], precisions: Sequence[str] = ("float", "int8")) -> dict[str, float]:
    """The other minus float, over the attacks that have both: the mean, and the worst, which is the lowest."""
    found = dict[str, float]()
    for kind in ("auroc", "auroc_successful"):
        ends = [f"_{kind}_{of}" for of in precisions]
        names = [name.removesuffix(ends[0]) for name in metrics if name.endswith(ends[0])]
        gains = [metrics[name + ends[1]] - metrics[name + ends[0]] for name in names if name + ends[1] in metrics]
        if gains:
            found |= {f"mean_{kind}_difference": float(np.mean(gains)), f"worst_{kind}_difference": min(gains)}
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.int8_check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("float", help="the float bundle: a directory or a shipped name")
    parser.add_argument("other", help="the bundle that `advsentry-train export` made of its run with --int8 or --fp16")
    parser.add_argument("--device", choices=sorted(BATCHES), default="cpu", help="what runs both (%(default)s)")
    parser.add_argument("--run", type=Path, required=True, help="the run that both were exported from")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("ADVSENTRY_DATA"), help="folder of the data set (or ADVSENTRY_DATA)"
    )
    parser.add_argument("--images", type=int, default=100, help="test images to attack (100)")
    parser.add_argument("--attacks", default=",".join(ATTACKS), metavar="A,B", help="of the blind suite")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    options = parser.parse_args(argv)
    started = time.monotonic()
    try:
        bundles = [load_bundle(find_bundle(name)) for name in (options.float, options.other)]
        precisions = check_made_of(*bundles)
        if options.device == "cpu":
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        metrics = speed_metrics(measured_speed(bundles, device=options.device), precisions, options.device)
        losses, data = _losses(options, bundles, precisions)
    except AdvsentryError as error:
        print(f"int8_check: error: {error}", file=sys.stderr)
        return 1
    metrics |= losses
    print("\n".join(f"{name:<44} {value:.4g}" for name, value in metrics.items()))
    if options.result:
        write_result(
            options.result,
            name=options.result.stem,
            module="deploy.int8_check",
            recipe={
                "bundle": bundles[1].manifest.name,
                "device": options.device,
                "rounds": ROUNDS,
                "batches": "/".join(map(str, BATCHES[options.device])),
            },
            seed=SEED,
            seconds=time.monotonic() - started,
            data=data,
            metrics=metrics,
        )
    return 0


def check_made_of(exact: Bundle, rounded: Bundle) -> tuple[str, str]:
    """What metrics call the precisions of two bundles; refuses those of which one is not made of the other.

    Raises:
        SetupError: says which graph was expected.
    """
    found = rounded.manifest.quantised
    if found is None or found.float_graph != exact.manifest.files["model.onnx"].sha256:
        of = "a bundle in float32" if found is None else f"one made of {found.float_graph[:12]}..."
        raise SetupError(
            f"{rounded.manifest.name}: expected a bundle that was made of the graph "
            f"{exact.manifest.files['model.onnx'].sha256[:12]}... of {exact.manifest.name}, got {of}"
        )
    return "float", SHORT[found.precision]


def _losses(
    options: argparse.Namespace, bundles: Sequence[Bundle], precisions: Sequence[str]
) -> tuple[dict[str, float], dict[str, object]]:
    """Metrics, and what they were measured on."""
    run = load_run(options.run, device=torch.device(options.device))
    for bundle in bundles:
        check_pair(run, bundle)
    test = run.parts(options.data).test
    images = np.ascontiguousarray(test.images)
    rows = choose_images(test.labels, options.images, SEED)
    engines = [Engine(bundle, device=options.device, threads=1) for bundle in bundles]
    every = [decide(engine, images) for engine in engines]
    clean, truth = [one.rows(rows) for one in every], test.labels[rows]
    budgets = budgets_for(run.recipe.attack.norm, run.recipe.attack.eps, math.prod(run.input_shape))
    metrics, agreed, count = dict[str, float](), 0, 0
    for of, one in zip(precisions, every, strict=True):
        metrics[f"clean_accuracy_{of}"] = float((one.labels == test.labels).mean())
    metrics["clean_label_agreement"] = float((every[0].labels == every[1].labels).mean())
    run.model.eval()
    cache = AttackCache(run.path / ATTACKED, warn=_tell)
    with deterministic(0):
        for entry in chosen(blind_suite(budgets, STANDARD), options.attacks.split(",")):
            made = attack_images(run.model, images[rows], truth, entry, seed=SEED, progress=_tell, cache=cache).images
            attacked = [decide(engine, made) for engine in engines]
            metrics |= attack_metrics(entry.name, clean, attacked, truth, precisions)
            agreed, count = agreed + int((attacked[0].labels == attacked[1].labels).sum()), count + len(made)
    metrics["attacked_label_agreement"] = agreed / count
    data = {"set": run.recipe.data.set, "split": "test", "test_images": len(images), "attacked_images": len(rows)}
    return metrics | differences(metrics, precisions), data


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
