"""Margin between the centroid of the predicted class and the nearest other one."""

import math

import numpy as np
import pytest
import torch

from tests import reference
from tests.training.detectors.made_up import CLASSES, views
from training.detectors.centroid_margin import CentroidMargin


def test_it_is_the_difference_of_two_distances() -> None:
    clean = views()
    rows, labels = clean.embedding.double().numpy(), clean.labels.numpy()
    centroids = [rows[labels == c].mean(axis=0) for c in range(CLASSES)]
    predicted = clean.logits.argmax(dim=1).tolist()
    slow = [reference.centroid_margin(row, centroids, c) for row, c in zip(rows, predicted, strict=True)]
    fast = CentroidMargin.fit(clean)(clean.images, clean.logits, clean.embedding)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("logits", "score"), [([1.0, 0.0], -math.sqrt(2)), ([0.0, 1.0], math.sqrt(2))])
def test_its_sign_says_whether_the_centroids_agree_with_the_predicted_class(logits: list[float], score: float) -> None:
    detector = CentroidMargin(torch.eye(2))
    found = detector(torch.zeros(1, 1, 4, 4), torch.tensor([logits]), torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx(score, abs=1e-5)


def test_at_the_centroid_itself_the_gradient_is_finite() -> None:
    embedding = torch.eye(2).requires_grad_()
    scores = CentroidMargin(torch.eye(2))(torch.zeros(2, 1, 4, 4), torch.eye(2), embedding)
    (gradient,) = torch.autograd.grad(scores.sum(), embedding)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(dim=1).all()


def test_a_step_changes_it_by_at_most_twice_its_length() -> None:
    clean = views()
    detector = CentroidMargin.fit(clean)
    step = 0.1 * torch.nn.functional.normalize(torch.randn(clean.embedding.shape), dim=1)
    change = detector(clean.images, clean.logits, clean.embedding + step) - detector(
        clean.images, clean.logits, clean.embedding
    )
    assert change.abs().max() <= 0.2 + 1e-5
