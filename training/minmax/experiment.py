"""Runs one experiment with learned weights and with its baselines, and counts where all domains fail."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.attacks.minmax import MinMax
from training.attacks.rounding import levels, toward_zero
from training.minmax.problems import Ensemble, Problem

__all__ = ["Outcome", "attack", "figures", "outcomes", "rounded"]

_BATCH = 100
_NOISE = 0.1
"""Standard deviation of a start."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What one way of weighting the domains came to."""

    deltas: Tensor
    """(N, C, H, W), whole levels of 8 bits."""
    weights: Tensor
    """(N, K), the last."""
    fails: Tensor
    """(N, K), under the rounded perturbation."""
    fails_unrounded: Tensor
    """(N, K)."""

    @property
    def asr_all(self) -> float:
        """Share of the perturbations under which every domain fails."""
        return float(self.fails.all(dim=1).float().mean())


def rounded(deltas: Tensor, norm: str, eps: float) -> Tensor:
    """Deltas of images of 8 bits as whole levels within the budget: Linf to the nearest, else toward zero."""
    changes = deltas.double() * 255
    whole = changes.round().clamp(-levels(eps), levels(eps)) if norm == "linf" else toward_zero(changes)
    return (whole / 255).to(deltas.dtype)


def attack(
    problem: Problem, settings: MinMax, *, seed: int, starts_at_0: bool, progress: Callable[[int], None]
) -> Outcome:
    """Attacks in batches; the start of a row does not depend on them.

    Args:
        problem: N perturbations.
        settings: of the algorithm, held weights too.
        seed: of the starts.
        starts_at_0: instead of at normal noise.
        progress: is told how many are done.
    """
    low, high = problem.box
    starts = torch.zeros_like(low)
    if not starts_at_0:
        draws = torch.Generator().manual_seed(seed)
        starts = _NOISE * torch.randn(low.shape, generator=draws).to(low)
    parts = []
    for first in range(0, len(low), _BATCH):
        rows = slice(first, first + _BATCH)
        some = problem.rows(rows)
        found = settings(some.losses, starts[rows], low[rows], high[rows])
        deltas = rounded(found.deltas, settings.ball.norm, settings.ball.eps)
        parts.append((deltas, found.weights, some.fails(deltas), some.fails(found.deltas)))
        progress(min(first + _BATCH, len(low)))
    deltas, weights, fails, unrounded = (torch.cat(column) for column in zip(*parts, strict=True))
    return Outcome(deltas=deltas, weights=weights, fails=fails, fails_unrounded=unrounded)


def outcomes(
    problem: Problem,
    settings: MinMax,
    *,
    seed: int,
    starts_at_0: bool,
    progress: Callable[[str], None],
) -> dict[str, Outcome]:
    """Learned weights first, as `minmax`, then the baselines.

    `average`: equal weights. `held`: the mean of the learned weights over all images, held fixed. `fixed`: the weights
    of the settings, where they are numbers. `single_NAME`, of an ensemble: one network alone.
    """

    def made(name: str, problem: Problem, settings: MinMax) -> Outcome:
        count = len(problem.box[0])
        return attack(
            problem,
            settings,
            seed=seed,
            starts_at_0=starts_at_0,
            progress=lambda done: progress(f"{name}: {done} of {count}"),
        )

    found = {"minmax": made("minmax", problem, replace(settings, weights="learned"))}
    mean = found["minmax"].weights.double().mean(dim=0)
    held = tuple((mean / mean.sum()).tolist())
    found["average"] = made("average", problem, replace(settings, weights="average"))
    found["held"] = made("held", problem, replace(settings, weights=held))
    if not isinstance(settings.weights, str):
        found["fixed"] = made("fixed", problem, settings)
    if isinstance(problem, Ensemble):
        for model, name in zip(problem.models, problem.names, strict=True):
            alone = Ensemble((model,), (name,), problem.clean)
            found[f"single_{name}"] = made(f"single_{name}", alone, replace(settings, weights="average"))
    return found


def figures(problem: Problem, found: dict[str, Outcome]) -> dict[str, float]:
    """Shares where all domains fail and where each does, mean weights, and the gain over the average.

    Images of a universal perturbation have no names: the mean over them and the mean of the largest weight stand for
    them. `hardest_weighs_most`, of an ensemble, is 1 where the network that resists longest when it is
    attacked alone has the largest mean weight.
    """
    metrics: dict[str, float] = {}
    for name, outcome in found.items():
        metrics[f"{name}_asr_all"] = outcome.asr_all
        if name.startswith("single_"):
            continue
        metrics[f"{name}_asr_all_unrounded"] = float(outcome.fails_unrounded.all(dim=1).float().mean())
        metrics[f"{name}_asr_mean"] = float(outcome.fails.float().mean())
        for place, domain in enumerate(problem.names):
            metrics[f"{name}_asr_{domain}"] = float(outcome.fails[:, place].float().mean())
    weights = found["minmax"].weights
    for place, domain in enumerate(problem.names):
        metrics[f"minmax_weight_{domain}"] = float(weights[:, place].mean())
    metrics["minmax_largest_weight"] = float(weights.amax(dim=1).mean())
    metrics["asr_gain"] = found["minmax"].asr_all - found["average"].asr_all
    if isinstance(problem, Ensemble):
        alone = [found[f"single_{name}"].asr_all for name in problem.names]
        heaviest = int(weights.mean(dim=0).argmax())
        metrics["hardest_weighs_most"] = float(alone[heaviest] == min(alone))
    return metrics
