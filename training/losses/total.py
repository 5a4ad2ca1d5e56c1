"""The loss of a batch: all terms of all its steps, from one pass through the network."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training.losses.protocol import LossTerm, TrainingStep
from training.losses.together import see_together
from training.models import Classifier

__all__ = ["Wanted", "total_loss", "wanted_images"]

Wanted = Sequence[Mapping[str, Sequence[Tensor]]]
"""Of each step, the images that each term wants to see."""


def wanted_images(terms: Mapping[str, LossTerm], steps: Sequence[TrainingStep]) -> Wanted:
    """Asks every term once; what it draws for this is drawn only once."""
    return [{name: list(term.images(step)) for name, term in terms.items()} for step in steps]


def total_loss(
    network: Classifier, terms: Mapping[str, LossTerm], steps: Sequence[TrainingStep], wanted: Wanted
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The steps' terms, each times its step's weight, added up.

    Returns:
        The loss, the logits (N, classes) of the attacked images, step after step, and each term's value without
        gradient.
    """
    every = [
        images
        for step, own in zip(steps, wanted, strict=True)
        for images in (step.attacked, *(one for several in own.values() for one in several))
    ]
    views = iter(see_together(network, every))
    values: dict[str, Tensor] = {}
    logits = []
    for step, own in zip(steps, wanted, strict=True):
        attacked = next(views)
        logits.append(attacked.logits)
        others = {name: [next(views) for _ in several] for name, several in own.items()}
        for name, term in terms.items():
            value = step.weight * term(step, attacked, others[name])
            values[name] = values[name] + value if name in values else value
    first, *rest = values.values()
    loss = sum(rest, start=first)
    return loss, torch.cat(logits), {name: value.detach() for name, value in values.items()}
