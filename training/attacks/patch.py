"""Patch attack: anything at all inside one small square, nothing outside of it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.attacks.objectives import cross_entropy, input_gradients
from training.attacks.protocol import undisturbed
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.attacks.threat import Linf, uniform
from training.checks import at_least

__all__ = ["Patch"]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Sign-gradient ascent of the cross-entropy inside a square at a random place, one place after the other.

    An image stays at the first place, and there at the first step, whose 8-bit image fools; one that never does ends
    at the last. One that the model gets wrong already comes back as it is.

    Source: the patch of Brown et al. 2017 (arXiv 1712.09665), made for each image alone.
    """

    side: int = 5
    """Pixels; the whole image where that is smaller."""
    steps: int = 100
    """At each place, each of 2.5 / steps."""
    places: int = 10

    def __post_init__(self) -> None:
        for name in ("side", "steps", "places"):
            at_least(1, f"patch: {name}", getattr(self, name))

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Attacked images, (N, C, H, W) in [0, 1], whole multiples of 1/255."""
        images = images.detach()
        found = images.clone()
        with undisturbed(model):
            with torch.no_grad():
                resists = torch.as_tensor(model(images)).argmax(dim=1) == labels
            for _ in range(self.places):
                # Drawn for all images, so that the numbers of one do not depend on which of the others resist.
                inside, filling = self._square(images, generator), (1 + uniform(images, generator)) / 2
                rows = torch.nonzero(resists)[:, 0]
                if not len(rows):
                    break
                begun = torch.where(inside, filling, images)[rows]
                found[rows], resists[rows] = self._fill(model, begun, inside[rows], labels[rows])
        return found

    def _square(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Where the patch of each image lies, (N, 1, H, W)."""
        height, width = images.shape[2:]
        draws = torch.rand(len(images), 2, generator=generator, device=generator.device).to(images.device)
        masks = []
        for number, length in enumerate((height, width)):
            first = (draws[:, number] * (max(length - self.side, 0) + 1)).long()[:, None]
            places = torch.arange(length, device=images.device)
            masks.append((places >= first) & (places < first + self.side))
        return (masks[0][:, None, :, None] & masks[1][:, None, None, :]).expand(-1, 1, -1, -1)

    def _fill(self, model: nn.Module, begun: Tensor, inside: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images with a patch at one place, of 8 bits, and where they resist."""
        place, found = begun, _rounded(begun)
        rows = torch.arange(len(begun), device=begun.device)
        for number in range(self.steps + 1):
            found[rows] = _rounded(place[rows])
            gradients, logits = input_gradients(model, found[rows], labels[rows], cross_entropy)
            resists = logits.argmax(dim=1) == labels[rows]
            rows, gradients = rows[resists], gradients[resists]
            if not len(rows) or number == self.steps:
                break
            moved = (place[rows] + 2.5 / self.steps * Linf().steepest(gradients)).clamp(0, 1)
            place[rows] = torch.where(inside[rows], moved, place[rows])
        left = torch.zeros(len(begun), dtype=torch.bool, device=begun.device)
        left[rows] = True
        return found, left


def _rounded(images: Tensor) -> Tensor:
    return from_8_bit(nearest_8_bit(images)).to(images)
