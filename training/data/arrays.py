"""Sets in one .npz file."""

import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import SetupError
from training.data.roots import need_file, need_root
from training.data.types import DataSet, ImageSet
from training.differences import listed

__all__ = ["gtsrb32", "npz"]

Arrays = Mapping[str, NDArray[np.generic]]
NEEDED = ("train_images", "train_labels", "test_images", "test_labels")


def npz(root: Path | None) -> DataSet:
    """Any set in an .npz file, the root being the file itself.

    It holds train_images, train_labels, test_images, test_labels and may hold train_tracks, class_names.
    """
    path = need_file("npz", need_root("npz", root))
    arrays = _read(path)
    return _data_set(path.stem, _class_names(path.stem, arrays), arrays)


def gtsrb32(root: Path | None) -> DataSet:
    """German traffic signs at 32x32 from root/gtsrb32.npz; training images come in tracks.

    Source: Stallkamp et al. 2012. Frames of a track show the same sign: split by track, never by image.
    """
    path = need_file("gtsrb32", need_root("gtsrb32", root) / "gtsrb32.npz")
    arrays = _read(path)
    if "train_tracks" not in arrays:
        raise SetupError(f"{path}: expected the array train_tracks, found {', '.join(sorted(arrays))}")
    return _data_set("gtsrb32", GTSRB_CLASSES, arrays)


def _read(path: Path) -> Arrays:
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise SetupError(f"{path}: expected an .npz file of several arrays, got a single array")
        with content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, AttributeError, zlib.error, zipfile.BadZipFile) as error:
        raise SetupError(f"{path}: expected an .npz file of plain arrays, got: {error}") from error
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise SetupError(f"{path}: expected the arrays {', '.join(NEEDED)}, {', '.join(missing)} missing")
    return arrays


def _class_names(name: str, arrays: Arrays) -> list[str]:
    """Those in the file, or else the class numbers."""
    if "class_names" not in arrays:
        return _numbers(name, arrays["train_labels"])
    given = arrays["class_names"]
    if given.ndim != 1:
        raise SetupError(f"{name}: class_names: expected a list of names, got an array of shape {given.shape}")
    names = [str(class_name) for class_name in given]
    twice = [class_name for class_name, count in Counter(names).items() if count > 1]
    if twice:
        raise SetupError(
            f"{name}: class_names: expected each name once, got {twice[0]!r} for the classes "
            f"{listed([str(label) for label, found in enumerate(names) if found == twice[0]])}; name them apart"
        )
    return names


def _numbers(name: str, labels: NDArray[np.generic]) -> list[str]:
    """One for each class up to the largest label.

    A class without training images is refused later, by name. One wrong label can be billions, though: where most
    classes below it would be empty, it is the label that is told.
    """
    if not labels.size or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return []  # refused with their shape and type, or for want of images
    largest, found = int(labels.max()), len(np.unique(labels))
    if largest + 1 > 2 * found:
        raise SetupError(
            f"{name}: expected train labels that number the classes from 0 without gaps, got {largest} at image "
            f"{labels.argmax()} where only {found} labels occur; mend that label or number the classes anew"
        )
    return [str(number) for number in range(largest + 1)]


def _data_set(name: str, class_names: Sequence[str], arrays: Arrays) -> DataSet:
    train, test = _images(name, "train_images", arrays), _images(name, "test_images", arrays)
    return DataSet(
        name=name,
        class_names=tuple(class_names),
        train=ImageSet(
            images=train,
            labels=_whole(name, "train_labels", arrays, len(train)),
            tracks=_whole(name, "train_tracks", arrays, len(train)) if "train_tracks" in arrays else None,
        ),
        test=ImageSet(images=test, labels=_whole(name, "test_labels", arrays, len(test))),
    )


def _images(name: str, key: str, arrays: Arrays) -> NDArray[np.uint8]:
    array = arrays[key]
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise SetupError(
            f"{name}: {key}: expected uint8 (N, H, W, C), got {array.dtype} {array.shape}{_range(array)}; "
            "store values from 0 to 255 (images in [0, 1] times 255, rounded) as uint8"
        )
    images = array.astype(np.uint8, copy=False)
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[3] not in (1, 3):
        raise SetupError(
            f"{name}: {key}: expected 1 (grey) or 3 (RGB) channels, got {images.shape[3]}; "
            "drop the others, and move channels to the last axis"
        )
    return images


def _range(array: NDArray[np.generic]) -> str:
    if not array.size or not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        return ""
    return f" from {array.min():g} to {array.max():g}"


def _whole(name: str, key: str, arrays: Arrays, count: int) -> NDArray[np.int64]:
    array = arrays[key]
    if not np.issubdtype(array.dtype, np.integer):
        raise SetupError(f"{name}: {key}: expected whole numbers, got {array.dtype}; store them as int64")
    if array.shape != (count,):
        raise SetupError(
            f"{name}: {key}: expected shape ({count},), one number for each image, got {array.shape}; "
            "give images and numbers in one order"
        )
    return array.astype(np.int64)


GTSRB_CLASSES = (
    *("speed 20", "speed 30", "speed 50", "speed 60", "speed 70", "speed 80", "end of speed 80", "speed 100"),
    *("speed 120", "no passing", "no passing for trucks", "right of way at next crossing", "priority road"),
    *("yield", "stop", "no vehicles", "no trucks", "no entry", "danger", "curve left", "curve right"),
    *("double curve", "bumpy road", "slippery road", "road narrows right", "road works", "traffic signals"),
    *("pedestrians", "children", "bicycles", "ice or snow", "wild animals", "end of all limits"),
    *("turn right", "turn left", "ahead only", "ahead or right", "ahead or left", "keep right", "keep left"),
    *("roundabout", "end of no passing", "end of no passing for trucks"),
)
