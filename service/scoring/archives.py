"""Images of an archive, one after the other: zip, tar as WebDataset lays it out, Parquet."""

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from service.errors import ErrorReason, InvalidRequest, SetupError
from service.files import check_size
from service.scoring.inputs import Entry, Kind, is_image

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Member", "image_column", "members"]

PARQUET_ROWS = 16
"""Rows of a Parquet file that are in memory at once."""
PARQUET_BUFFER = 2**20
"""Bytes that are read of a column at a time, instead of all that it has in a row group."""
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


class Member(NamedTuple):
    """One image before it is read."""

    path: str
    weight: float
    """Bytes of the file that it takes, by which progress is told."""
    load: Callable[[], bytes | None]
    """Its bytes; None for a file that is read where it is decoded. Ask before the next one. Raises InvalidRequest."""


def members(entry: Entry, *, root: str, column: str, most_bytes: int) -> Iterator[Member]:
    """The images of a file in their order, read as they are asked for.

    What is wrong with an archive itself is the error of one member that stands for the rest of it.

    Args:
        root: what relative paths are relative to.
        column: of the images of a Parquet file; empty for the only one that can be it.
        most_bytes: a larger image is not read at all.
    """
    if entry.kind is Kind.IMAGE:
        yield Member(entry.path, entry.size, lambda: None)
        return
    try:
        with _opened(os.path.join(root, entry.path)) as file:
            if entry.kind is Kind.ZIP:
                yield from _zip(file, entry.path, most_bytes)
            elif entry.kind is Kind.TAR:
                yield from _tar(file, entry.path, most_bytes)
            else:
                yield from _parquet(file, entry, column, most_bytes)
    except (*_DAMAGED, SetupError) as error:
        yield Member(entry.path, 0.0, partial(_raise, f"the archive cannot be read on: {_said(error)}"))


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would never end
        raise OSError(0, "expected a file, got a folder, a pipe or a device")
    with open(path, "rb") as file:
        yield file


def _raise(message: str, reason: ErrorReason | None = None) -> bytes | None:
    raise InvalidRequest(message, reason=reason, field="image")


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _zip(file: IO[bytes], path: str, most_bytes: int) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.filelist:
            if is_image(info.filename) and not info.is_dir():
                load = partial(_zip_member, archive, info, most_bytes)
                yield Member(f"{path}/{info.filename}", info.compress_size, load)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most_bytes: int) -> bytes:
    check_size(info.file_size, most_bytes)
    try:
        return archive.read(info)  # never more than file_size
    except (*_DAMAGED, RuntimeError, NotImplementedError) as error:  # RuntimeError: a password is wanted
        raise InvalidRequest(f"cannot be read: {_said(error)}", field="image") from error


class _Header(tarfile.TarInfo):
    """A damaged header is an error, where `tarfile` would take it for the end and lose what follows."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in its __all__
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}; it may be cut short") from error


def _tar(file: IO[bytes], path: str, most_bytes: int) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header) as archive:
        told = 0
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            if is_image(info.name) and not info.isdir():
                weight, told = file.tell() - told, file.tell()
                yield Member(f"{path}/{info.name}", weight, partial(_tar_member, archive, info, most_bytes))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, most_bytes: int) -> bytes:
    check_size(info.size, most_bytes)
    content = archive.extractfile(info) if info.isreg() else None
    if content is None:
        raise InvalidRequest("expected an image file, got a link or a device in an archive", field="image")
    try:
        return content.read()
    except _DAMAGED as error:
        raise InvalidRequest(f"cannot be read: {_said(error)}", field="image") from error


def _parquet(file: IO[bytes], entry: Entry, column: str, most_bytes: int) -> Iterator[Member]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, buffer_size=PARQUET_BUFFER, pre_buffer=False) as table:
            leaf = image_column(table.schema_arrow, column, entry.path)
            weight = entry.size / max(1, table.metadata.num_rows)
            number = 0
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=[leaf]):
                for value in batch.column(0):
                    yield Member(f"{entry.path}#{number}", weight, partial(_cell, value, most_bytes))
                    number += 1
    except pa.ArrowException as error:
        raise OSError(0, str(error).splitlines()[0]) from error


def _cell(value: Any, most_bytes: int) -> bytes:
    content = value.as_py()
    if isinstance(content, dict):
        content = content["bytes"]
    if content is None:
        raise InvalidRequest("expected an encoded image, got null", reason=ErrorReason.EMPTY_IMAGE, field="image")
    check_size(len(content), most_bytes)
    return bytes(content)


def image_column(schema: "pa.Schema", wanted: str, path: str) -> str:
    """The column of encoded images: of bytes, or of structs with the field `bytes`, as data sets of images have it.

    Args:
        schema: of the Parquet file at `path`.
        wanted: its name; empty for the only one that there is.

    Returns:
        The name by which its bytes alone are read.

    Raises:
        SetupError: there is none, or several and none is wanted.
    """
    found = {field.name: leaf for field in schema if (leaf := _leaf(field))}
    if wanted in found:
        return found[wanted]
    if wanted or len(found) != 1:
        expected = f"the column {wanted}" if wanted else "one column"
        raise SetupError(
            f"{path}: expected {expected} of encoded images, bytes or structs with the field bytes; found "
            f"{', '.join(found) or 'none'}; name it with --column"
        )
    return next(iter(found.values()))


def _leaf(field: "pa.Field") -> str | None:
    import pyarrow as pa

    def is_bytes(kind: "pa.DataType") -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    if is_bytes(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type) and any(one.name == "bytes" and is_bytes(one.type) for one in field.type):
        return f"{field.name}.bytes"
    return None
