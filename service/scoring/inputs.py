"""What is to be scored: the files that the inputs name, always in the same order, cut into pieces."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from service.errors import SetupError
from service.files import SUFFIXES, check_path

__all__ = ["ENDINGS", "Entry", "Kind", "Piece", "Survey", "cut", "entries", "is_image", "survey"]

PIECE_BYTES = 64 * 2**20
"""Of archives: small ones share a piece, so that each does not make a small file of its own."""


class Kind(StrEnum):
    """How a file is read."""

    IMAGE = "image"
    ZIP = "zip"
    TAR = "tar"
    PARQUET = "parquet"
    LIST = "list"


ENDINGS = {
    ".zip": Kind.ZIP,
    ".tar": Kind.TAR,
    ".tar.gz": Kind.TAR,
    ".tgz": Kind.TAR,
    ".tar.bz2": Kind.TAR,
    ".tar.xz": Kind.TAR,
    ".parquet": Kind.PARQUET,
    ".txt": Kind.LIST,
}
"""Endings of names, and how such a file is read; any other that is named is an image."""

_ARCHIVES = tuple(ending for ending, kind in ENDINGS.items() if kind is not Kind.LIST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file: an image, or an archive of images."""

    path: str
    """As the inputs name it; relative to the current directory when they are."""
    kind: Kind
    size: int
    """Bytes; 0 for what cannot be looked up."""
    mtime_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Neighbouring files that are read in one go."""

    number: int
    entries: tuple[Entry, ...]

    @property
    def weight(self) -> float:
        """Bytes of its files, by which progress is told."""
        return float(sum(entry.size for entry in self.entries))


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a first look at the inputs finds."""

    files: int
    size: int
    """Bytes of all files."""
    fingerprint: str
    """Of the names, sizes and times of change of all files, in their order."""
    first_parquet: str | None


def is_image(name: str) -> bool:
    """Whether a name ends as images do.

    >>> [is_image(name) for name in ("a/b.PNG", "b.txt", ".png")]
    [True, False, False]
    """
    return os.path.splitext(name)[1].lower() in SUFFIXES


def entries(inputs: Sequence[Path]) -> Iterator[Entry]:
    """The files in order, each as it is found: of a folder all images and archives below, of a list what it names.

    The names of one folder are held at a time.

    Raises:
        SetupError: an input does not exist or cannot be read, or a folder below it.
    """
    for path in inputs:
        check_path(path)
        kind = _kind(path.name)
        if path.is_dir():
            yield from _below(str(path))
        elif kind is Kind.LIST:
            yield from _listed(path)
        else:
            yield _entry(str(path), kind)


def survey(inputs: Sequence[Path]) -> Survey:
    """Looks at every file's name, size and time of change, and reads none.

    Raises:
        SetupError: as `entries`; or there is no file.
    """
    digest, files, size, first_parquet = hashlib.sha256(), 0, 0, None
    for entry in entries(inputs):
        digest.update(f"{entry.path}\0{entry.size}\0{entry.mtime_ns}\n".encode("utf-8", "surrogateescape"))
        files, size = files + 1, size + entry.size
        if first_parquet is None and entry.kind is Kind.PARQUET:
            first_parquet = entry.path
    if not files:
        wanted = ", ".join(sorted((*SUFFIXES, *_ARCHIVES)))
        raise SetupError(f"{', '.join(map(str, inputs))}: no image and no archive of images ({wanted})")
    return Survey(files=files, size=size, fingerprint=digest.hexdigest()[:32], first_parquet=first_parquet)


def cut(inputs: Sequence[Path], most_images: int) -> Iterator[Piece]:
    """The pieces of the inputs; the same ones as long as the files are the same.

    Args:
        most_images: files of a piece at most. An archive is never cut, however many images it holds.

    Raises:
        SetupError: as `entries`.
    """
    number, archived = 0, 0
    held: list[Entry] = []
    for entry in entries(inputs):
        held.append(entry)
        archived += 0 if entry.kind is Kind.IMAGE else entry.size
        if len(held) == most_images or archived >= PIECE_BYTES:
            yield Piece(number=number, entries=tuple(held))
            number, archived = number + 1, 0
            held.clear()
    if held:
        yield Piece(number=number, entries=tuple(held))


def _kind(name: str) -> Kind:
    lowered = name.lower()
    return next((kind for ending, kind in ENDINGS.items() if lowered.endswith(ending)), Kind.IMAGE)


def _below(folder: str) -> Iterator[Entry]:
    """Of links those to files are followed, as when images are found for `detect`; one to nothing is a lost image."""
    try:
        with os.scandir(folder) as found:
            names = sorted(
                (one.name, one.is_dir(follow_symlinks=False))
                for one in found
                if is_image(one.name) or one.name.lower().endswith(_ARCHIVES) or one.is_dir(follow_symlinks=False)
            )
    except OSError as error:
        raise SetupError(f"{folder}: cannot be read: {error.strerror}") from error
    for name, is_folder in names:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _below(path)
        elif os.path.isfile(path) or not os.path.exists(path):
            yield _entry(path, _kind(name))


def _listed(path: Path) -> Iterator[Entry]:
    try:
        with path.open("rb") as lines:
            for line in lines:
                if name := os.fsdecode(line.rstrip(b"\r\n")):
                    kind = _kind(name)
                    yield _entry(name, Kind.IMAGE if kind is Kind.LIST else kind)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error


def _entry(path: str, kind: Kind) -> Entry:
    """What is wrong with a file is said in its row when it is read."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a NUL in a list is a ValueError
        return Entry(path=path, kind=kind, size=0, mtime_ns=0)
    size = found.st_size if stat.S_ISREG(found.st_mode) else 0
    return Entry(path=path, kind=kind, size=size, mtime_ns=found.st_mtime_ns)
