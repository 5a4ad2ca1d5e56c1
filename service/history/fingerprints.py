"""The first view of a query: keyed hashes of small pieces of the image, of which the largest are kept.

After Blacklight (Li et al., USENIX Security 2022): a secret salt for each pixel, coarse levels, all windows of 20
values, the `SKETCH` largest hashes. Different here: each half of a window, 10 values of 5 levels, fits into 32 bits
exactly and is mixed with a secret in a few vectorised steps, where SHA-256 took one call for each window; salted values
wrap at 256, so that 0 and 255 stay apart; windows of flat background are left out, or any two drawn digits would share
most of theirs.
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
LEVELS = 5
LIKELY = 90
"""Of all hashes so many are looked through for the largest, chosen by their size, since they are spread evenly."""
_VALUES = 16384
"""Of images that are hashed at once, so that they stay in the processor's cache."""
_HALF = WINDOW // 2


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
        secrets = np.frombuffer(hashlib.blake2b(key, digest_size=20, person=b"mix").digest(), np.uint32)
        self._xor, self._times = secrets[0], secrets[1:] | np.uint32(1)

    def sketches(self, images: Bytes8) -> Keys:
        """(N, H, W, C) images of 1 to 4 channels to (N, SKETCH) keys, rising.

        Places without a key hold 0; rows of images that are too flat hold nothing else. The share of keys that two rows
        have in common estimates the share of windows that the images have in common.
        """
        count, height, width, channels = images.shape
        self._fit(images.shape[1:])
        rows = images.reshape(count, height, width * channels)
        flat = (rows if self._rows is None else rows[:, self._rows]).reshape(count, -1)  # (N, n)
        found = np.zeros((count, SKETCH), np.uint32)
        if flat.shape[1] < WINDOW + channels:
            return found
        at_once = max(1, _VALUES // flat.shape[1])
        for start in range(0, count, at_once):
            part = flat[start : start + at_once]
            counted = _steps(part, channels) >= LEAST_STEPS  # (n, windows)
            hashes = self._hashes(part + self._salt)
            hashes *= counted
            for row, kept, each in zip(hashes, counted, found[start:], strict=False):
                largest = _largest(row, int(np.count_nonzero(kept)))
                each[SKETCH - len(largest) :] = largest
        return found

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

    def _hashes(self, salted: Bytes8) -> Keys:
        """(N, n) values to (N, n - 19) hashes of all windows of their levels."""
        one = np.multiply(salted, np.uint16(LEVELS), dtype=np.uint16)
        one >>= 8
        two = one[:, :-1] * np.uint16(LEVELS)
        two += one[:, 1:]
        four = two[:, :-2] * np.uint16(LEVELS**2)
        four += two[:, 2:]
        five = four[:, :-1] * np.uint16(LEVELS)
        five += one[:, 4:]
        whole = five.astype(np.uint32)
        half = whole[:, :-5] * np.uint32(LEVELS**5)  # no two are one: 5^10 < 2^32, and what follows can be undone
        half += whole[:, 5:]
        half ^= self._xor
        half *= self._times[0]
        half ^= half >> np.uint32(15)
        half *= self._times[1]
        mixed = half[:, :-_HALF] * self._times[2]
        mixed += half[:, _HALF:]
        mixed ^= mixed >> np.uint32(16)
        mixed *= self._times[3]
        return np.asarray(mixed)


def _largest(hashes: Keys, windows: int) -> Keys:
    """The `SKETCH` largest of the hashes of so many windows, the rest being 0; rising."""
    if windows < LEAST_WINDOWS:
        return hashes[:0]
    likely = hashes[hashes > np.uint32(2**32 * max(0.0, 1 - LIKELY / windows))]
    if len(likely) < SKETCH and len(likely) < windows:
        likely = hashes[hashes > 0]
    likely.sort()
    return likely[-SKETCH:]


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
