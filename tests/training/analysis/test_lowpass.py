import numpy as np
import pytest

from training.analysis.lowpass import LowPass, bands, central, low_pass, low_pass_curve

IMAGES = np.random.default_rng(0).random((3, 32, 32, 2))


@pytest.mark.parametrize(
    ("side", "expected"),
    [(32, (32, 28, 24, 20, 16)), (28, (28, 24, 20, 16, 12)), (8, (8, 7, 6, 5, 4)), (64, (64, 56, 48, 40, 32))],
)
def test_bands_are_the_papers_at_their_sizes(side: int, expected: tuple[int, ...]) -> None:
    assert bands(side) == expected


@pytest.mark.parametrize("kind", ["published", "symmetric"])
@pytest.mark.parametrize("shape", [(3, 32, 32, 1), (2, 7, 7, 3), (2, 8, 12, 1)], ids=str)
def test_the_full_filter_is_the_identity(kind: LowPass, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).random(shape)
    assert low_pass(images, min(shape[1:3]), kind=kind) == pytest.approx(images, abs=1e-12)


@pytest.mark.parametrize("band", [28, 24, 17, 16])
def test_the_symmetric_filter_twice_is_the_filter_once(band: int) -> None:
    once = low_pass(IMAGES, band, kind="symmetric")
    assert low_pass(once, band, kind="symmetric") == pytest.approx(once, abs=1e-12)
    assert not np.allclose(once, IMAGES, atol=1e-3)


@pytest.mark.parametrize(("band", "same"), [(28, False), (16, False), (17, True)])
def test_the_published_filter_is_not_idempotent_for_an_even_b(band: int, same: bool) -> None:
    once = low_pass(IMAGES, band)
    assert np.allclose(low_pass(once, band), once, atol=1e-6) is same


@pytest.mark.parametrize(("kind", "kept"), [("published", range(-4, 4)), ("symmetric", range(-3, 4))])
def test_which_frequencies_are_kept(kind: LowPass, kept: range) -> None:
    mask = central(32, 32, 8, kind=kind)
    expected = np.isin(np.arange(32) - 16, kept)
    assert np.array_equal(mask, np.outer(expected, expected))


def test_the_longer_side_keeps_the_same_share() -> None:
    assert central(8, 16, 4).sum() == 4 * 8


def test_the_curve_asks_for_each_band_of_both_kinds_of_image() -> None:
    wave = np.cos(np.pi * np.arange(8))[:, None, None] * np.ones((1, 8, 1))  # Nyquist: only the full filter keeps it
    clean, attacked = np.full((2, 8, 8, 1), 0.5), 0.5 + 0.1 * np.stack([wave, wave])
    curve = low_pass_curve(lambda images: float(np.ptp(images) > 0.1), clean, attacked, kind="symmetric")
    assert curve.bands == (8, 7, 6, 5, 4)
    assert curve.clean == (0, 0, 0, 0, 0)
    assert curve.attacked == (1, 0, 0, 0, 0)
