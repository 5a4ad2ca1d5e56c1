"""Every detector against the slow mathematics, and what all of them must keep."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from torch import Tensor

from service.errors import SetupError
from tests.training.detectors.made_up import CLASSES, DIMENSIONS, views
from training.detectors import DETECTORS
from training.detectors.band_power import QUANTISATION_POWER
from training.detectors.gaussian import ClassGaussian
from training.detectors.mahalanobis import shrunk_whitening
from training.detectors.mixture import GaussianMixture
from training.detectors.spectrum import RadialSpectrum, radial_power


@pytest.mark.parametrize("kind", DETECTORS)
def test_each_gives_one_finite_float32_score_an_image(kind: str) -> None:
    clean = views()
    scores = DETECTORS[kind].fit(clean)(clean.images, clean.logits, clean.embedding)
    assert scores.shape == (240,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_score_does_not_depend_on_batch_mates(kind: str) -> None:
    clean = views()
    detector = DETECTORS[kind].fit(clean)
    whole = detector(clean.images, clean.logits, clean.embedding)
    single = torch.cat(
        [detector(clean.images[i : i + 1], clean.logits[i : i + 1], clean.embedding[i : i + 1]) for i in range(20)]
    )
    torch.testing.assert_close(single, whole[:20], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", DETECTORS)
def test_nothing_that_was_fitted_can_be_trained_on(kind: str) -> None:
    detector = DETECTORS[kind].fit(views())
    assert list(detector.parameters()) == []
    assert len(detector.state_dict()) > 0
    assert DETECTORS[kind].kind == kind


@pytest.mark.parametrize("kind", DETECTORS)
def test_what_lies_outside_the_clean_images_scores_higher(kind: str) -> None:
    clean = views()
    detector = DETECTORS[kind].fit(clean)
    fresh = views(seed=1)
    odd_images = torch.full_like(fresh.images, 0.5)  # no power beyond frequency zero
    odd_embedding = torch.nn.functional.normalize(torch.randn(240, DIMENSIONS), dim=1)
    usual = detector(fresh.images, fresh.logits, fresh.embedding).median()
    assert detector(odd_images, fresh.logits, odd_embedding).median() > 2 * usual.abs()


def test_gaussian_is_the_mahalanobis_distance_to_the_predicted_class() -> None:
    clean = views()
    rows, labels = clean.embedding.double().numpy(), clean.labels.numpy()
    means = np.stack([rows[labels == c].mean(axis=0) for c in range(CLASSES)])
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(rows - means[labels]).covariance_)
    away = rows - means[clean.logits.argmax(dim=1).numpy()]
    slow = np.einsum("nd,de,ne->n", away, inverse, away)
    fast = ClassGaussian.fit(clean)(clean.images, clean.logits, clean.embedding)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=2e-3)


def test_whitening_survives_a_direction_without_variance() -> None:
    rows = torch.randn(50, 6, dtype=torch.float64)
    rows[:, 3] = 0
    assert shrunk_whitening(rows - rows.mean(dim=0)).isfinite().all()


def test_unit_gaussian_in_two_dimensions_has_its_known_density() -> None:
    # -log(2 pi) - 1/2
    mixture = GaussianMixture(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1))
    score = mixture(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1), torch.tensor([[1.0, 0.0]]))
    assert score.item() == pytest.approx(2.337877, abs=1e-6)


def slow_densities(mixture: GaussianMixture, embedding: Tensor) -> np.ndarray:
    columns = [
        multivariate_normal(mean.numpy(), np.diag(deviation.numpy() ** 2)).logpdf(embedding.numpy())
        for mean, deviation in zip(mixture.means, mixture.deviations, strict=True)
    ]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("component", ["predicted", "nearest", "all"])
def test_mixture_is_the_negative_log_density(component: str) -> None:
    clean = views()
    mixture = GaussianMixture.fit(clean, component=component)  # type: ignore[arg-type]
    each = slow_densities(mixture, clean.embedding)
    predicted = each[np.arange(len(each)), clean.logits.argmax(dim=1).numpy()]
    weighted = np.logaddexp.reduce(each + mixture.log_weights.numpy(), axis=1)
    slow = {"predicted": -predicted, "nearest": -each.max(axis=1), "all": -weighted}[component]
    fast = mixture(clean.images, clean.logits, clean.embedding)
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_a_class_without_images_is_an_error_that_names_it(kind: str) -> None:
    clean = views()
    kept = clean.labels != 2
    lacking = dataclasses.replace(
        clean,
        images=clean.images[kept],
        logits=clean.logits[kept],
        embedding=clean.embedding[kept],
        labels=clean.labels[kept],
    )
    with pytest.raises(SetupError, match="class 2 has 0 images to fit detectors on"):
        DETECTORS[kind].fit(lacking)


def test_too_few_images_for_a_spectrum_is_an_error() -> None:
    clean = views(1)
    with pytest.raises(SetupError, match="expected 2 clean images or more"):
        RadialSpectrum.fit(clean)


def slow_profile(image: np.ndarray) -> np.ndarray:
    """Ring by ring, from numpy's FFT."""
    power = np.abs(np.fft.fft2(image)) ** 2 / image.size
    bins = min(image.shape) // 2
    sums, counts = np.zeros(bins + 1), np.zeros(bins + 1)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            vertical = min(row, image.shape[0] - row) / image.shape[0]
            horizontal = min(column, image.shape[1] - column) / image.shape[1]
            ring = min(round(math.hypot(vertical, horizontal) * 2 * bins), bins)
            sums[ring] += power[row, column]
            counts[ring] += 1
    return np.log(sums / counts + QUANTISATION_POWER)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (12, 10)])
def test_radial_power_is_the_binned_fft(height: int, width: int) -> None:
    images = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(0))
    fast = radial_power(height, width)(images).reshape(3, 2, -1)
    for n in range(3):
        for channel in range(2):
            slow = slow_profile(images[n, channel].double().numpy())
            np.testing.assert_allclose(fast[n, channel].numpy(), slow, rtol=1e-4, atol=1e-4)


def test_a_constant_image_has_power_at_frequency_zero_only() -> None:
    profile = radial_power(8, 8)(torch.full((1, 1, 8, 8), 0.5))[0]
    assert profile[0] == pytest.approx(math.log(0.25 * 64), rel=1e-4)
    assert profile[1:].numpy() == pytest.approx(math.log(QUANTISATION_POWER), abs=1e-3)
