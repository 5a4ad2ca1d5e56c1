import numpy as np
import pytest

from training.analysis.embedding import embedding_map, frequent_classes


def unit(random: np.random.Generator, centres: np.ndarray, noise: float) -> np.ndarray:
    rows = centres + noise * random.normal(size=centres.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_the_most_frequent_classes_are_kept() -> None:
    labels = np.array([5, 5, 5, 2, 2, 9, 9, 7])
    assert frequent_classes(labels, 2).tolist() == [2, 5]
    assert frequent_classes(labels, 9).tolist() == [2, 5, 7, 9]


def test_classes_that_lie_apart_stay_apart_and_the_seed_decides() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 12
    centres = np.eye(12)[labels]
    clean, attacked = unit(random, centres, 0.02), unit(random, centres, 0.02)
    found = embedding_map(clean, attacked, labels, seed=1)
    assert found.classes == tuple(range(10))  # of 12
    assert found.clean.shape == found.attacked.shape == (50, 2)
    assert found.perplexity == 15
    both = np.concatenate([found.clean, found.attacked])
    assert (both.min(), both.max()) == pytest.approx((0, 1))
    again = embedding_map(clean, attacked, labels, seed=1)
    assert np.array_equal(again.clean, found.clean)


def test_few_images_lower_the_perplexity() -> None:
    rows = unit(np.random.default_rng(0), np.eye(4), 0.1)
    assert embedding_map(rows, rows, np.arange(4), seed=0).perplexity == pytest.approx(7 / 3)


def test_a_network_that_says_the_same_of_every_image_has_a_map() -> None:
    rows = np.tile([1.0, 0.0, 0.0], (20, 1))
    assert np.isfinite(embedding_map(rows, rows, np.arange(20) % 2, seed=0).clean).all()
