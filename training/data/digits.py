"""scikit-learn's digits: 1,797 grey images of 8x8, always at hand."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from training.data.types import DataSet, ImageSet, empty_like

__all__ = ["digits"]


def digits(_root: Path | None = None) -> DataSet:
    """All digits as training images; there is no test split, so the recipe's sizes make one.

    Grey values 0 to 16 become 0 to 255, rounded. Source: Alpaydin and Kaynak 1998 (UCI optdigits, test part).
    """
    loaded = load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)[..., None]
    every = ImageSet(images=images, labels=loaded.target.astype(np.int64))
    names = tuple(str(name) for name in loaded.target_names)
    return DataSet(name="digits", class_names=names, train=every, test=empty_like(every))
