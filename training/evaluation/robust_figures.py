"""What attacked images say of a run: accuracies, detection by density, geometry of the embedding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.detection.types import Bools, Bytes8
from training.attacks.rounding import from_8_bit
from training.detectors import Detector
from training.evaluation.battery import PGD_AT
from training.evaluation.geometry import class_distances, logit_spectral_gap, margin_satisfied
from training.evaluation.judging import balanced_accuracy, inside
from training.evaluation.metrics import auroc
from training.evaluation.suite import SuiteEntry
from training.evaluation.views import Views

__all__ = ["MARGIN", "Figures", "Tried", "Untouched", "clean_figures", "detection", "geometry", "robust_accuracies"]

MARGIN = 0.03
"""TLA's margin on colour images, by which `margin_satisfied_attacked` is judged whatever the run was trained with."""

Figures = dict[str, float | None]
"""Names to figures; None where there is no image to compute one from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Untouched:
    """The images that are attacked, before any attack."""

    images: Bytes8
    """(N, H, W, C)."""
    truth: NDArray[np.int64]
    """(N,) true classes."""
    views: Views

    @property
    def right(self) -> Bools:
        """Where the model is right, (N,)."""
        return np.asarray(self.views.labels.numpy() == self.truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """What one attack made of them."""

    entry: SuiteEntry
    images: Bytes8
    """(N, H, W, C), rounded."""
    views: Views

    def fools(self, untouched: Untouched) -> Bools:
        """Where the model was right and no longer is, (N,)."""
        return np.asarray(untouched.right & (self.views.labels.numpy() != untouched.truth))


def clean_figures(views: Views, truth: NDArray[np.int64]) -> Figures:
    """Accuracy over all images, and the mean of the classes' accuracies."""
    right = np.asarray(views.labels.numpy() == truth)
    return {"clean_accuracy": float(right.mean()), "balanced_accuracy": balanced_accuracy(right, truth)}


def robust_accuracies(untouched: Untouched, tried: Sequence[Tried], linf: float) -> Figures:
    """Share of images that are right unattacked and under each attack, and under all that keep to the Linf budget.

    Whatever an attack aimed at, its image counts towards `worst_accuracy` where it keeps to that budget.
    """
    right, figures = untouched.right, Figures()
    lost = ~right
    for one in tried:
        fools = one.fools(untouched)
        figures[f"{one.entry.name}_accuracy"] = float((right & ~fools).mean())
        lost = lost | (fools & inside(one.images, untouched.images, "linf", linf))
    return figures | {"worst_accuracy": float((~lost).mean())}


def detection(densities: Sequence[Detector], untouched: Untouched, tried: Sequence[Tried]) -> Figures:
    """AUROC of each density under PGD at several budgets; low density counts as suspicious for every model.

    `auc_misclassified` holds the attacked images that fool against the clean ones that are right, `auc_attacked` all
    attacked images against the same images clean; `fooling_images` are the positives of the former. The detector's
    kind stands behind the names of all but the first.
    """
    by_name, figures = {one.entry.name: one for one in tried}, Figures()
    for number, density in enumerate(densities):
        clean = _scores(density, untouched.images, untouched.views)
        kind = f"_{density.kind}" if number else ""
        for percent, name in PGD_AT.items():
            if name in by_name:
                one = by_name[name]
                scores, fools = _scores(density, one.images, one.views), one.fools(untouched)
                figures[f"auc_misclassified_{percent}{kind}"] = auroc(scores[fools], clean[untouched.right])
                figures[f"auc_attacked_{percent}{kind}"] = auroc(scores, clean)
                figures[f"fooling_images_{percent}"] = float(fools.sum())
    return figures


def geometry(untouched: Untouched, attacked: Tried, means: Tensor) -> Figures:
    """Distances among embeddings and the change of the logits under one attack.

    Args:
        means: (L, D) of each class, over clean embeddings of other images.
    """
    labels = torch.from_numpy(untouched.truth)
    clean, moved = untouched.views, attacked.views
    within_clean, between_clean = class_distances(clean.embedding, clean.embedding, labels)
    within_attacked, between_attacked = class_distances(moved.embedding, clean.embedding, labels)
    return {
        "within_distance_clean": within_clean,
        "within_distance_attacked": within_attacked,
        "between_distance_clean": between_clean,
        "between_distance_attacked": between_attacked,
        "margin_satisfied_attacked": margin_satisfied(moved.embedding, labels, means, margin=MARGIN),
        "logit_spectral_gap": logit_spectral_gap(clean.logits, moved.logits),
    }


def _scores(density: Detector, images: Bytes8, views: Views) -> NDArray[np.float64]:
    with torch.no_grad():
        scores: Tensor = density(from_8_bit(images), views.logits, views.embedding)
    return scores.double().numpy()
