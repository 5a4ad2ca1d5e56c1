import os

import numpy as np
import pytest

from service.history.fingerprints import SKETCH, Fingerprints, digest
from tests.service.history import toy


def shared(left: np.ndarray, right: np.ndarray) -> int:
    return len(np.intersect1d(left[left > 0], right[right > 0]))


def sketch(image: np.ndarray, key: bytes = bytes(32)) -> np.ndarray:
    return Fingerprints(key).sketches(image[None])[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_with_one_changed_square_shares_about_the_windows_that_it_left(channels: int) -> None:
    image = toy.pictures(np.random.default_rng(0), 1)[0][:, :, :channels]
    changed = image.copy()
    changed[4:10, 4:10] ^= 0x80
    windows = image.size - 19
    kept = sum(
        np.array_equal(image.reshape(-1)[place : place + 20], changed.reshape(-1)[place : place + 20])
        for place in range(windows)
    )
    counts = [shared(sketch(image, bytes([n] * 32)), sketch(changed, bytes([n] * 32))) for n in range(20)]
    assert np.mean(counts) / SKETCH == pytest.approx(kept / (2 * windows - kept), abs=0.2)
    assert min(counts) > 0
    assert max(counts) < SKETCH


def test_unrelated_images_share_next_to_nothing() -> None:
    sketches = Fingerprints(os.urandom(32)).sketches(toy.pictures(np.random.default_rng(0), 30))
    most = max(shared(sketches[one], sketches[other]) for one in range(30) for other in range(one))
    assert most <= 5


def test_sketches_are_the_largest_hashes_of_all_windows_whatever_the_batch() -> None:
    images = toy.pictures(np.random.default_rng(0), 5)
    fingerprints = Fingerprints(bytes(32))
    together = fingerprints.sketches(images)
    assert together.shape == (5, SKETCH)
    assert (np.diff(together.astype(np.int64), axis=1) >= 0).all()
    for image, row in zip(images, together, strict=True):
        np.testing.assert_array_equal(fingerprints.sketches(image[None])[0], row)


def test_two_secrets_share_nothing() -> None:
    image = toy.pictures(np.random.default_rng(0), 1)[0]
    assert shared(sketch(image), sketch(image, bytes([1] * 32))) == 0
    assert shared(sketch(image), sketch(image)) == SKETCH


@pytest.mark.parametrize(
    "image",
    [
        np.full((32, 32, 3), 200, np.uint8),
        np.tile(np.arange(32, dtype=np.uint8)[:, None, None], (1, 32, 3)),  # a smooth ramp
        np.zeros((4, 4, 1), np.uint8),
        np.random.default_rng(0).integers(0, 255, (3, 3, 1), dtype=np.uint8),  # smaller than a window
    ],
)
def test_flat_and_tiny_images_have_no_sketch(image: np.ndarray) -> None:
    assert not sketch(image).any()


def test_flat_background_is_no_likeness() -> None:
    drawn = np.zeros((2, 28, 28, 1), np.uint8)
    generator = np.random.default_rng(0)
    drawn[0, 4:14, 4:14, 0] = generator.integers(0, 255, (10, 10))
    drawn[1, 15:25, 15:25, 0] = generator.integers(0, 255, (10, 10))
    left, right = Fingerprints(bytes(32)).sketches(drawn)
    assert left[-1] > 0
    assert shared(left, right) <= 2


def test_of_a_large_image_only_some_rows_are_looked_at_and_always_the_same() -> None:
    generator = np.random.default_rng(0)
    large = generator.integers(0, 255, (300, 200, 3), dtype=np.uint8)
    assert np.array_equal(sketch(large), sketch(large))
    rows = Fingerprints(bytes(32))
    rows.sketches(large[None])
    assert rows._rows is not None
    other = large.copy()
    unseen = np.setdiff1d(np.arange(300), rows._rows)
    other[unseen] = 0
    assert np.array_equal(sketch(large), sketch(other))


def test_the_levels_wrap_so_that_no_two_windows_are_one() -> None:
    """Hashes of all windows are as many as there are windows: nothing is lost on the way."""
    image = np.random.default_rng(0).integers(0, 255, (1, 24, 24, 3), dtype=np.uint8)
    fingerprints = Fingerprints(bytes(32))
    fingerprints.sketches(image)
    hashes = fingerprints._hashes(image.reshape(1, -1))
    assert len(np.unique(hashes)) == image.size - 19


def test_a_digest_hangs_on_pixels_shape_and_secret() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert digest(image, b"key") == digest(image.copy(), b"key")
    others = [digest(image.reshape(1, 4, 3), b"key"), digest(image, b"other"), digest(image + 1, b"key")]
    assert digest(image, b"key") not in others
