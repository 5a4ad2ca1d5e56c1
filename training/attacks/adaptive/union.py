"""Several adaptive attacks as one: an image is safe only if every one of them failed on it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.adaptive.found import Found, merged, of_fields

__all__ = ["AttackUnion", "union_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackUnion(Found):
    """The best of every attack for each image.

    Source: the worst case per image of MEAD (Granese et al. 2022, arXiv 2206.15415).
    """

    names: tuple[str, ...]
    """A attacks."""
    by: Tensor
    """(N,) place among the names of the attack that the image is from."""
    each: Tensor
    """(A, N) suspicion of what each attack found; inf where it found nothing."""

    def alone(self, threshold: float) -> Mapping[str, Tensor]:
        """Of each attack the (N,) images that only it made pass as wrong and accepted."""
        passes = self.each <= threshold
        once = passes.sum(dim=0) == 1
        return {name: row & once for name, row in zip(self.names, passes, strict=True)}


def union_of(results: Mapping[str, Found]) -> AttackUnion:
    """Joins what attacks of these names found on the same images; of equals the first counts.

    Raises:
        SetupError: no results, or of different numbers of images.
    """
    counts = {name: len(result.found) for name, result in results.items()}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise SetupError(f"union: expected results on the same images, got {listed}; join what one batch gave")
    best, by = merged(list(results.values()))
    each = torch.stack([torch.where(result.found, result.scores, torch.inf) for result in results.values()])
    return AttackUnion(**of_fields(best), names=tuple(results), by=by, each=each)
