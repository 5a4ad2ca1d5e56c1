"""An operator's own benign streams: a folder of folders or zip files, each a stream of images in their names' order."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service.detection.engine import Engine
from service.detection.images import ImageLimits, decode_image
from service.detection.types import Bytes8
from service.errors import InvalidRequest, SetupError
from training.history.kinds import OWN
from training.history.traffic import Stream

__all__ = ["own_streams"]

PACE_S = 1.0
STARTS_S = 1800.0
"""Streams start within so many seconds: they are played together, as one hour of traffic."""


def own_streams(folder: Path, engine: Engine) -> list[Stream]:
    """Every stream of a folder, each of a client of its own.

    Raises:
        SetupError: it holds something else, a stream without images, or an image that the bundle does not take.
    """
    if not folder.is_dir():
        raise SetupError(f"--streams: expected a folder with a folder or zip file for each stream, got {folder}")
    places = sorted(place for place in folder.iterdir() if not place.name.startswith("."))
    if not places:
        raise SetupError(f"--streams: expected a folder or zip file for each stream in {folder}, found none")
    return [
        _stream(place.name, _images(place, engine), starts=STARTS_S * number / len(places))
        for number, place in enumerate(places)
    ]


def _stream(name: str, images: Bytes8, *, starts: float) -> Stream:
    times = starts + PACE_S * np.arange(len(images))
    return Stream(kind=OWN, images=images, clients=(f"{OWN} {name}",) * len(images), times=tuple(times.tolist()))


def _images(place: Path, engine: Engine) -> Bytes8:
    limits, shape = ImageLimits(), engine.bundle.manifest.input
    made = []
    for name, content in _files(place, limits):
        try:
            made.append(decode_image(content, shape, limits, resizer=engine.resizer))
        except InvalidRequest as error:
            raise SetupError(f"{place}/{name}: {error}") from error
    if not made:
        raise SetupError(f"{place}: expected a stream of images, found none")
    return np.stack(made)


def _files(place: Path, limits: ImageLimits) -> Iterator[tuple[str, bytes]]:
    """Name and content, by name."""
    if place.is_dir():
        for path in sorted(place.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                yield path.name, path.read_bytes()
        return
    try:
        with zipfile.ZipFile(place) as archive:
            for info in sorted(archive.infolist(), key=lambda one: one.filename):
                if info.is_dir():
                    continue
                if info.file_size > limits.max_bytes:  # before it is unpacked
                    raise SetupError(
                        f"{place}/{info.filename}: expected at most {limits.max_bytes} bytes, got {info.file_size}"
                    )
                yield info.filename, archive.read(info)
    except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:  # RuntimeError: encrypted
        raise SetupError(f"{place}: expected a folder or a zip file of images, got: {error}") from error
