"""Matching: an image is given the logits, embedding or descriptors of a clean image of another class."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.adaptive.found import Traced, joined
from training.attacks.adaptive.look import Look
from training.attacks.adaptive.loop import Loop
from training.attacks.adaptive.target import Target, aim_at, held
from training.checks import at_least

__all__ = ["Descriptor", "Matched", "Matching", "choose_exemplars", "clean_deviations"]

Descriptor = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to what is matched, (N, D), with a gradient: logits, embedding, or what a detector reads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """Rule: descends the squared distance of scaled descriptors to wanted ones, whatever margin and suspicion.

    Source: Sabour et al. 2016 (arXiv 1511.05122), in the ball of the loop instead of their box.
    """

    descriptor: Descriptor
    wanted: Tensor
    """(N, D)."""
    deviations: Tensor
    """(D,) by which the columns are divided."""

    def uphill(self, look: Look) -> Tensor:
        """See Rule."""
        away = (self.descriptor(look.images) - self.wanted) / self.deviations
        return look.gradient(away.square().sum(dim=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """The loop with the rule `Matched` for each of several exemplars; the best counts."""

    loop: Loop
    descriptor: Descriptor
    deviations: Tensor
    """(D,), see clean_deviations."""
    exemplars: Tensor
    """(N, E, C, H, W) in [0, 1], for each attacked image E clean ones of another class."""
    starts_there: bool = False
    """Whether the first run begins at the exemplar, put into the ball; else at the clean image."""

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Traced:
        """See AdaptiveAttack; the exemplars are those of these images.

        Raises:
            SetupError: the exemplars do not fit the images; see also Loop.run.
        """
        shape = (len(images), -1, *images.shape[1:])
        if self.exemplars.ndim != 5 or len(self.exemplars) != shape[0] or self.exemplars.shape[2:] != shape[2:]:
            raise SetupError(
                f"exemplars: expected ({len(images)}, E, {', '.join(map(str, images.shape[1:]))}), got "
                f"{tuple(self.exemplars.shape)}; choose some for each attacked image"
            )
        aim = aim_at(labels, targets)
        results = []
        for exemplars in self.exemplars.unbind(dim=1):
            with held(target), torch.no_grad():
                wanted = self.descriptor(exemplars)
            rule = Matched(descriptor=self.descriptor, wanted=wanted, deviations=self.deviations)
            starts = exemplars if self.starts_there else None
            results.append(self.loop.run(rule, target, images, aim, generator, starts=starts))
        return joined(results)


def clean_deviations(descriptor: Descriptor, images: Tensor) -> Tensor:
    """(D,) standard deviation of each descriptor column over clean images (n, C, H, W); 1 where it does not vary.

    Raises:
        SetupError: fewer than 2 images.
    """
    if len(images) < 2:
        raise SetupError(f"clean images: expected 2 or more for standard deviations, got {len(images)}")
    with torch.no_grad():
        deviations = descriptor(images).std(dim=0)
    return torch.where(deviations > 0, deviations, 1.0)


def choose_exemplars(
    embedding: Tensor,
    labels: Tensor,
    clean_embedding: Tensor,
    clean_labels: Tensor,
    clean_p_values: Tensor,
    generator: torch.Generator,
    *,
    targets: Tensor | None = None,
    nearest: int = 10,
    others: int = 5,
    least_p: float = 0.5,
) -> Tensor:
    """Clean images of a wrong class and above suspicion for each attacked image: the nearest, then random ones.

    Args:
        embedding: (N, D) of the attacked images, before the attack.
        labels: (N,) their true classes.
        clean_embedding: (M, D) of the images to choose from.
        clean_labels: (M,) the classes that the classifier gives them, since a copy inherits these.
        clean_p_values: (M,) their fused p-values.
        generator: draws the random ones.
        targets: (N,) classes that the exemplars must have; None for any wrong one.
        nearest: so many nearest in the embedding.
        others: so many more at random.
        least_p: the smallest p-value that an exemplar may have.

    Returns:
        (N, nearest + others) places among the M, none twice.

    Raises:
        SetupError: an image has too few to choose from, or fewer than 0 are asked for.
    """
    at_least(0, "nearest", nearest)
    at_least(0, "others", others)
    fits = clean_labels[None] != labels[:, None] if targets is None else clean_labels[None] == targets[:, None]
    fits = fits & (clean_p_values >= least_p)[None]  # (N, M)
    fewest = int(fits.sum(dim=1).min())
    if fewest < nearest + others:
        raise SetupError(
            f"exemplars: expected {nearest + others} clean images of another class with p of at least {least_p:g} for "
            f"each attacked one, got {fewest}; give more clean images or ask for fewer"
        )
    distances = torch.cdist(embedding, clean_embedding).masked_fill(~fits, torch.inf)
    near = distances.topk(nearest, dim=1, largest=False).indices  # (N, nearest)
    draws = torch.rand(fits.shape, generator=generator, device=generator.device).to(distances)
    draws = draws.masked_fill(~fits, -1.0).scatter(1, near, -1.0)
    return torch.cat([near, draws.topk(others, dim=1).indices], dim=1)
