"""Maps over frequencies as small coloured pictures."""

import numpy as np

from service.detection.types import Bytes8, Float64s

__all__ = ["KEY", "coloured"]

# Dark to light, so that it also reads in grey; told apart by people who see few colours.
_COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=np.float64)


def coloured(values: Float64s, low: float, high: float) -> Bytes8:
    """A map (H, W) as a picture (H, W, 3): `low` is dark violet, `high` is yellow."""
    place = ((values - low) / max(high - low, 1e-12)).clip(0, 1) * (len(_COLOURS) - 1)
    channels = [np.interp(place, np.arange(len(_COLOURS)), channel) for channel in _COLOURS.T]
    return np.asarray(np.rint(np.stack(channels, axis=-1)).astype(np.uint8))


KEY = coloured(np.linspace(0, 1, 64)[None], 0, 1)
"""The scale itself, (1, 64, 3)."""
