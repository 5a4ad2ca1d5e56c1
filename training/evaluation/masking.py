"""Signs that attacks were misled: where one shows, nothing is established by what they did not break.

Source: Athalye et al. 2018 (arXiv 1802.00420), Tramèr et al. 2020 (arXiv 2002.08347) and the warnings of AutoAttack
    (Croce and Hein 2020, arXiv 2003.01690).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from service.detection.types import Bytes8
from training.attacks import Pgd
from training.attacks.objectives import margin
from training.attacks.protocol import undisturbed
from training.attacks.rounding import from_8_bit, to_8_bit
from training.evaluation.attacking import BATCH
from training.evaluation.bootstrap import Estimate
from training.evaluation.records import Check

__all__ = [
    "any_change_check",
    "gradients_check",
    "growing_checks",
    "not_more_check",
    "share_without_gradient",
    "without_bound",
]

_WITHOUT_GRADIENT = 0.01
"""Share of images without any that is still believed."""
_NEARLY_ALL = 0.99
_TRIED, _STEPS = 64, 20
"""Images and steps of the attack without a budget."""


def share_without_gradient(model: nn.Module, images: Bytes8, truth: NDArray[np.int64]) -> float:
    """Share of images (N, H, W, C) at which no pixel changes the margin between the classes."""
    device = next(model.parameters()).device
    without = 0
    for start in range(0, len(truth), BATCH):
        batch = from_8_bit(images[start : start + BATCH]).to(device).requires_grad_()
        labels = torch.from_numpy(truth[start : start + BATCH]).to(device)
        with undisturbed(model), torch.enable_grad():
            (slopes,) = torch.autograd.grad(margin(model(batch), labels).sum(), batch)
        without += int((slopes.flatten(1) == 0).all(dim=1).sum())
    return without / len(truth)


def gradients_check(share: float) -> Check:
    """Of what `share_without_gradient` gives."""
    return Check(
        name="Gradients are there",
        passed=share <= _WITHOUT_GRADIENT,
        words=f"{100 * share:.1f} % of the images have none, expected at most {100 * _WITHOUT_GRADIENT:g} %",
    )


def without_bound(model: nn.Module, images: Bytes8, truth: NDArray[np.int64], seed: int) -> Bytes8:
    """The first images as PGD leaves them that may change every pixel to anything, (n, H, W, C), n at most 64.

    What it leaves alone has no gradient that leads anywhere.
    """
    device = next(model.parameters()).device
    clean = from_8_bit(images[:_TRIED]).to(device)
    labels = torch.from_numpy(truth[:_TRIED]).to(device)
    attack = Pgd(eps=1.0, steps=_STEPS, loss="margin")
    made = attack(model, clean, labels, torch.Generator().manual_seed(seed))
    return np.ascontiguousarray(to_8_bit(made, clean, "linf", 1.0).cpu().numpy())


def any_change_check(wrong: float, images: int) -> Check:
    """Of the share of so many images of `without_bound` that is misread."""
    return Check(
        name="A change of any size fools",
        passed=wrong >= _NEARLY_ALL,
        words=f"{100 * wrong:.1f} % of {images} images are misread, expected at least {100 * _NEARLY_ALL:g} %",
    )


def growing_checks(accuracies: Sequence[tuple[float, Estimate]], attack: str) -> list[Check]:
    """Of rising sizes in budgets and the accuracy that one attack, made anew, leaves at each; none of a single size."""
    if len(accuracies) < 2:
        return []
    worse = [f"{share:g} budgets" for (_, before), (share, after) in pairwise(accuracies) if _above(after, before)]
    return [
        Check(
            name="Larger changes break no fewer images",
            passed=not worse,
            words=f"{attack} leaves more right at {', '.join(worse)} than at the size before"
            if worse
            else f"by {attack}, at every size",
        )
    ]


def not_more_check(name: str, sighted: tuple[str, Estimate], blind: tuple[str, Estimate]) -> Check:
    """That an attack which sees the network leaves no more images right than one which sees less of it.

    Args:
        name: of the check.
        sighted: title of the attack, and the accuracy that it leaves.
        blind: the same.
    """
    return Check(
        name=name,
        passed=not _above(sighted[1], blind[1]),
        words=f"{sighted[0]} leaves {_percent(sighted[1])} right, {blind[0]} {_percent(blind[1])}",
    )


def _above(larger: Estimate, smaller: Estimate) -> bool:
    """Whether it is larger beyond a standard error of the difference of two shares of the same images."""
    if larger.value is None or smaller.value is None:
        return False
    spread = math.sqrt(max(larger.value * (1 - larger.value), smaller.value * (1 - smaller.value)) / larger.n)
    return larger.value - smaller.value > spread


def _percent(share: Estimate) -> str:
    return "none" if share.value is None else f"{100 * share.value:.1f} %"
