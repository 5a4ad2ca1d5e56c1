"""Figures of ranked galleries, and what a query may find."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from training.collapse import Spread
from training.config import load_recipe
from training.data import ImageSet
from training.retrieval.gallery import Gallery
from training.retrieval.measure import cluster_agreement
from training.retrieval.ranking import Ranked, ranked
from training.retrieval.results import over_seeds

ANGLES = (0, 12, 45, 30, 70, 101)
CLASSES = (0, 0, 0, 1, 1, 1)


def circle(*degrees: float) -> Tensor:
    return torch.tensor([[math.cos(math.radians(one)), math.sin(math.radians(one))] for one in degrees])


def gallery(labels: tuple[int, ...], tracks: tuple[int, ...] | None = None) -> Gallery:
    images = ImageSet(
        images=np.zeros((len(labels), 2, 2, 1), np.uint8),
        labels=np.array(labels, np.int64),
        tracks=None if tracks is None else np.array(tracks, np.int64),
    )
    return Gallery(images=images, queries=np.arange(len(labels)), is_unseen=True)


def found(embeddings: Tensor, labels: tuple[int, ...], tracks: tuple[int, ...] | None = None) -> Ranked:
    return ranked(embeddings, embeddings, *gallery(labels, tracks).partners())


def test_six_points_on_the_circle() -> None:
    result = found(circle(*ANGLES), CLASSES)
    assert result.recall(1).mean().item() == 0.5
    assert result.recall(2).mean().item() == pytest.approx(2 / 3)
    assert result.average_precision().mean().item() == pytest.approx(0.291667, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_a_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = tuple(int(label) for label in random.integers(0, 3, 20))
    points = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(20, 4))))
    result = found(points, labels)
    for row in range(20):
        others = [column for column in range(20) if column != row]
        others.sort(key=lambda column: float((points[row] - points[column]).norm()))
        hits = [labels[column] == labels[row] for column in others]
        relevant = sum(hits)
        precision = sum(sum(hits[: rank + 1]) / (rank + 1) for rank in range(relevant) if hits[rank]) / relevant
        assert result.recall(2)[row].item() == float(any(hits[:2]))
        assert result.average_precision()[row].item() == pytest.approx(precision)


def test_a_query_finds_neither_itself_nor_its_own_track() -> None:
    """The nearest of image 0 are those of its track; without them it finds the other class first."""
    points, labels, tracks = circle(0, 1, 50, 20, 25), (0, 0, 0, 1, 1), (0, 0, 1, 2, 3)
    assert found(points, labels).recall(1)[0].item() == 1
    result = found(points, labels, tracks)
    assert result.recall(1)[0].item() == 0
    assert result.relevant.tolist() == [1, 1, 2, 1, 1]
    own, other = gallery(labels, tracks).partners()
    assert not own[0, :2].any()
    assert not (own & other).any()


def test_a_collapsed_embedding_finds_nothing() -> None:
    result = found(circle(*[10] * 6), CLASSES)
    assert result.recall(1).mean().item() == 0
    assert result.average_precision().max().item() < 0.5


@pytest.mark.parametrize(
    ("angles", "low", "high"), [((0, 1, 2, 90, 91, 92), 1.0, 1.0), ((0, 90, 180, 1, 91, 181), 0.0, 0.3)]
)
def test_clusters_agree_with_classes_that_lie_together(angles: tuple[float, ...], low: float, high: float) -> None:
    assert low - 1e-9 <= cluster_agreement(circle(*angles), np.array(CLASSES), 0) <= high + 1e-9


def test_clusters_of_one_point_agree_with_nothing() -> None:
    assert cluster_agreement(circle(*[10] * 6), np.array(CLASSES), 0) == 0


def test_the_spread_of_a_point_and_of_the_circle() -> None:
    point = Spread.of(circle(30, 30, 30))
    assert (point.distance, point.variance) == pytest.approx((0, 0), abs=1e-7)
    across = Spread.of(circle(0, 180))
    assert (across.distance, across.variance) == pytest.approx((2, 1), abs=1e-6)


class FakeRun:
    """What over_seeds asks of a run."""

    def __init__(self, recipe: Any) -> None:
        self.recipe = recipe
        self.path = Path("runs")


def test_seeds_of_one_name_are_averaged() -> None:
    runs = [
        FakeRun(load_recipe("digits", [f"train.seed={seed}", f"train.start_from=runs/z-s{seed}"])) for seed in (0, 1, 0)
    ]
    figures = {"a-s0": {"r1": 0.2}, "a-s1": {"r1": 0.4}, "b-s0": {"r1": 1.0}}
    made = over_seeds(figures, runs)  # type: ignore[arg-type]
    assert made == {"a-mean": {"r1": pytest.approx(0.3)}, "a-sd": {"r1": pytest.approx(0.02**0.5)}, "b-s0": {"r1": 1}}
    other = FakeRun(load_recipe("digits", ["train.epochs=3", "train.seed=1", "train.start_from=runs/z-s1"]))
    with pytest.raises(SetupError, match=r"a: expected seeds of one recipe, got one with .*train\.epochs"):
        over_seeds(figures, [runs[0], other, runs[2]])  # type: ignore[arg-type, list-item]
