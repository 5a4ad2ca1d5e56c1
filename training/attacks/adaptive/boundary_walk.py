"""Walk along the boundary of "accepted and wrong": for a caller who sees only label and verdict."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.adaptive.found import Found, wide
from training.attacks.adaptive.loop import settled
from training.attacks.adaptive.oracle import Oracle, found_by
from training.attacks.adaptive.target import Target, held
from training.attacks.checks import check_budget
from training.attacks.threat import L2, named_norm
from training.checks import at_least, require

__all__ = ["BoundaryWalk"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundaryWalk:
    """From a clean image that is accepted as another class, ever nearer to the attacked one until inside the ball.

    Each turn closes in on the boundary by bisection, estimates its normal from random probes and jumps along it. An
    image leaves as soon as it is in the ball; one whose start is not wrong and accepted is given up at once.

    Source: HopSkipJump, Chen et al. 2020 (arXiv 1904.02144), with "wrong and accepted" in the label's place. For 8-bit
        images probes are at least a level long and bisections stop at half a level, since less would be rounded away.
    """

    norm: Literal["linf", "l2"] = "l2"
    eps: float
    threshold: float
    """The largest suspicion that is accepted."""
    starts: Tensor
    """(N, C, H, W) in [0, 1], of 8 bits where it rounds."""
    turns: int = 28
    probes: int = 100
    """Of the first turn; turn t has sqrt(t) times as many."""
    rounds: bool = True
    """Whether the target sees 8-bit images."""
    stays_inside: bool = True
    """Whether an image whose walk ends outside of the ball is put into it; else it stays where it came to."""

    def __post_init__(self) -> None:
        check_budget("boundary walk", self.norm, self.eps, 0.0)
        at_least(1, "turns", self.turns)
        at_least(1, "probes", self.probes)
        require(abs(self.threshold) < float("inf"), "threshold", "a finite number", self.threshold)

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Found:
        """See AdaptiveAttack; `steps` of the result are the queries that each image took.

        Raises:
            SetupError: the starts do not fit the images; see also Oracle.
        """
        images = images.detach()
        if self.starts.shape != images.shape:
            raise SetupError(
                f"starts: expected {tuple(images.shape)}, got {tuple(self.starts.shape)}; choose one for each image"
            )
        oracle = Oracle(
            target,
            images,
            labels,
            targets,
            threshold=self.threshold,
            norm=self.norm,
            eps=self.eps,
            rounds=self.rounds,
        )
        with held(target), torch.no_grad():
            walk = _Walk(oracle, self.starts.to(images))
            for turn in range(1, self.turns + 1):
                walk.close_in()
                if not len(walk.rows):
                    break
                walk.jump(turn, math.ceil(self.probes * math.sqrt(turn)), generator)
            walk.close_in()
            return walk.found(stays_inside=self.stays_inside)


class _Walk:
    """Where each image's walk stands: at a place that is wrong and accepted."""

    def __init__(self, oracle: Oracle, starts: Tensor) -> None:
        self.oracle, self.images, self.norm = oracle, oracle.images, named_norm(oracle.norm)
        every = torch.arange(len(starts), device=starts.device)
        self.queries = torch.zeros_like(every)
        clean = oracle.ask_anywhere(self.images, every).won
        self.places = torch.where(wide(clean), self.images, starts)
        self.rows = every[~clean]  # of those that still walk
        self.rows = self.rows[self._won(starts[self.rows], self.rows)]
        pixels = math.prod(starts.shape[1:])
        self.reach = 1 / pixels  # of a probe, in distances to the clean image
        self.shortest = math.sqrt(pixels) / 255 if oracle.rounds else 0.0
        self.halvings = 9 if oracle.rounds else math.ceil(2 * math.log2(max(pixels, 2)))

    def close_in(self) -> None:
        """Bisects between each clean image and its place; who is in the ball then leaves."""
        clean, far = self.images[self.rows], self.places[self.rows]
        low, high = far.new_zeros(len(far)), far.new_ones(len(far))
        for _ in range(self.halvings):
            middle = (low + high) / 2
            won = self._won(self._between(clean, far, middle), self.rows)
            low, high = torch.where(won, low, middle), torch.where(won, middle, high)
        # Rounded as it was asked about: that very image is known to be wrong and accepted.
        self.places[self.rows] = self.oracle.seen(self._between(clean, far, high))
        distances = self.norm.size(self.places[self.rows] - clean)
        self.rows = self.rows[distances > self.oracle.eps * (1 + 1e-6)]

    def jump(self, turn: int, probes: int, generator: torch.Generator) -> None:
        """Leaves the boundary along its normal, for half the way as often as the jump does not land well."""
        place = self.places[self.rows]
        distances = self.norm.size(place - self.images[self.rows])
        directions = self.norm.steepest(self._normals(place, distances, probes, generator))
        flying = torch.arange(len(place), device=place.device)
        lengths = distances / math.sqrt(turn)
        for _ in range(self.halvings):
            tried = (place[flying] + wide(lengths[flying]) * directions[flying]).clamp(0, 1)
            won = self._won(tried, self.rows[flying])
            self.places[self.rows[flying[won]]] = self.oracle.seen(tried[won])
            flying, lengths = flying[~won], lengths / 2

    def found(self, *, stays_inside: bool) -> Found:
        """The places in the ball; of who never came there, its place put into the ball or left where it is."""
        inside = self.images + self.norm.project(self.places - self.images, self.oracle.eps)
        if self.oracle.rounds:
            inside = settled(inside, self.images, self.oracle.norm, self.oracle.eps)
        outside = self.norm.size(self.places - self.images) > self.oracle.eps * (1 + 1e-6)
        every = torch.arange(len(inside), device=inside.device)
        outside = outside & stays_inside
        return found_by(self.oracle.ask_anywhere(torch.where(wide(outside), inside, self.places), every), self.queries)

    def _won(self, tried: Tensor, rows: Tensor) -> Tensor:
        if not len(rows):
            return torch.zeros_like(rows, dtype=torch.bool)
        self.queries[rows] += 1
        return self.oracle.ask_anywhere(tried, rows).won

    def _between(self, clean: Tensor, far: Tensor, share: Tensor) -> Tensor:
        """At a share of the distance: on the line for L2, every value clipped for Linf."""
        change = far - clean
        if self.oracle.norm == "l2":
            return clean + wide(share) * change
        bounds = wide(share * self.norm.size(change))
        return clean + change.clamp(-bounds, bounds)

    def _normals(self, place: Tensor, distances: Tensor, probes: int, generator: torch.Generator) -> Tensor:
        """Estimates of the boundary's normals, (M, C, H, W), towards what is wrong and accepted.

        The mean verdict is taken off as a baseline, which lowers the variance of the estimate.
        """
        lengths = wide((self.reach * distances).clamp_min(self.shortest).clamp_min(1e-12))
        changes, won = torch.zeros_like(place), distances.new_zeros(len(place))
        of_won = torch.zeros_like(place)
        for _ in range(probes):
            # Drawn for all images, so that the numbers of one do not depend on which of the others still walk.
            units = L2().steepest(self.norm.random_start(self.images, 1.0, generator))[self.rows]
            tried = self.oracle.seen((place + lengths * units).clamp(0, 1))
            verdicts = self._won(tried, self.rows)
            change = (tried - place) / lengths
            changes, of_won, won = changes + change, of_won + wide(verdicts) * change, won + verdicts
        share = wide(won / probes)
        same = (share == 0) | (share == 1)
        return torch.where(same, (2 * share - 1) * changes, of_won - share * changes)
