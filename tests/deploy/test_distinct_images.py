"""Images for benchmarks: no two alike, and like those that people send."""

import numpy as np
import pytest

from deploy.distinct_images import DistinctImages
from service.detection.manifest import InputShape
from service.errors import SetupError

GREY, COLOUR = InputShape(height=8, width=8, channels=1), InputShape(height=32, width=24, channels=3)


@pytest.mark.parametrize("shape", [GREY, COLOUR], ids=["grey", "colour"])
def test_no_image_comes_twice_and_a_seed_gives_the_same(shape: InputShape) -> None:
    images = DistinctImages(shape, 0)
    found = np.concatenate([images.take(1500), images.take(700)])
    assert found.shape == (2200, shape.height, shape.width, shape.channels)
    assert found.dtype == np.uint8
    assert len(np.unique(found.reshape(2200, -1), axis=0)) == 2200
    assert np.array_equal(DistinctImages(shape, 0).take(1500), found[:1500])
    assert not np.array_equal(DistinctImages(shape, 1).take(1500), found[:1500])


@pytest.mark.parametrize("shape", [GREY, COLOUR], ids=["grey", "colour"])
def test_neighbouring_pixels_are_alike_as_in_no_noise(shape: InputShape) -> None:
    images = DistinctImages(shape, 0).take(500).astype(float)
    steps = np.abs(np.diff(images, axis=2)).mean()
    aside = np.abs(images - np.random.default_rng(0).permuted(images, axis=2)).mean()
    assert steps < 0.9 * aside  # of noise they are equal


def test_a_pool_is_gone_through_before_an_image_comes_again_in_another_light() -> None:
    levels = np.arange(20, 220, 20, dtype=np.uint8)
    pool = np.broadcast_to(levels[:, None, None, None], (10, 8, 8, 1))
    images = DistinctImages(GREY, 0, pool)
    first = images.take(10)
    assert len(np.unique(np.concatenate([first, images.take(30)]).reshape(40, -1), axis=0)) == 40
    assert np.isclose(np.sort(first.mean(axis=(1, 2, 3))), levels, rtol=0.5).all()


def test_what_cannot_be_made_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="1 or 3 channels, got 2"):
        DistinctImages(InputShape(height=8, width=8, channels=2), 0)
    with pytest.raises(SetupError, match="107 x 160 at most, got 200 x 200"):
        DistinctImages(InputShape(height=200, width=200, channels=3), 0)
    monkeypatch.setattr("deploy.distinct_images.TIRED", 3)
    tiny = DistinctImages(InputShape(height=1, width=1, channels=1), 0)
    with pytest.raises(SetupError, match="expected 300 more images, found"):
        tiny.take(300)
