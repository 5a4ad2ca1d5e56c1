import numpy as np
import pytest
from scipy import stats

from training.analysis.heatmap import basis_image, distinct_frequencies, heat_map, rank_correlation, strength


@pytest.mark.parametrize(("shape", "count"), [((32, 32), 514), ((28, 28), 394), ((8, 8), 34), ((5, 4), 11)], ids=str)
def test_distinct_frequencies_are_counted_once(shape: tuple[int, int], count: int) -> None:
    assert len(distinct_frequencies(*shape)) == count


@pytest.mark.parametrize("shape", [(8, 8), (7, 6)], ids=str)
def test_each_basis_image_has_unit_length_and_one_pair_of_frequencies(shape: tuple[int, int]) -> None:
    for k in distinct_frequencies(*shape):
        wave = basis_image(*shape, k)
        assert np.linalg.norm(wave) == pytest.approx(1)
        partner = (-k[0] % shape[0], -k[1] % shape[1])
        energy = np.abs(np.fft.fft2(wave)) > 1e-9
        assert {(int(i), int(j)) for i, j in np.argwhere(energy)} == {k, partner}


def test_strength_is_four_at_32() -> None:
    assert strength(32, 32) == 4
    assert strength(8, 8) == 1


def test_a_network_that_fears_one_frequency_has_two_bright_points() -> None:
    fast = basis_image(8, 8, (3, 2))

    def accuracy(images: np.ndarray) -> float:
        return float(np.mean(np.abs(np.einsum("nhwc,hw->nc", images - 0.5, fast)) < 0.5))

    ticks: list[tuple[int, int]] = []
    found = heat_map(accuracy, np.full((4, 8, 8, 3), 0.5), np.ones((8, 8)), seed=0, tick=lambda *at: ticks.append(at))
    assert found.frequencies == len(ticks) == 34
    assert found.clean_error == 0
    assert {(int(i) - 4, int(j) - 4) for i, j in np.argwhere(found.errors)} == {(3, 2), (-3, -2)}
    assert found.errors.max() == 1
    assert found.correlation is None  # a flat spectrum has no order


def test_what_is_added_is_clipped_and_of_the_stated_strength() -> None:
    seen: list[np.ndarray] = []

    def accuracy(images: np.ndarray) -> float:
        seen.append(images)
        return 0.5

    heat_map(accuracy, np.full((5, 8, 8, 2), 0.5), np.ones((8, 8)), seed=3)
    lengths = np.linalg.norm((seen[7] - 0.5).reshape(5, 64, 2), axis=1)
    assert lengths == pytest.approx(np.ones((5, 2)))
    heat_map(accuracy, np.zeros((5, 8, 8, 2)), np.ones((8, 8)), seed=3)
    assert all(images.min() >= 0 for images in seen)


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(0)
    left, right = random.integers(0, 6, 50).astype(float), random.integers(0, 9, 50).astype(float)
    assert rank_correlation(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)
    assert rank_correlation(left, np.exp(left)) == pytest.approx(1)
    assert rank_correlation(left, np.ones(50)) is None
