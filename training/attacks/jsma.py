"""Saliency-map attack: the few values that most favour a wrong class are driven to white."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.attacks.objectives import input_gradients
from training.attacks.protocol import undisturbed
from training.checks import require

__all__ = ["Jsma"]


@dataclass(frozen=True, kw_only=True)
class Jsma:
    """Raises, step by step, the two values of the image along which the logit of the likeliest wrong class rises most.

    An image stays where it first fools; one that never does ends with its share of values used up.

    Source: Papernot et al. 2016 (arXiv 1511.07528) as the adversarial-robustness-toolbox has it: the two values are
    chosen one by one by the target's gradient alone, not as a pair by the saliency of all classes.
    """

    theta: float = 1.0
    """By how much a value rises in a step."""
    gamma: float = 0.1
    """Largest share of the image's values that change."""

    def __post_init__(self) -> None:
        require(0 < self.theta <= 1, "jsma: theta", "a number above 0, at most 1", self.theta)
        require(0 < self.gamma <= 1, "jsma: gamma", "a number above 0, at most 1", self.gamma)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1]; draws nothing."""
        found = images.detach().clone(memory_format=torch.contiguous_format)
        flat = found.view(len(found), -1)  # (N, values), the same memory
        changed = torch.zeros_like(flat, dtype=torch.bool)
        most = self.gamma * flat.shape[1]
        with undisturbed(model):
            with torch.no_grad():
                logits = torch.as_tensor(model(found))
            targets = logits.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
            rows = torch.nonzero(logits.argmax(dim=1) == labels)[:, 0]  # of those that still resist
            while len(rows):
                rows = rows[(changed[rows].sum(dim=1) + 2 <= most) & (flat[rows] < 1).any(dim=1)]
                gradients, logits = input_gradients(model, found[rows], targets[rows], _of_the_target)
                resists = logits.argmax(dim=1) == labels[rows]
                rows, gradients = rows[resists], gradients[resists].flatten(1)
                salient = gradients.masked_fill(flat[rows] >= 1, -torch.inf).topk(2, dim=1).indices  # (M, 2)
                flat[rows[:, None], salient] = (flat[rows[:, None], salient] + self.theta).clamp_max(1)
                changed[rows[:, None], salient] = True
        return found


def _of_the_target(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0]
