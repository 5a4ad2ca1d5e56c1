"""What a run withstands, in figures: the `robustness` command's attacks on its torch model."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from service.errors import SetupError
from training.attacks.ball import Ball
from training.attacks.rounding import from_8_bit
from training.checkpoint import Run, load_run
from training.data import ImageSet
from training.data.splits import Parts
from training.detectors.detector import CleanViews
from training.detectors.gaussian import ClassGaussian
from training.detectors.mixture import GaussianMixture
from training.domain_attacks import domain_balls
from training.evaluation.attack_cache import ATTACKED, AttackCache
from training.evaluation.attacking import Progress, attack_images
from training.evaluation.battery import battery
from training.evaluation.eight_bit import EightBit
from training.evaluation.held_out import choose_images
from training.evaluation.localized_suite import check_masked, localized_battery, masks_for
from training.evaluation.norms import norm_battery, over_norms
from training.evaluation.robust_figures import (
    Figures,
    Tried,
    Untouched,
    clean_figures,
    detection,
    geometry,
    robust_accuracies,
)
from training.evaluation.robustness_options import Options
from training.evaluation.suite import Budgets, SuiteEntry, budgets_for, chosen
from training.evaluation.views import views_of
from training.folders import make_folder
from training.lessons import lessons_of
from training.masks import Masks
from training.processes import Processes

__all__ = ["Ready", "attack_run", "prepare"]

_IMAGES = 1_000
_BATCH = 250
_GEOMETRY = "pgd_20"
"""The attack whose images the geometry is about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ready:
    """All that a measurement needs."""

    run: Run
    parts: Parts
    positions: np.ndarray
    """Of the test images that are attacked."""
    entries: tuple[SuiteEntry, ...]
    budgets: Budgets
    balls: tuple[Ball, ...]
    masks: Masks | None


def prepare(options: Options, device: torch.device) -> Ready:
    """Loads all that a measurement needs.

    Raises:
        SetupError: the run is not finished, its data are missing or too few, an attack is unknown, or `--out` cannot
            be written.
    """
    run = load_run(options.run, device=device)
    budgets = _budgets(run, options)
    balls = options.norms or domain_balls(run.recipe)
    masks = masks_for(run, options.mask, options.mask_run, options.data)
    check_masked(options.attacks, masks)
    regions = localized_battery(budgets, options.strength, masks) if masks is not None else ()
    every = battery(budgets, len(run.class_names), options.strength)
    entries = chosen((*every, *norm_battery(balls, options.strength), *regions), options.attacks)
    parts = run.parts(options.data)
    positions = _positions(parts.test, options)
    make_folder(options.out.parent, "--out")
    return Ready(run=run, parts=parts, positions=positions, entries=entries, budgets=budgets, balls=balls, masks=masks)


def _budgets(run: Run, options: Options) -> Budgets:
    attack = run.recipe.attack
    return budgets_for(attack.norm, attack.eps, math.prod(run.input_shape), l2_eps=options.l2_eps)


def _positions(test: ImageSet, options: Options) -> np.ndarray:
    """Of the test images that are attacked."""
    if not len(test):
        raise SetupError(f"{options.run}: expected test images, got none")
    if (options.images or 0) > len(test):
        raise SetupError(f"--images: expected at most the {len(test)} test images of the run, got {options.images}")
    return choose_images(test.labels, options.images or _IMAGES, options.seed)


def _clean_views(run: Run, fit: ImageSet) -> CleanViews:
    """Of the fit part, which may be the training part; what the densities are fitted on."""
    views = views_of(run.model, fit.images)
    return CleanViews(
        images=from_8_bit(fit.images[:0]),  # densities read embeddings only
        logits=views.logits,
        embedding=views.embedding,
        labels=torch.from_numpy(fit.labels),
        classifier=run.model,
        lessons=lessons_of(run, fit),
    )


def attack_run(ready: Ready, *, seed: int, progress: Progress, processes: Processes) -> tuple[Figures, float]:
    """The figures, and the seconds of attacks that earlier calls had spent."""
    run, test, positions = ready.run, ready.parts.test, ready.positions
    clean = _clean_views(run, ready.parts.fit)
    progress(f"clean: {len(test)} images")
    every = views_of(run.model, test.images)
    untouched = Untouched(
        images=np.ascontiguousarray(test.images[positions]),
        truth=test.labels[positions],
        views=every.take(torch.from_numpy(positions)),
    )
    mixture, gaussian = GaussianMixture.fit(clean), ClassGaussian.fit(clean)
    cache = AttackCache(run.path / ATTACKED, warn=progress)
    tried, spared = [], 0.0
    for entry in ready.entries:
        model = EightBit(run.model) if entry.norm == "linf" else run.model
        made = attack_images(
            model,
            untouched.images,
            untouched.truth,
            entry,
            seed=seed,
            progress=progress,
            batch=_BATCH,
            cache=cache,
            processes=processes,
        )
        tried.append(Tried(entry=entry, images=made.images, views=views_of(run.model, made.images)))
        spared += made.spared
        share = (untouched.right & ~tried[-1].fools(untouched)).mean()
        progress(f"{entry.name} done: {share:.1%} stay right")
    progress("figures")
    figures: Figures = {"epoch": float(run.epoch), **clean_figures(every, test.labels)}
    figures |= robust_accuracies(untouched, tried, ready.budgets.linf) | detection(
        (mixture, gaussian), untouched, tried
    )
    figures |= over_norms(untouched, tried)
    for one in tried:
        if one.entry.name == _GEOMETRY:
            figures |= geometry(untouched, one, mixture.means)
    return figures, spared
