"""How accuracy and loss went while a run trained, from its log."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

__all__ = ["Course", "TrainingCurves", "training_curves"]

_ACCURACY = "accuracy"


@dataclass(frozen=True, kw_only=True)
class Course:
    """One figure over the epochs in which it was measured."""

    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingCurves:
    """Everything that a log says of loss and accuracies."""

    measured_on: str
    """The part: `selection`, or `train` where a run had none to spare."""
    kept_epoch: int
    """Whose weights the run gives."""
    accuracies: Mapping[str, Course]
    """By the log's own names; each ends in `accuracy`."""
    loss: Course


def training_curves(log: Sequence[Mapping[str, object]], kept_epoch: int) -> TrainingCurves:
    """The curves of a log, one record an epoch; an accuracy that only some epochs have keeps to those."""
    names = dict.fromkeys(name for record in log for name in record if name.endswith(_ACCURACY))
    courses = {name: _course(log, name) for name in names}
    return TrainingCurves(
        measured_on=str(log[-1]["measured_on"]) if log else "",
        kept_epoch=kept_epoch,
        accuracies={name: course for name, course in courses.items() if course.epochs},
        loss=_course(log, "loss"),
    )


def _course(log: Sequence[Mapping[str, object]], name: str) -> Course:
    points = [(record.get("epoch"), record.get(name)) for record in log]
    known = [(epoch, float(value)) for epoch, value in points if isinstance(epoch, int) and _is_number(value)]
    return Course(epochs=tuple(epoch for epoch, _ in known), values=tuple(value for _, value in known))


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it can be drawn; the loss of a run that diverged cannot."""
    return isinstance(value, int | float) and math.isfinite(value)
