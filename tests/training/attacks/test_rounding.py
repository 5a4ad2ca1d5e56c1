import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.attacks.rounding import from_8_bit, levels, nearest_8_bit, to_8_bit


@pytest.mark.parametrize(("eps", "expected"), [(8 / 255, 8), (0.3, 76), (0.05, 12), (1.0, 255), (1 / 255, 1)])
def test_budgets_round_down_to_whole_levels(eps: float, expected: int) -> None:
    assert levels(eps) == expected


def test_8_bit_images_come_back_unchanged() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 2), dtype=np.uint8)
    floats = from_8_bit(images)
    assert floats.shape == (3, 2, 5, 4)
    assert np.array_equal(nearest_8_bit(floats).numpy(), images)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 4, 1)), np.zeros((2, 3, 4), np.uint8)], ids=["float", "3 axes"])
def test_other_arrays_are_no_8_bit_images(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        from_8_bit(images)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.002, 1.0))
def test_linf_rounding_keeps_the_integer_budget(seed: int, eps: float) -> None:
    random = np.random.default_rng(seed)
    before = random.integers(0, 256, (2, 3, 3, 1), dtype=np.uint8)
    clean = from_8_bit(before)
    attacked = (clean + torch.from_numpy(random.uniform(-eps, eps, clean.shape)).float()).clamp(0, 1)
    rounded = to_8_bit(attacked, clean, "linf", eps).numpy()
    assert np.abs(rounded.astype(int) - before).max() <= levels(eps)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 3.0))
def test_l2_rounding_keeps_the_budget(seed: int, eps: float) -> None:
    random = np.random.default_rng(seed)
    before = random.integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    clean = from_8_bit(before)
    delta = torch.from_numpy(random.normal(size=clean.shape)).float()
    delta = eps * delta / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    attacked = (clean + delta).clamp(0, 1)
    rounded = to_8_bit(attacked, clean, "l2", eps).numpy()
    lengths = np.linalg.norm((rounded.astype(float) - before).reshape(2, -1), axis=1) / 255
    assert lengths.max() <= eps + 1e-6


def test_known_values_round_as_stated() -> None:
    clean = from_8_bit(np.full((1, 1, 4, 1), 100, np.uint8))
    attacked = clean + torch.tensor([7.6, -7.6, 8.4, 0.4]).view(1, 1, 1, 4) / 255
    assert to_8_bit(attacked, clean, "linf", 8 / 255).flatten().tolist() == [108, 92, 108, 100]
    assert to_8_bit(attacked, clean, "linf", 7.9 / 255).flatten().tolist() == [107, 93, 107, 100]
    assert to_8_bit(attacked, clean, "l2", 1.0).flatten().tolist() == [107, 93, 108, 100]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_what_is_rounded_already_stays_as_it_is(norm: str) -> None:
    before = np.full((1, 256, 1, 1), 100, np.uint8)
    attacked = np.arange(256, dtype=np.uint8).reshape(before.shape)
    again = to_8_bit(from_8_bit(attacked), from_8_bit(before), norm, 1.0)  # type: ignore[arg-type]
    assert np.array_equal(again.numpy(), attacked)


def test_an_unknown_norm_is_refused() -> None:
    images = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="expected one of linf, l2, l1, l0, got 'l3'"):
        to_8_bit(images, images, "l3", 0.1)  # type: ignore[arg-type]
