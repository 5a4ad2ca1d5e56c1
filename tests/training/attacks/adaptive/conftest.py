"""A small bundle on digits, as adaptive attacks see it."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from service.detection.calibration import Calibration
from tests.training.attacks.adaptive.toys import Digits, generator
from training.attacks.adaptive import GraphTarget
from training.attacks.rounding import from_8_bit
from training.data import load_data
from training.detectors import DETECTORS, Lessons
from training.graph import BundleGraph, clean_views, torch_outputs
from training.models import build_model
from training.sections import ModelConfig


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> Digits:
    """A classifier of a few epochs, two detectors, a calibration on other images, and 12 images to attack."""
    every = load_data("digits", None).train
    fit, first, second, attacked = (slice(*bounds) for bounds in ((0, 600), (600, 800), (800, 1000), (1000, 1012)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(ModelConfig(width=4, embedding_dim=16), 1, 8, 8, classes=10)
    images, labels = from_8_bit(every.images[fit]), torch.from_numpy(every.labels[fit])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for epoch in range(5):
        for rows in torch.randperm(len(images), generator=generator(epoch)).split(60):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    optimiser.zero_grad()
    lessons = Lessons(images=every.images[fit], labels=every.labels[fit], eps=0.15, seed=0)
    clean = clean_views(model, every.images[fit], every.labels[fit], lessons)
    graph = BundleGraph(model, [DETECTORS["gaussian"].fit(clean), DETECTORS["spectrum"].fit(clean)])
    calibration = Calibration.from_clean(*(torch_outputs(graph, every.images[part]).scores for part in (first, second)))
    return Digits(
        target=GraphTarget(graph, calibration),
        calibration=calibration,
        bytes8=every.images[attacked],
        images=from_8_bit(every.images[attacked]),
        labels=torch.from_numpy(every.labels[attacked]),
        clean_bytes8=every.images[second],
    )
