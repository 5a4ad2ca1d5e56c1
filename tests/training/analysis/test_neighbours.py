import numpy as np
import pytest

from training.analysis.neighbours import nearest, neighbours, recall_at_1


def circle(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


POINTS = circle(0, 12, 45, 30, 70, 101)
LABELS = np.array([0, 0, 0, 1, 1, 1])


def test_recall_of_six_points_on_a_circle() -> None:
    assert recall_at_1(POINTS, POINTS, LABELS) == 0.5


def test_an_attacked_query_does_not_find_its_own_clean_image() -> None:
    attacked = circle(101, 12, 45, 30, 70, 0)  # the first and the last have changed places
    assert recall_at_1(attacked, POINTS, LABELS) == pytest.approx(1 / 6)


def test_a_query_does_not_find_its_own_track() -> None:
    tracks = np.array([0, 0, 1, 2, 3, 3])
    # 0 finds 30, 12 finds 30, 45 finds 30, 30 finds 45, 70 finds 45, 101 finds 45
    assert recall_at_1(POINTS, POINTS, LABELS, tracks) == 0
    assert recall_at_1(POINTS, POINTS, LABELS, np.zeros(6, int)) is None


def test_nearest_are_in_order() -> None:
    assert nearest(circle(20), POINTS, 3).tolist() == [[1, 3, 0]]


@pytest.mark.parametrize("fooled", [[], [2, 4]], ids=["none fools", "two fool"])
def test_examples_are_those_that_fool_or_any(fooled: list[int]) -> None:
    fools = np.isin(np.arange(6), fooled)
    found = neighbours(
        clean=POINTS, attacked=POINTS, labels=LABELS, groups=None, fools=fools, gallery=POINTS[:3], seed=0
    )
    assert found.fooling is bool(fooled)
    assert found.queries.tolist() == (fooled or [0, 1, 2, 3, 4, 5])
    assert found.nearest.shape == (len(found.queries), 3)
    assert found.recall_at_1.attacked == 0.5
