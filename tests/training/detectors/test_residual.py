"""Residuals of neighbouring pixels and their co-occurrence."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from tests import reference
from tests.training.detectors.made_up import views
from tests.training.detectors.test_high_frequency import blurred, checkerboard
from training.detectors.residual import KERNELS, LIMIT, Cooccurrence, Residual


@pytest.mark.parametrize("channels", [1, 2])
def test_the_description_is_the_cooccurrence_of_each_channel_and_kernel(channels: int) -> None:
    images = views(2, channels=channels).images
    steps = torch.tensor([0.02, 0.03, 0.05, 0.08, 0.1])
    fast = Cooccurrence(steps)(images)
    for n in range(2):
        slow = [
            number
            for channel in images[n].double().numpy()
            for kernel, step in zip(KERNELS, steps.tolist(), strict=True)
            for number in reference.cooccurrence(correlate2d(channel, np.array(kernel), "valid"), step, LIMIT)
        ]
        np.testing.assert_allclose(fast[n].numpy(), slow, rtol=1e-4, atol=1e-5)


def test_the_shares_of_all_pairs_sum_to_1() -> None:
    described = Cooccurrence(torch.full((5,), 0.05))(views(3).images).reshape(3, 5, 9)
    np.testing.assert_allclose((described.square() - 1 / 36).sum(dim=2).numpy(), 1, rtol=1e-4)


def test_a_mirrored_or_inverted_image_has_the_same_cooccurrence_of_second_differences() -> None:
    images = views(3).images
    describe = Cooccurrence(torch.full((5,), 0.05))
    second = slice(18, 45)
    for other in (images.flip(-1), images.flip(-2), 1 - images):
        torch.testing.assert_close(describe(other)[:, second], describe(images)[:, second], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_fine_detail_and_smoothing_are_both_noticed(channels: int) -> None:
    clean = views(channels=channels)
    detector, fresh = Residual.fit(clean), views(40, seed=1, channels=channels)
    usual = detector(fresh.images, fresh.logits, fresh.embedding).median()
    assert (detector(checkerboard(fresh.images, 0.1), fresh.logits, fresh.embedding) > usual).all()
    assert detector(blurred(fresh.images), fresh.logits, fresh.embedding).median() > usual


def test_the_steps_follow_the_clean_images() -> None:
    clean = views()
    steps = Residual.fit(clean).cooccurrence.steps.flatten()
    down = np.diff(clean.images[:, 0].double().numpy()[:, 1:, 1:-1], axis=1)
    assert steps[1].item() == pytest.approx(np.sqrt((down**2).mean()) / 2, rel=1e-4)
