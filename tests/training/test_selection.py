"""The epoch that is kept."""

import pytest
import torch

from training.measure import Accuracies
from training.models import build_model
from training.sections import ModelConfig
from training.selection import better


def kept(accuracies: list[tuple[float, float]], images: int = 400) -> list[int]:
    """The epoch kept after each of these (clean, attacked) accuracies; at 400 images one standard error is 0.025."""
    model = build_model(ModelConfig(width=2), 1, 8, 8, classes=2)
    best, epochs = None, []
    for epoch, (clean, attacked) in enumerate(accuracies, start=1):
        best = better(best, epoch, Accuracies(clean=clean, attacked=attacked), model, images)
        epochs.append(best["epoch"])
    return epochs


@pytest.mark.parametrize(
    ("accuracies", "epochs"),
    [
        ([(0.6, 0.4), (0.6, 0.5)], [1, 2]),
        ([(0.6, 0.5), (0.7, 0.48)], [1, 2]),
        ([(0.6, 0.5), (0.7, 0.46)], [1, 1]),
        ([(0.7, 0.5), (0.6, 0.52)], [1, 1]),
        ([(0.7, 0.5), (0.6, 0.53)], [1, 2]),
        ([(0.6, 0.5), (0.7, 0.48), (0.8, 0.46)], [1, 2, 2]),
        ([(0.7, 0.5), (0.7, 0.51), (0.7, 0.51)], [1, 2, 2]),
    ],
    ids=["more robust", "cleaner", "too weak", "within", "beyond", "no drift", "tie"],
)
def test_the_cleanest_epoch_near_the_most_robust_is_kept(
    accuracies: list[tuple[float, float]], epochs: list[int]
) -> None:
    assert kept(accuracies) == epochs


def test_its_weights_are_a_copy() -> None:
    model = build_model(ModelConfig(width=2), 1, 8, 8, classes=2)
    best = better(None, 1, Accuracies(clean=0.5, attacked=0.5), model, 100)
    before = best["model"]["head.weight"].clone()
    with torch.no_grad():
        model.head.weight.add_(1)
    assert torch.equal(best["model"]["head.weight"], before)
