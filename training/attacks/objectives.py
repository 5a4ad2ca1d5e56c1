"""What an attack maximises, one number an image; larger = closer to fooling."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.errors import SetupError

__all__ = [
    "OBJECTIVES",
    "Objective",
    "away",
    "cross_entropy",
    "divergence_from",
    "input_gradients",
    "margin",
    "named_objective",
    "toward",
]

Objective = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) cross-entropy of logits (N, classes) against the true labels (N,)."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) largest other logit minus the true one; at least 0 where the image fools.

    Source: Carlini and Wagner 2017 (arXiv 1608.04644), their f6 without its floor.
    """
    logits = logits.float()
    true = logits.gather(1, labels[:, None])  # (N, 1)
    others = logits.scatter(1, labels[:, None], -torch.inf)  # (N, classes)
    return others.amax(dim=1) - true[:, 0]


def away(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) the true logit, negated: away from the own class, wherever that leads."""
    return -logits.float().gather(1, labels[:, None])[:, 0]


def toward(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) the largest other logit: toward the nearest other class, however near the own one stays."""
    return logits.float().scatter(1, labels[:, None], -torch.inf).amax(dim=1)


def divergence_from(model: nn.Module, images: Tensor) -> Objective:
    """The (N,) KL divergence of the answer to an attacked image from that to its clean one in `images` (N, C, H, W).

    Source: the inner maximisation of TRADES, Zhang et al. 2019 (arXiv 1901.08573).
    """
    with torch.no_grad():
        expected = F.log_softmax(model(images).float(), dim=1)

    def divergence(logits: Tensor, labels: Tensor) -> Tensor:
        return (expected.exp() * (expected - F.log_softmax(logits.float(), dim=1))).sum(dim=1)

    return divergence


OBJECTIVES: Mapping[str, Objective] = {"ce": cross_entropy, "margin": margin, "away": away, "toward": toward}


def named_objective(name: str) -> Objective:
    """The objective of this name.

    Raises:
        SetupError: there is none.
    """
    if name not in OBJECTIVES:
        raise SetupError(f"loss: expected one of {', '.join(OBJECTIVES)}, got {name!r}")
    return OBJECTIVES[name]


def input_gradients(model: nn.Module, images: Tensor, labels: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Gradients of the summed objective by the images, (N, C, H, W), and the logits (N, classes)."""
    images = images.detach().requires_grad_(True)
    logits = model(images)
    # A sum, not a mean: each image's gradient is then the same in any batch.
    (gradients,) = torch.autograd.grad(objective(logits, labels).sum(), images)
    return gradients, logits.detach()
