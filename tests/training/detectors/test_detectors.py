"""Every detector against the slow mathematics, and what all of them must keep."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from torch import Tensor

from service.errors import SetupError
from tests.training.detectors.made_up import CLASSES, views
from training.detectors import DETECTORS, CleanViews, Detector, Learned
from training.detectors.band_power import QUANTISATION_POWER
from training.detectors.gaussian import ClassGaussian
from training.detectors.mahalanobis import shrunk_whitening
from training.detectors.mixture import GaussianMixture
from training.detectors.spectrum import radial_power


@pytest.mark.parametrize("kind", DETECTORS)
def test_each_gives_one_finite_float32_score_an_image(kind: str) -> None:
    clean = views()
    scores = scored(DETECTORS[kind].fit(clean), clean)
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
    assert DETECTORS[kind].kind == kind


def with_odd_embedding(clean: CleanViews) -> CleanViews:
    embedding = torch.randn(clean.embedding.shape, generator=torch.Generator().manual_seed(2))
    return dataclasses.replace(clean, embedding=torch.nn.functional.normalize(embedding, dim=1))


def with_even_logits(clean: CleanViews) -> CleanViews:
    return dataclasses.replace(clean, logits=torch.zeros_like(clean.logits))


def with_one_grey(clean: CleanViews) -> CleanViews:
    return dataclasses.replace(clean, images=torch.full_like(clean.images, 0.5))


def with_noise(clean: CleanViews) -> CleanViews:
    noise = torch.rand(clean.images.shape, generator=torch.Generator().manual_seed(2)) - 0.5
    return dataclasses.replace(clean, images=(clean.images + noise).clamp(0, 1))


def with_sure_logits(clean: CleanViews) -> CleanViews:
    return dataclasses.replace(clean, logits=3 * clean.logits)


ODD: Mapping[str, Callable[[CleanViews], CleanViews]] = {
    "gaussian": with_odd_embedding,
    "mixture": with_odd_embedding,
    "spectrum": with_one_grey,  # no power beyond frequency zero
    "centroid_margin": with_odd_embedding,
    "knn": with_odd_embedding,
    "softmax": with_even_logits,
    "energy": with_even_logits,
    "high_frequency": with_noise,
    "residual": with_one_grey,
    "feature_spectrum": with_noise,
    "low_pass": with_sure_logits,  # of which the untrained classifier knows nothing when asked again
}


def scored(detector: Detector, views: CleanViews) -> Tensor:
    with torch.no_grad():
        scores: Tensor = detector(views.images, views.logits, views.embedding)
    return scores


@pytest.mark.parametrize("kind", [kind for kind in DETECTORS if not issubclass(DETECTORS[kind], Learned)])
def test_what_lies_outside_the_clean_images_scores_higher(kind: str) -> None:
    detector, fresh = DETECTORS[kind].fit(views()), views(seed=1)
    assert scored(detector, ODD[kind](fresh)).median() > scored(detector, fresh).quantile(0.75)


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)], ids=["digits", "mnist", "signs"])
def test_each_takes_images_of_every_data_set(kind: str, channels: int, side: int) -> None:
    clean = views(60, channels=channels, side=side)
    assert scored(DETECTORS[kind].fit(clean), clean).isfinite().all()


@pytest.mark.parametrize("kind", DETECTORS)
def test_its_meaning_reads_on_in_a_flag_and_ends_in_a_card(kind: str) -> None:
    meaning = DETECTORS[kind].meaning
    assert meaning[0].islower()
    assert meaning[-1].isalpha()


@pytest.mark.parametrize("kind", DETECTORS)
def test_two_fits_are_equal(kind: str) -> None:
    first, second = (DETECTORS[kind].fit(views(60)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_at_most_so_many_views_are_spread_evenly() -> None:
    clean = views(11)
    assert clean.at_most(11).labels.tolist() == clean.labels.tolist()
    few = clean.at_most(3)
    for name in ("images", "logits", "embedding", "labels"):
        assert torch.equal(getattr(few, name), getattr(clean, name)[[0, 5, 10]])


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


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "centroid_margin", "knn"])
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


@pytest.mark.parametrize("kind", ["spectrum", "high_frequency", "residual"])
def test_too_few_images_for_a_covariance_is_an_error(kind: str) -> None:
    clean = views(1)
    with pytest.raises(SetupError, match="expected 2 clean images or more"):
        DETECTORS[kind].fit(clean)


@pytest.mark.parametrize("kind", ["softmax", "centroid_margin"])
def test_one_class_cannot_be_compared_with_others(kind: str) -> None:
    clean = views()
    alone = dataclasses.replace(clean, logits=clean.logits[:, :1], labels=torch.zeros_like(clean.labels))
    with pytest.raises(SetupError, match="expected 2 classes or more to fit detectors that compare classes, got 1"):
        DETECTORS[kind].fit(alone)


@pytest.mark.parametrize("kind", ["high_frequency", "residual"])
def test_images_smaller_than_the_filters_are_an_error(kind: str) -> None:
    clean = views()
    small = dataclasses.replace(clean, images=clean.images[:, :, :3])
    with pytest.raises(SetupError, match=f"{kind}: expected images of 4 x 4 pixels or more, got 3 x 8; leave it out"):
        DETECTORS[kind].fit(small)


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
