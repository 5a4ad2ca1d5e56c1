"""Spectral alignment, logit pairing and TRADES."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.pairing import l1_weight_like_sar, l2_weight_like_sar, logit_distance
from training.losses.sar import spectral_distance
from training.losses.trades import divergence


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_spectrum_of_1_2_3_4() -> None:
    """Its DFT is (10, -2+2i, -2, -2-2i): absolute parts add up to 20."""
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert spectral_distance(logits, torch.zeros(1, 4), "per_sample").item() == pytest.approx(20)


def test_the_batch_form_of_two_by_two() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert spectral_distance(logits, torch.zeros(2, 2), "batch2d").item() == pytest.approx(2)


@pytest.mark.parametrize("form", ["per_sample", "batch2d"])
def test_equal_logits_are_at_distance_0(form: str) -> None:
    logits = normal(5, 7)
    assert spectral_distance(logits, logits, form).item() == 0  # type: ignore[arg-type]


def test_the_per_sample_form_does_not_depend_on_the_batch() -> None:
    clean, attacked = normal(8, 10), normal(8, 10, seed=1)
    halves = [spectral_distance(clean[rows], attacked[rows], "per_sample") for rows in (slice(4), slice(4, 8))]
    whole = spectral_distance(clean, attacked, "per_sample")
    assert whole.item() == pytest.approx(float(sum(halves)) / 2)
    assert spectral_distance(clean[:4], attacked[:4], "batch2d").item() != pytest.approx(
        spectral_distance(clean, attacked, "batch2d").item()
    )


def test_the_batch_form_of_noise_grows_with_the_root_of_its_size() -> None:
    r = 1.7
    zeros = torch.zeros(128, 10, dtype=torch.float64)
    draws = [spectral_distance(r * normal(128, 10, seed=seed), zeros, "batch2d").item() for seed in range(50)]
    assert sum(draws) / 50 == pytest.approx(math.sqrt(1 / math.pi) * math.sqrt(1280) * r, rel=0.02)


def test_squared_differences_would_be_logit_pairing() -> None:
    """Parseval: the reason for the absolute values."""
    difference = normal(6, 43)
    spectrum = torch.fft.fft(difference, dim=1).abs().square().sum(dim=1).mean()
    paired = logit_distance(difference, torch.zeros_like(difference), "l2")
    assert spectrum.item() == pytest.approx(43 * paired.item())


@pytest.mark.parametrize("classes", [10, 43])
@pytest.mark.parametrize("rms", [0.5, 3.0])
def test_matched_weights_give_equal_terms(classes: int, rms: float) -> None:
    difference = rms * normal(20_000, classes)
    zeros = torch.zeros_like(difference)
    wanted = 0.06 * spectral_distance(difference, zeros, "per_sample").item()
    l1 = l1_weight_like_sar(0.06, classes) * logit_distance(difference, zeros, "l1").item()
    l2 = l2_weight_like_sar(0.06, classes, rms) * logit_distance(difference, zeros, "l2").item()
    assert l1 == pytest.approx(wanted, rel=0.01)
    assert l2 == pytest.approx(wanted, rel=0.01)


def test_divergence_is_that_of_torch() -> None:
    clean, attacked = normal(6, 5), normal(6, 5, seed=1)
    expected = F.kl_div(F.log_softmax(attacked, 1), F.log_softmax(clean, 1), reduction="batchmean", log_target=True)
    assert divergence(clean, attacked).mean().item() == pytest.approx(expected.item())
    assert divergence(clean, clean).abs().max() < 1e-12
