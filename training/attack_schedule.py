"""Which attack a training step uses: budgets that warm up, steps that grow in number, and the guard's fallback."""

from dataclasses import replace

from training.attacks import Attack, build_attack
from training.methods import AttackConfig

__all__ = ["AttackSchedule"]


class AttackSchedule:
    """The recipe's attack as a pure function of the step, so that resuming needs no state."""

    def __init__(self, config: AttackConfig, steps_an_epoch: int, steps: int) -> None:
        self._config = config
        self._warmup_steps = config.warmup_epochs * steps_an_epoch
        self._steps = steps
        build_attack(config)  # refuses an unknown name before anything else happens

    def at(self, step: int, *, fell_back: bool = False) -> Attack | None:
        """The attack of a step, counted from 0.

        Args:
            step: of the run.
            fell_back: the guard has given up the recipe's attack.
        """
        config = self._config
        if fell_back:
            config = replace(config, name="pgd", step=0.0, steps=config.guard_steps, first_steps=0)
        elif config.first_steps:
            count = config.first_steps + int((config.steps - config.first_steps + 1) * step / self._steps)
            count = min(count, config.steps)
            config = replace(config, steps=count, step=config.step if count == config.steps else 0.0, first_steps=0)
        if step < self._warmup_steps:
            share = (step + 1) / self._warmup_steps
            config = replace(config, eps=share * config.eps, step=share * config.step)
        return build_attack(config)
