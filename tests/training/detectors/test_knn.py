"""Distance to the nearest kept embeddings, and which are kept."""

import dataclasses

import numpy as np
import pytest
import torch

from service.errors import SetupError
from tests import reference
from tests.training.detectors.made_up import CLASSES, views
from training.detectors import knn
from training.detectors.knn import NearestNeighbours, k_centres


def test_it_is_the_squared_distance_to_the_third_nearest_of_the_predicted_class() -> None:
    clean, fresh = views(), views(seed=1)
    others, labels = clean.embedding.tolist(), clean.labels.tolist()
    predicted = fresh.logits.argmax(dim=1).tolist()
    slow = [
        reference.neighbour_distance(row, others, labels, c, 3)
        for row, c in zip(fresh.embedding.tolist(), predicted, strict=True)
    ]
    fast = NearestNeighbours.fit(clean)(fresh.images, fresh.logits, fresh.embedding)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-4, atol=1e-5)


def test_an_embedding_amid_another_class_is_far() -> None:
    clean = views()
    detector = NearestNeighbours.fit(clean)
    right = torch.nn.functional.one_hot(clean.labels, CLASSES).float()
    near = detector(clean.images, right, clean.embedding)
    assert (detector(clean.images, right.roll(1, dims=1), clean.embedding) > near).all()


def test_each_class_keeps_the_same_share_of_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "KEPT", 40)
    detector = NearestNeighbours.fit(views())
    assert torch.bincount(detector.labels).tolist() == [10] * CLASSES


def test_the_kept_ones_are_the_farthest_first() -> None:
    rows = views().embedding.double()
    assert k_centres(rows, 12).tolist() == reference.farthest_first(rows.tolist(), 12)


def test_on_a_line_the_middle_comes_first_and_then_the_ends() -> None:
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.5]], dtype=torch.float64)
    assert k_centres(rows, 3).tolist() == [2, 4, 0]


def test_equal_rows_are_not_chosen_twice() -> None:
    assert sorted(k_centres(torch.ones(5, 3, dtype=torch.float64), 9).tolist()) == [0, 1, 2, 3, 4]


def test_a_class_with_two_images_is_an_error_that_names_it() -> None:
    clean = views()
    kept = (clean.labels != 1) | (torch.arange(240) < 8)
    lacking = dataclasses.replace(clean, embedding=clean.embedding[kept], labels=clean.labels[kept])
    with pytest.raises(SetupError, match=r"class 1 has 2 images to fit detectors on, expected 3 or more; .*data\.fit"):
        NearestNeighbours.fit(lacking)
