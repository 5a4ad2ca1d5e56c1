"""Detectors that are small networks of their own, trained when a bundle is exported, on clean images only."""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.detectors.detector import CleanViews, Detector, Lessons
from training.evaluation.progress import time_left
from training.precision import autocast, computes_in_bf16, deterministic

__all__ = ["Learned", "frozen", "learn"]

BATCH = 96
LEARNING_RATE = 0.1
WEIGHT_DECAY = 5e-4
LEAST_STEPS, MOST_STEPS = 300, 3_000
"""Of a full training, however few or many the images."""
TOLD_EVERY = 100
"""Steps."""

Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""A network, (N, C, H, W) clean images, (N,) labels and a generator to the mean loss."""


class Learned(Detector):
    """A detector with a network that is trained from nothing.

    Training is repeatable on one machine only: on another, sums are rounded differently and grow apart. So an export
    keeps the weights beside the run, for whoever needs the same detector again.
    """

    @classmethod
    @abstractmethod
    def untrained(cls, clean: CleanViews) -> Self:
        """The detector before training; weights of this shape can be loaded into it.

        Raises:
            SetupError: the images are too few or too small, or miss a class.
        """

    @abstractmethod
    def train_on(self, clean: CleanViews) -> None:
        """Trains the network; afterwards nothing in it can be trained on."""

    @classmethod
    def restored(cls, clean: CleanViews, weights: Mapping[str, Tensor]) -> Self:
        """The detector of these weights, as `state_dict` gave them.

        Raises:
            SetupError: they are of another network.
        """
        detector = cls.untrained(clean)
        frozen(detector)
        try:
            detector.load_state_dict(weights)
        except RuntimeError as error:
            raise SetupError(f"{cls.kind}: expected the weights of its network, got others; export again") from error
        return detector

    @classmethod
    def fit(cls, clean: CleanViews) -> Self:
        """Trains a new one."""
        detector = cls.untrained(clean)
        detector.train_on(clean)
        return detector


def learn(network: nn.Module, lessons: Lessons, loss: Loss, *, epochs: float, name: str) -> None:
    """Trains a network on the CPU by SGD with one cycle of the learning rate; it is frozen in eval mode afterwards.

    Args:
        network: its weights must not come from torch's global generator, or two fits would differ.
        lessons: the images; their `effort` scales the number of steps.
        loss: of one batch.
        epochs: passes over the images of a full training.
        name: for progress.

    Raises:
        SetupError: the loss is no longer finite.
    """
    count = len(lessons.images)
    batch = min(BATCH, count)
    steps = max(1, round(lessons.effort * min(max(LEAST_STEPS, epochs * count / batch), MOST_STEPS)))
    generator = torch.Generator().manual_seed(lessons.seed)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    device = torch.device("cpu")
    network.train()
    smoothed, began = 0.0, time.monotonic()
    with deterministic(threads=0):
        for step in range(steps):
            rows = torch.randint(count, (batch,), generator=generator)
            images, labels = lessons.batch(rows)
            with autocast(device, bf16=computes_in_bf16(device)):
                value = loss(network, images, labels, generator)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rates.step()
            smoothed += (float(value.detach()) - smoothed) * max(0.01, 1 / (step + 1))
            if not math.isfinite(smoothed):
                raise SetupError(
                    f"{name}: expected a finite loss, got {smoothed} in step {step + 1} of {steps}; leave it out of "
                    "export.detectors, or train with another train.seed"
                )
            if (step + 1) % TOLD_EVERY == 0:
                left = time_left(time.monotonic() - began, done=step + 1, left=steps - step - 1)
                lessons.tell(f"{name}: step {step + 1} of {steps}, loss {smoothed:.3f}{left}")
    frozen(network)


def frozen(network: nn.Module) -> None:
    """Eval mode, and every parameter a buffer: a detector has nothing that an optimiser could take hold of."""
    network.eval()
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach().clone())
