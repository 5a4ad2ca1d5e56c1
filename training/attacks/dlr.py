"""Difference of logits ratio: a margin that neither shifting nor scaling the logits changes."""

import torch
from torch import Tensor

from service.errors import SetupError

__all__ = ["dlr", "targeted_dlr"]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) largest other logit minus the true one, over the largest minus the third largest.

    Args:
        logits: (N, classes), 3 classes or more.
        labels: (N,) true classes.

    Raises:
        SetupError: fewer than 3 classes.

    Source: Croce and Hein 2020 (arXiv 2003.01690).
    """
    ordered = _ordered("dlr", logits, at_least=3)
    true = logits.float().gather(1, labels[:, None])[:, 0]
    other = torch.where(logits.argmax(dim=1) == labels, ordered[:, 1], ordered[:, 0])
    return (other - true) / (ordered[:, 0] - ordered[:, 2] + _TINY)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(N,) target logit minus the true one, over the largest minus the mean of the third and the fourth.

    Args:
        logits: (N, classes), 4 classes or more.
        labels: (N,) true classes.
        targets: (N,) classes to be led to.

    Raises:
        SetupError: fewer than 4 classes.

    Source: Croce and Hein 2020 (arXiv 2003.01690).
    """
    ordered = _ordered("targeted dlr", logits, at_least=4)
    true, target = (logits.float().gather(1, which[:, None])[:, 0] for which in (labels, targets))
    return (target - true) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + _TINY)


_TINY = 1e-12
"""Keeps equal logits from dividing by 0."""


def _ordered(name: str, logits: Tensor, *, at_least: int) -> Tensor:
    """The largest logits in falling order, (N, at_least)."""
    if logits.shape[1] < at_least:
        raise SetupError(
            f"{name}: expected at least {at_least} classes, got {logits.shape[1]}; attack with the ce or margin loss"
        )
    return logits.float().topk(at_least, dim=1).values
