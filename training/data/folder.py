"""Sets of image files: ROOT/train/CLASS/NAME.png and ROOT/test/CLASS/NAME.png, in a folder or a zip file."""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.errors import SetupError
from training.data.roots import need_file, need_root
from training.data.types import DataSet, ImageSet

__all__ = ["cifar10_jpeg75", "folder", "zipped"]

ENDINGS = frozenset({".png", ".jpg", ".jpeg"})
GREY_MODES = frozenset({"1", "L", "LA"})
DEEP_MODES = frozenset({"I", "I;16", "I;16B", "F"})


def folder(root: Path | None) -> DataSet:
    """The set in a folder; classes are the names of the folders in ROOT/train, sorted."""
    top = need_root("folder", root)
    files = (path for part in ("train", "test") for path in sorted((top / part).glob("*/*")) if path.is_file())
    return _data_set(top.name, top, ((path.relative_to(top).as_posix(), path.read_bytes()) for path in files))


def zipped(root: Path | None) -> DataSet:
    """The same layout in a zip file, the root being the file itself."""
    return _from_zip(need_file("zip", need_root("zip", root)))


def cifar10_jpeg75(root: Path | None) -> DataSet:
    """CIFAR-10 re-encoded as JPEG of quality 75, from root/cifar10-jpeg75.zip.

    Figures on it are not those of CIFAR-10: its clean images lack high frequencies.
    """
    name = "cifar10-jpeg75"
    return _from_zip(need_file(name, need_root(name, root) / f"{name}.zip"))


def _from_zip(path: Path) -> DataSet:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
            return _data_set(path.stem, path, ((name, archive.read(name)) for name in names))
    except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:  # RuntimeError: encrypted
        raise SetupError(f"{path}: expected a zip file, got: {error}") from error


def _data_set(name: str, place: Path, files: Iterator[tuple[str, bytes]]) -> DataSet:
    found: dict[str, list[tuple[str, NDArray[np.uint8]]]] = defaultdict(list)
    for file, content in files:
        path = PurePosixPath(file)
        if len(path.parts) == 3 and path.suffix.lower() in ENDINGS:
            found[path.parts[0]].append((path.parts[1], _decode(f"{place}/{file}", content)))
    for part in ("train", "test"):
        if not found[part]:
            raise SetupError(
                f"{place}: expected PNG or JPEG images as {part}/CLASS/NAME, found none; "
                "name the folder with --data or ADVSENTRY_DATA"
            )
    classes = sorted({label for label, _ in found["train"]})
    parts = {part: _stack(place, found[part], classes) for part in ("train", "test")}
    return DataSet(name=name, class_names=tuple(classes), train=parts["train"], test=parts["test"])


def _decode(file: str, content: bytes) -> NDArray[np.uint8]:
    """(H, W, C), grey or RGB."""
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.mode in DEEP_MODES:  # Pillow would cut every value above 255
                raise SetupError(f"{file}: expected 8 bits a channel, got 16; convert the image first")
            pixels = np.asarray(image.convert("L" if image.mode in GREY_MODES else "RGB"), dtype=np.uint8)
    except UnidentifiedImageError as error:
        start = content[:8]
        raise SetupError(f"{file}: expected a PNG or JPEG image, got a file that starts with {start!r}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SetupError(f"{file}: expected a readable PNG or JPEG image, got: {error}") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _stack(place: Path, labelled: list[tuple[str, NDArray[np.uint8]]], classes: list[str]) -> ImageSet:
    shapes = {pixels.shape for _, pixels in labelled}
    if len(shapes) > 1:
        raise SetupError(
            f"{place}: expected images of one size and number of channels, got {sorted(shapes)[:2]}; "
            "scale or convert them"
        )
    unknown = {label for label, _ in labelled} - set(classes)
    if unknown:
        raise SetupError(
            f"{place}: expected test classes that train has, got {sorted(unknown)[0]}; add its training images"
        )
    numbers = {label: number for number, label in enumerate(classes)}
    return ImageSet(
        images=np.stack([pixels for _, pixels in labelled]),
        labels=np.array([numbers[label] for label, _ in labelled], dtype=np.int64),
    )
