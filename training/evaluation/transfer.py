"""Attacks made on the network of another run and judged on this one's bundle, as entries of its suite."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks import Apgd, Attack, Pgd
from training.checkpoint import Run, load_run
from training.evaluation.blind_strength import BlindStrength
from training.evaluation.entries import Budgets, SuiteEntry
from training.network_digest import network_digest

__all__ = ["Transferred", "check_same_data", "transfer_suite"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Transferred:
    """An attack that follows another network's gradients, whatever network it is called with."""

    attack: Attack
    model: nn.Module
    """In eval mode, on the device that is computed on."""
    words: str
    """Of that network; all that its images depend on."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See training.attacks.Attack; `model` is not looked at."""
        return self.attack(self.model, images, labels, generator)

    def __repr__(self) -> str:
        return f"{self.attack!r} {self.words}"


def transfer_suite(
    run: Run, others: Sequence[Path], budgets: Budgets, strength: BlindStrength
) -> tuple[SuiteEntry, ...]:
    """PGD and APGD on the cross-entropy within the Linf budget, a pair for each of the other runs.

    Raises:
        SetupError: a run is missing or unfinished, is of other data, classes or images, or has this run's own network.
    """
    device = next(run.model.parameters()).device
    entries: list[SuiteEntry] = []
    for number, path in enumerate(others, start=1):
        other = load_run(path, device=device)
        check_same_data("--transfer", run, other)
        weights = network_digest(other.model)
        attacks: tuple[tuple[str, str, Pgd | Apgd], ...] = (
            ("pgd", "PGD", Pgd(eps=budgets.linf, steps=strength.steps, restarts=strength.further_restarts)),
            ("apgd_ce", "APGD-CE", Apgd(eps=budgets.linf, steps=strength.apgd_steps, restarts=strength.apgd_restarts)),
        )
        entries += [
            SuiteEntry(
                name=f"transfer{number}_{name}",
                title=f"{title} by way of {path.resolve().name}",
                description="Made on another network, of which the attacker has the weights, and tried on this one.",
                norm="linf",
                eps=attack.eps,
                attack=Transferred(
                    attack=attack, model=other.model, words=f"on run {path.resolve().name}, weights {weights}"
                ),
            )
            for name, title, attack in attacks
        ]
    return tuple(entries)


def check_same_data(flag: str, run: Run, other: Run) -> None:
    """Refuses a run whose attacks would not fit, or would be no other's.

    Args:
        flag: of the command line, for the message.
        run: that is attacked.
        other: that attacks are made on.

    Raises:
        SetupError: other data, classes or images, or the same weights.
    """
    for what, ours, theirs in (
        ("data set", run.recipe.data.set, other.recipe.data.set),
        ("shape of images", run.input_shape, other.input_shape),
        ("class names", run.class_names, other.class_names),
    ):
        if ours != theirs:
            raise SetupError(
                f"{flag} {other.path}: expected the {what} of {run.path}, {ours}, got {theirs}; name a run of the same "
                "data"
            )
    if network_digest(other.model) == network_digest(run.model):
        raise SetupError(f"{flag} {other.path}: expected another network, got the weights of {run.path} itself")
