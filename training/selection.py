"""Which epoch's weights are kept.

Best is the highest clean accuracy among the epochs whose attacked accuracy is within one standard error of the highest.
The highest itself is often an accident of few images, and may cost clean accuracy.

Source: the one-standard-error rule of Breiman et al. 1984, there for the size of a tree.
"""

import math
from typing import Any

from training.measure import Accuracies
from training.models import Classifier

__all__ = ["better"]


def better(
    best: dict[str, Any] | None, epoch: int, measured: Accuracies, model: Classifier, images: int
) -> dict[str, Any]:
    """The record of these weights where they beat the best so far, else the best so far.

    Args:
        best: what this function gave last; None before.
        epoch: completed, from 1.
        measured: after it, on the selection part.
        model: whose weights are kept.
        images: of the selection part.
    """
    highest = max(measured.attacked, best["highest_attacked_accuracy"] if best is not None else 0.0)
    enough = highest - math.sqrt(highest * (1 - highest) / images)
    if best is not None and best["attacked_accuracy"] >= enough:
        beats = (measured.clean, measured.attacked) > (best["clean_accuracy"], best["attacked_accuracy"])
        if measured.attacked < enough or not beats:
            return {**best, "highest_attacked_accuracy": highest}
    return {
        "epoch": epoch,
        "highest_attacked_accuracy": highest,
        "attacked_accuracy": measured.attacked,
        "clean_accuracy": measured.clean,
        "model": {name: value.detach().clone() for name, value in model.state_dict().items()},
    }
