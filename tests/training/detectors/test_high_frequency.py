"""The matched filter on the log powers of bands."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from tests.training.detectors.made_up import views
from training.detectors import CleanViews
from training.detectors.band_power import QUANTISATION_POWER, ring_numbers
from training.detectors.high_frequency import HighFrequency, luminance_first
from training.detectors.low_pass import gaussian_blur


def checkerboard(images: Tensor, height: float) -> Tensor:
    """Images with a chequered pattern of this height added."""
    places = torch.arange(images.shape[-1])
    return (images + height * (-1.0) ** (places[:, None] + places)).clamp(0, 1)


def blurred(images: Tensor) -> Tensor:
    blur = gaussian_blur(images.shape[-1], 0.6).float()
    return blur @ images @ blur.T


@pytest.mark.parametrize("channels", [1, 3])
def test_fine_detail_raises_it_and_smoothing_lowers_it(channels: int) -> None:
    detector = HighFrequency.fit(views(channels=channels, side=16))
    fresh = views(40, seed=1, channels=channels, side=16)
    as_it_is = detector(fresh.images, fresh.logits, fresh.embedding)
    assert (detector(checkerboard(fresh.images, 0.1), fresh.logits, fresh.embedding) > as_it_is).all()
    smoothed = detector(blurred(fresh.images), fresh.logits, fresh.embedding)
    assert smoothed.median() < as_it_is.median() - 1


def slow_bands(image: np.ndarray) -> list[float]:
    """Log power of an (8, 8) image, band by band, from numpy's FFT."""
    power = np.abs(np.fft.fft2(image)) ** 2 / image.size
    ring = ring_numbers(8, 8).numpy()
    down, across = np.abs(np.fft.fftfreq(8))[:, None], np.abs(np.fft.fftfreq(8))[None]
    angle = np.degrees(np.arctan2(down + 0 * across, across + 0 * down))
    parts = [power[ring == number] for number in (0, 1, 2)]
    for number in (3, 4):
        for low, high in ((0, 29.9), (29.9, 60.1), (60.1, 90)):
            parts.append(power[(ring == number) & (angle >= low) & (angle <= high)])
    return [float(np.log(part.mean() + QUANTISATION_POWER)) for part in parts]


def slow_scores(clean: CleanViews, fresh: CleanViews) -> np.ndarray:
    """By the inverse of the covariance."""
    rows = np.array([slow_bands(image) for image in clean.images[:, 0].double().numpy()])
    mean = rows.mean(axis=0)
    covariance, _ = ledoit_wolf(rows - mean, assume_centered=True)
    weights = np.linalg.inv(covariance) @ np.exp(-mean)
    weights[3:] = np.maximum(weights[3:], 0)
    fresh_rows = np.array([slow_bands(image) for image in fresh.images[:, 0].double().numpy()])
    return (fresh_rows - mean) @ weights / np.sqrt(weights @ covariance @ weights)


def test_it_is_the_matched_filter_of_added_white_noise() -> None:
    clean, fresh = views(), views(40, seed=1)
    fast = HighFrequency.fit(clean)(fresh.images, fresh.logits, fresh.embedding)
    np.testing.assert_allclose(fast.numpy(), slow_scores(clean, fresh), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_clean_images_score_0_give_or_take_1(channels: int) -> None:
    clean = views(channels=channels)
    scores = HighFrequency.fit(clean)(clean.images, clean.logits, clean.embedding)
    assert scores.mean().item() == pytest.approx(0, abs=1e-3)
    assert scores.std().item() == pytest.approx(1, abs=0.3)  # the shrunk covariance is not quite that of the images


def test_colour_is_split_into_luminance_and_two_differences() -> None:
    matrix = luminance_first(3)
    grey, blue = torch.ones(3), torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(matrix @ grey, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(matrix @ blue, torch.tensor([0.114, 0.5, -0.08131]), rtol=0, atol=1e-4)
    torch.testing.assert_close(luminance_first(1), torch.eye(1))


def test_the_order_of_grey_channels_that_are_no_colours_stays() -> None:
    clean = views(channels=2)
    swapped = dataclasses.replace(clean, images=clean.images.flip(1))
    one, other = HighFrequency.fit(clean), HighFrequency.fit(swapped)
    torch.testing.assert_close(
        one(clean.images, clean.logits, clean.embedding),
        other(swapped.images, clean.logits, clean.embedding),
        rtol=1e-3,
        atol=1e-3,
    )
