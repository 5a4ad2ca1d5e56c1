"""The `fusions` command: attacks a run's selection images, and prints what each way to fuse finds of it."""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from service.detection.types import Bytes8, Float32s
from service.errors import SetupError
from training.checkpoint import Run, load_run, write_atomically
from training.checks import at_least
from training.config import exported_as
from training.data import ImageSet
from training.data.splits import Parts
from training.evaluation.attack_cache import ATTACKED, AttackCache
from training.evaluation.attacking import Progress, attack_images
from training.evaluation.fusions import Contest, Scores, compare_fusions
from training.evaluation.held_out import choose_images
from training.evaluation.progress import reporting
from training.evaluation.suite import SHORT, budgets_for, short_suite
from training.evaluation.views import views_of
from training.export import check_exportable, fitted_graph
from training.fusion import forged_surprises, weight_images
from training.graph import torch_outputs
from training.lessons import lessons_of
from training.precision import deterministic

__all__ = ["run_command"]

CAUTION = (
    "For choosing only: selection images, short attacks that know no detector. Quote what `evaluate` finds of a bundle."
)


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `fusions`; gives its exit status."""
    out = arguments.out or arguments.run / "fusions.json"
    at_least(1, "--images", arguments.images)
    run = load_run(arguments.run, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    run = dataclasses.replace(run, recipe=exported_as(run.recipe, arguments.overrides))
    parts = run.parts(arguments.data)
    check_exportable(run.recipe, parts, len(run.class_names))
    with reporting() as progress, deterministic(0):
        scores = _scores(run, parts, most=arguments.images, seed=arguments.seed, progress=progress)
    contests, remarks = compare_fusions(scores)
    answer = {
        "caution": CAUTION,
        "seed": arguments.seed,
        "attacks": {name: getattr(SHORT, name) for name in ("steps", "restarts", "carlini_steps", "bisections")},
        "clean_images": len(scores.clean),
        "fooling_images": {name: len(rows) for name, rows in scores.attacked.items()},
        "contests": [dataclasses.asdict(contest) for contest in contests],
        "remarks": remarks,
    }
    text = json.dumps(answer, indent=2, allow_nan=False) + "\n"
    write_atomically(out, text)
    sys.stdout.write(text if arguments.json else _page(scores, contests, remarks, out))
    return 0


def _scores(run: Run, parts: Parts, *, most: int, seed: int, progress: Progress) -> Scores:
    """Attacks the part of the selection images that no weight is learned from.

    Raises:
        SetupError: there are no such images.
    """
    learned_on, judged_on = weight_images(parts)
    if not len(judged_on):
        raise SetupError(
            "data.selection: expected images to compare fusions on, got none; train with data.selection above 0. The "
            "calibration parts and the test images are not for choosing"
        )
    judged = judged_on.take(choose_images(judged_on.labels, min(most, len(judged_on)), seed))
    fooling = _fooling(run, judged, seed=seed, progress=progress)
    run.model.to("cpu")  # where detectors are fitted
    progress("detectors: fitting")
    graph = fitted_graph(run, parts, run.recipe.export.detectors)

    def score(images: Bytes8) -> Float32s:
        return torch_outputs(graph, images).scores

    calibration = score(parts.calibration.images)
    return Scores(
        detectors=run.recipe.export.detectors,
        calibration=calibration,
        fusion=score(parts.fusion.images),
        clean=score(judged.images),
        attacked={
            name: score(images) if len(images) else np.zeros((0, calibration.shape[1]), np.float32)
            for name, images in fooling.items()
        },
        lesson=forged_surprises(
            calibration,
            score,
            learned_on.images,
            eps=lessons_of(run, parts.fit).eps,
            seed=run.recipe.train.seed,
        ),
    )


def _fooling(run: Run, judged: ImageSet, *, seed: int, progress: Progress) -> dict[str, Bytes8]:
    """Attack to its images that the classifier misreads and that it read rightly before."""
    attack = run.recipe.attack
    suite = short_suite(budgets_for(attack.norm, attack.eps, math.prod(run.input_shape)))
    images: Bytes8 = np.ascontiguousarray(judged.images)
    right = views_of(run.model, images).labels.cpu().numpy() == judged.labels
    cache = AttackCache(run.path / ATTACKED, warn=progress)
    fooling = {}
    for entry in suite:
        made = attack_images(run.model, images, judged.labels, entry, seed=seed, progress=progress, cache=cache).images
        wrong = views_of(run.model, made).labels.cpu().numpy() != judged.labels
        fooling[entry.name] = np.ascontiguousarray(made[right & wrong])
    return fooling


def _page(scores: Scores, contests: Sequence[Contest], remarks: Sequence[str], out: Path) -> str:
    attacks = list(scores.attacked)
    head = ("", "FPR 1 %", "FPR 5 %", *attacks, "mean", "worst", "TPR mean", "worst")
    rows = [head, *(_row(contest, attacks) for contest in contests)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    fooling = ", ".join(f"{name} {len(images)}" for name, images in scores.attacked.items())
    return "\n".join(
        [
            CAUTION,
            f"{len(scores.clean)} clean images; images that fool: {fooling}. By attack: AUROC in %, then its mean and "
            "worst; last the share found at 5 % false positives.",
            *table,
            *remarks,
            f"written: {out}",
            "",
        ]
    )


def _row(contest: Contest, attacks: Sequence[str]) -> tuple[str, ...]:
    figures = (
        *contest.false_positives.values(),
        *(contest.aurocs[name] for name in attacks),
        *(contest.mean_auroc, contest.worst_auroc, contest.mean_found, contest.worst_found),
    )
    what = contest.fusion or contest.detectors[0]
    name = what if contest.left_out is None else f"{what} without {contest.left_out}"
    return name, *("-" if figure is None else f"{100 * figure:.1f}" for figure in figures)
