import numpy as np
import pytest

from tests import reference
from training.analysis.distances import MARGIN, class_distances, distance


def test_antiparallel_counts_as_close() -> None:
    assert distance(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [-0.8, 0.6], [-1.0, 0.0]])).ravel() == pytest.approx(
        [0.4, 0.2, 0.0]
    )


def test_means_and_margin_are_those_of_every_pair_and_triplet() -> None:
    random = np.random.default_rng(0)
    clean, attacked = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in random.normal(size=(2, 12, 3)))
    labels = np.arange(12) % 3
    found = class_distances(clean, attacked, labels).attacked
    within, between, kept = [], [], []
    for i, anchor in enumerate(attacked):
        apart = [1 - abs(reference.cosine(anchor, other)) for other in clean]
        negatives = [d for j, d in enumerate(apart) if labels[j] != labels[i]]
        positives = [d for j, d in enumerate(apart) if labels[j] == labels[i] and j != i]
        within += positives
        between += negatives
        kept += [d + MARGIN <= min(negatives) for d in positives]
    assert found.within == pytest.approx(np.mean(within))
    assert found.between == pytest.approx(np.mean(between))
    assert found.margin_satisfied == pytest.approx(np.mean(kept))


def test_without_a_pair_there_is_no_figure() -> None:
    one = class_distances(np.eye(3), np.eye(3), np.zeros(3, int)).clean
    assert (one.within, one.between, one.margin_satisfied) == (1, None, None)
    apart = class_distances(np.eye(3), np.eye(3), np.arange(3)).clean
    assert (apart.within, apart.between, apart.margin_satisfied) == (None, 1, None)
