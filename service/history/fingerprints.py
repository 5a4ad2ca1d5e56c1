"""The first view of a query: keyed hashes of small pieces of the image, of which the largest are kept.

After Blacklight (Li et al., USENIX Security 2022): a secret salt for each pixel, coarse levels, all windows of 20
values, the `SKETCH` largest hashes. Different here: a window of 20 values of 5 levels fits into 64 bits exactly and is
mixed with a secret in a few vectorised steps, where SHA-256 took one call each; salted values wrap at 256, so that 0
and 255 stay apart; windows of flat background are left out, or any two drawn digits would share most of theirs.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from service.history.types import Bytes8, Keys

__all__ = ["KEY_BYTES", "SKETCH", "Fingerprints", "digest"]

KEY_BYTES = 32
SKETCH = 50
WINDOW = 20
LEAST_WINDOWS = 25
"""Distinct windows below which an image has no sketch."""
MOST_VALUES = 8192
"""Of an image that are looked at; of a larger one some rows, which the secret chooses."""
STEP = 4
"""Of 255: neighbouring pixels that differ by less are flat."""
LEAST_STEPS = 4
"""In a window, for it to count."""
_LEVELS = (np.arange(256) * 5 >> 8).astype(np.uint8)


def digest(image: Bytes8, key: bytes) -> int:
    """64 bits of an image's pixels and shape, never 0; equal for equal images only, but for a chance of 2^-64."""
    shape = ",".join(map(str, image.shape)).encode()
    made = hashlib.blake2b(np.ascontiguousarray(image).data, key=key, digest_size=8, person=shape[:16]).digest()
    return int.from_bytes(made, "little") or 1


class Fingerprints:
    """Sketches under one secret; those under two secrets do not compare."""

    def __init__(self, key: bytes) -> None:
        """Takes `KEY_BYTES` random bytes."""
        self.key = key
        self._shape: tuple[int, ...] = ()
        self._salt = np.empty(0, np.uint8)
        self._rows: NDArray[np.int64] | None = None
        secrets = np.frombuffer(hashlib.blake2b(key, digest_size=24, person=b"mix").digest(), np.uint64)
        self._xor, self._times, self._times_again = secrets[0], secrets[1] | np.uint64(1), secrets[2] | np.uint64(1)

    def sketches(self, images: Bytes8) -> Keys:
        """(N, H, W, C) images of 1 to 4 channels to (N, SKETCH) keys, rising.

        Places without a key hold 0; rows of images that are too flat hold nothing else. The share of keys that two rows
        have in common estimates the share of windows that the images have in common.
        """
        count, height, width, channels = images.shape
        self._fit(images.shape[1:])
        rows = images.reshape(count, height, width * channels)
        flat = (rows if self._rows is None else rows[:, self._rows]).reshape(count, -1)  # (N, n)
        if flat.shape[1] < WINDOW + channels:
            return np.zeros((count, SKETCH), np.uint32)
        hashes = self._hashes(_LEVELS[flat + self._salt])  # (N, windows)
        hashes[_steps(flat, channels) < LEAST_STEPS] = 0
        hashes[np.count_nonzero(hashes, axis=1) < LEAST_WINDOWS] = 0
        if hashes.shape[1] <= SKETCH:
            hashes = np.pad(hashes, ((0, 0), (SKETCH - hashes.shape[1], 0)))
        else:
            hashes = np.partition(hashes, -SKETCH, axis=1)[:, -SKETCH:]
        return np.sort(hashes, axis=1)

    def _fit(self, shape: tuple[int, ...]) -> None:
        """Draws the salt for a shape; the same for the same secret."""
        if shape == self._shape:
            return
        self._shape = shape
        height, width, channels = shape
        self._rows = None
        if height * width * channels > MOST_VALUES:
            draw = np.random.default_rng(np.frombuffer(self.key, np.uint32))
            kept = max(1, MOST_VALUES // (width * channels))
            self._rows = np.sort(draw.permutation(height)[:kept])
            height = kept
        salt = hashlib.shake_256(self.key + b"salt").digest(height * width * channels)
        self._salt = np.frombuffer(salt, np.uint8)

    def _hashes(self, levels: Bytes8) -> Keys:
        """(N, n) levels below 8 to (N, n - 19) hashes of all windows."""
        one = levels.astype(np.uint64)
        two = one[:, :-1] | one[:, 1:] << np.uint64(3)
        four = two[:, :-2] | two[:, 2:] << np.uint64(6)
        eight = four[:, :-4] | four[:, 4:] << np.uint64(12)
        sixteen = eight[:, :-8] | eight[:, 8:] << np.uint64(24)
        whole = sixteen[:, :-4] | four[:, 16:] << np.uint64(48)  # (N, windows), 60 bits: no two windows are one
        whole ^= self._xor
        whole *= self._times
        whole ^= whole >> np.uint64(32)
        whole *= self._times_again
        return np.asarray(whole >> np.uint64(32), np.uint32)


def _steps(flat: Bytes8, channels: int) -> Bytes8:
    """How many neighbouring pixels of each window differ: (N, n) values to (N, n - 19) counts."""
    left, right = flat[:, :-channels], flat[:, channels:]
    one = (np.maximum(left, right) - np.minimum(left, right) >= STEP).view(np.uint8)
    total, width = one, 1
    pairs = WINDOW - channels  # differences within a window
    parts = {1: one}
    while 2 * width <= pairs:
        total = total[:, :-width] + total[:, width:]
        width *= 2
        parts[width] = total
    windows = flat.shape[1] - WINDOW + 1
    counts, place = np.zeros((len(flat), windows), np.uint8), 0
    for width in sorted(parts, reverse=True):
        if pairs & width:
            counts += parts[width][:, place : place + windows]
            place += width
    return counts
