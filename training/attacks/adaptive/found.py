"""What an adaptive attack found: of each image the least suspicious version that fools."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from service.errors import SetupError

__all__ = ["Found", "Traced", "joined", "merged", "of_fields", "wide"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """One attacked image for each image.

    The verdict is monotone in the suspicion, so the least suspicious version decides for every threshold at once.
    """

    images: Tensor
    """(N, C, H, W) in [0, 1]; where nothing fools, the version of the lowest margin."""
    found: Tensor
    """(N,) whether the image fools; its suspicion is then finite."""
    scores: Tensor
    """(N,) suspicion of these images; inf where it is not finite."""
    margins: Tensor
    """(N,) how far the image is from fooling, below 0 where it does."""
    steps: Tensor
    """(N,) step of its run at which the image was saved, or the queries until then."""

    def accepted_and_wrong(self, threshold: float) -> Tensor:
        """(N,) whether the image fools and is no more suspicious than the threshold."""
        return self.found & (self.scores <= threshold)


@dataclass(frozen=True, kw_only=True, eq=False)
class Traced(Found):
    """With the way there, from which success after fewer steps or restarts can be told."""

    trace: Tensor
    """(R, S + 1, N) lowest suspicion of what fooled in restart r after s steps; inf where nothing did."""

    def best_scores(self, *, steps: int | None = None, restarts: int | None = None) -> Tensor:
        """(N,) lowest suspicion of what fooled within so many steps and restarts, all for None; inf where nothing did.

        Raises:
            SetupError: the run had fewer, or less than 0 steps or 1 restart are asked for.
        """
        most_restarts, most_steps = len(self.trace), self.trace.shape[1] - 1
        steps = most_steps if steps is None else steps
        restarts = most_restarts if restarts is None else restarts
        if not (0 <= steps <= most_steps and 1 <= restarts <= most_restarts):
            raise SetupError(
                f"convergence: expected 0 to {most_steps} steps and 1 to {most_restarts} restarts, got {steps} and "
                f"{restarts}; run the attack for longer"
            )
        return self.trace[:restarts, : steps + 1].amin(dim=(0, 1))


def merged(results: Sequence[Found]) -> tuple[Found, Tensor]:
    """For each image the best of several results on it, and the place (N,) of the result that it is from.

    What fools is better than what does not, then the less suspicious one or, where none fools, that of lower margin; of
    equals the first.
    """
    best = results[0]
    by = torch.zeros_like(best.steps)
    for place, other in enumerate(results[1:], start=1):
        closer = ~other.found & ~best.found & (other.margins < best.margins)
        wins = (other.found & (~best.found | (other.scores < best.scores))) | closer
        by = torch.where(wins, place, by)
        best = Found(
            images=torch.where(wide(wins), other.images, best.images),
            found=other.found | best.found,
            scores=torch.where(wins, other.scores, best.scores),
            margins=torch.where(wins, other.margins, best.margins),
            steps=torch.where(wins, other.steps, best.steps),
        )
    return best, by


def joined(results: Sequence[Traced]) -> Traced:
    """The best of several runs on the same images; a run that is shorter has no more to add after its end.

    Raises:
        SetupError: there are none.
    """
    if not results:
        raise SetupError("results: expected at least one to join, got none; run an attack first")
    best, _ = merged(results)
    restarts, steps = (max(result.trace.shape[axis] for result in results) for axis in (0, 1))
    trace = torch.full((restarts, steps, len(best.found)), torch.inf).to(results[0].trace)
    for result in results:
        part = trace[: len(result.trace), : result.trace.shape[1]]
        part.copy_(torch.minimum(part, result.trace))
    return Traced(**of_fields(best), trace=trace)


def of_fields(found: Found) -> dict[str, Tensor]:
    """What a Found holds, to make a richer one of."""
    return {field.name: getattr(found, field.name) for field in fields(Found)}


def wide(values: Tensor) -> Tensor:
    """One value an image, (N,), as (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
