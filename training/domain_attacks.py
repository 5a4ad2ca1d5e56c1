"""The attacks of a training step over several norms, and the one attacked image that single-image terms see."""

from torch import Generator, Tensor, nn

from training.attacks import Attack
from training.attacks.ball import Ball
from training.attacks.ball_pgd import BallPgd, SteepestOfBalls, worst_of
from training.attacks.objectives import cross_entropy
from training.attacks.protocol import undisturbed
from training.config import Recipe

__all__ = ["DomainAttacks", "domain_attacks", "domain_balls"]


def domain_balls(recipe: Recipe) -> tuple[Ball, ...]:
    """Of the recipe's section minmax; none where it is off."""
    return tuple(Ball(norm=norm, eps=eps) for norm, eps in recipe.minmax.budgets.items())


def domain_attacks(recipe: Recipe, steps_an_epoch: int) -> "DomainAttacks | None":
    """The attacks of a run; None where it trains against one norm."""
    return DomainAttacks(recipe, steps_an_epoch) if recipe.minmax.budgets else None


class DomainAttacks:
    """The attacks as a pure function of the step, so that resuming needs no state."""

    def __init__(self, recipe: Recipe, steps_an_epoch: int) -> None:
        self._config = recipe.minmax
        self._balls = domain_balls(recipe)
        self._steps = recipe.attack.steps
        self._warmup_steps = recipe.attack.warmup_epochs * steps_an_epoch

    def at(self, step: int) -> tuple[Attack, ...]:
        """One for each norm, or msd alone, at a step counted from 0; budgets grow while attack.warmup_epochs last."""
        share = min(1.0, (step + 1) / self._warmup_steps) if self._warmup_steps else 1.0
        balls = self._balls if share == 1 else tuple(ball.scaled(share) for ball in self._balls)
        spread = self._config.spread
        if self._config.combine == "msd":
            return (SteepestOfBalls(balls=balls, steps=self._steps, spread=spread),)
        return tuple(BallPgd(ball=ball, steps=self._steps, spread=spread) for ball in balls)

    def __call__(
        self, step: int, model: nn.Module, clean: Tensor, labels: Tensor, generator: Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attacked images of a batch (N, C, H, W).

        Returns:
            Of each image the version of the highest cross-entropy, and the versions of each attack; all (N, C, H, W).
        """
        versions = [attack(model, clean, labels, generator) for attack in self.at(step)]
        if len(versions) == 1:
            return versions[0], tuple(versions)
        with undisturbed(model):
            worst, _ = worst_of(model, versions, labels, cross_entropy)
        return worst, tuple(versions)
