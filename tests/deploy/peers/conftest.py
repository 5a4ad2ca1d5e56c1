"""The tiny run and bundle of the evaluation's tests, and what peers are fitted on there."""

import numpy as np
import pytest
import torch

from deploy.peers.contestants import material_of
from deploy.peers.peer import Material
from tests import tiny
from tests.training.evaluation.conftest import exported, one_thread, run
from training.data.types import ImageSet
from training.models import Classifier, build_model
from training.sections import ModelConfig

__all__ = ["exported", "one_thread", "run"]


def quadrants(count: int, seed: int) -> ImageSet:
    images = tiny.images(count, seed=seed)
    labels = images.reshape(count, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(count, 4).argmax(axis=1)
    return ImageSet(images=images, labels=labels)


def striped(images: np.ndarray) -> np.ndarray:
    """A change that no clean image has: every other column is brighter."""
    changed = images.astype(int)
    changed[:, :, ::2] += 60
    return changed.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="package")
def model() -> Classifier:
    """A network that reads quadrants, after a few steps of training."""
    torch.manual_seed(0)
    net = build_model(ModelConfig(name="small_cnn", width=4, depth=2), 1, 8, 8, 4)
    train = quadrants(160, seed=1)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    images = torch.from_numpy(train.images).permute(0, 3, 1, 2).float() / 255
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(images), torch.from_numpy(train.labels)).backward()
        optimiser.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="package")
def material(model: Classifier) -> Material:
    """Attacked images are striped, and all of them count as misread."""
    calibration = quadrants(80, seed=3)
    wrong = (calibration.labels + 1) % 4
    return material_of(model, quadrants(120, seed=2), calibration, striped(calibration.images), wrong, seed=0)
