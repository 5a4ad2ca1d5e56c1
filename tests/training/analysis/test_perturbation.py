import numpy as np
import pytest

from training.analysis.perturbation import energy_share, perturbation_spectrum, radial_profile, rings


@pytest.mark.parametrize("band", [28, 24, 20, 16, 8])
def test_noise_of_random_signs_has_its_energy_everywhere(band: int) -> None:
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(200, 32, 32, 1))
    assert energy_share(signs, band) == pytest.approx((band / 32) ** 2, rel=0.05)


def test_a_change_of_brightness_lies_in_the_middle_and_no_change_is_not_counted() -> None:
    changes = np.zeros((2, 8, 8, 1))
    assert energy_share(changes, 2) is None
    changes[0] = 0.1
    assert energy_share(changes, 2) == pytest.approx(1)


def test_the_finest_stripes_lie_at_the_edge() -> None:
    clean = np.full((1, 8, 8, 1), 0.5)
    attacked = clean + 0.1 * np.cos(np.pi * np.arange(8))[None, :, None, None]
    spectrum = perturbation_spectrum(clean, attacked)
    assert np.argwhere(spectrum.change > 0.5).tolist() == [[0, 4]]  # row frequency -4, column frequency 0
    assert spectrum.profile[-1] == spectrum.profile.max()
    assert spectrum.energy_shares == pytest.approx((0, 0, 0, 0, 0), abs=1e-12)
    assert spectrum.attacked[0, 4] > spectrum.clean[0, 4]
    assert spectrum.clean[4, 4] == pytest.approx(np.log10(32))


def test_the_largest_wave_is_one_and_brightness_may_exceed_it() -> None:
    clean = np.full((1, 8, 8, 1), 0.5)
    wave = 0.05 * np.cos(np.pi / 4 * np.arange(8))[None, :, None, None]
    change = perturbation_spectrum(clean, clean + 0.2 + wave).change
    assert change[3, 4] == pytest.approx(1)
    assert change[4, 4] == pytest.approx(8)


def test_an_attack_that_does_nothing_has_a_spectrum_of_zeros() -> None:
    clean = np.full((2, 8, 8, 3), 0.5)
    spectrum = perturbation_spectrum(clean, clean)
    assert not spectrum.change.any()
    assert set(spectrum.energy_shares) == {None}


def test_rings_grow_from_the_middle_and_the_profile_is_their_mean() -> None:
    ring = rings(8, 8)
    assert ring[4].tolist() == [4, 3, 2, 1, 0, 1, 2, 3]
    assert ring[0, 0] == 4
    assert radial_profile(ring.astype(float), ring).tolist() == [0, 1, 2, 3, 4]
