"""Several attacks as one: each later one sees only the images on which the earlier ones failed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.attacks.apgd import Apgd, TargetedApgd
from training.attacks.protocol import Attack, undisturbed
from training.attacks.square import Square

__all__ = ["FirstFooling", "aa_like"]


@dataclass(frozen=True, kw_only=True)
class FirstFooling:
    """For each image what the first attack made of it that fools the model, else what the last attack made.

    The share of images that resist is that of the worst case over the attacks, at less cost.
    """

    attacks: tuple[Attack, ...]
    settle: Callable[[Tensor, Tensor], Tensor] | None = None
    """Attacked and clean images to the images that are judged and given back, such as rounded ones."""
    spares_wrong: bool = True
    """Whether an image that the model gets wrong already comes back as it is; else the first attack takes it too."""

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("union: expected at least one attack, got none")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1]."""
        images = images.detach()
        found, resists = images.clone(), torch.ones(len(images), dtype=torch.bool, device=images.device)
        with undisturbed(model):
            if self.spares_wrong:
                resists = _right(model, images, labels)
            for attack in self.attacks:
                rows = torch.nonzero(resists)[:, 0]
                if not len(rows):
                    break
                attacked = attack(model, images[rows], labels[rows], generator)
                found[rows] = self.settle(attacked, images[rows]) if self.settle else attacked
                resists[rows] = _right(model, found[rows], labels[rows])
        return found


def aa_like(
    norm: Literal["linf", "l2"],
    eps: float,
    *,
    steps: int = 100,
    queries: int = 5_000,
    settle: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> FirstFooling:
    """APGD on cross-entropy, targeted APGD-DLR, then Square, one start each.

    AutoAttack's parts without FAB, so it is not AutoAttack (Croce and Hein 2020, arXiv 2003.01690), and its figures
    must not be called so. Needs 4 classes.
    """
    attacks = (
        Apgd(norm=norm, eps=eps, steps=steps),
        TargetedApgd(norm=norm, eps=eps, steps=steps),
        Square(norm=norm, eps=eps, queries=queries),
    )
    return FirstFooling(attacks=attacks, settle=settle)


def _right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(images)).argmax(dim=1) == labels
