"""The same images as a folder, a zip, a tar and a Parquet file, and what a run wrote of them."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests import tiny


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(count: int, *, seed: int = 0) -> list[bytes]:
    """Clean images, every fifth one all white."""
    images = tiny.images(count, seed=seed)
    images[::5] = tiny.odd_image()
    return [png(image) for image in images]


def folder(path: Path, contents: list[bytes]) -> Path:
    for number, content in enumerate(contents):
        place = path / f"{number // 10:03d}" / f"{number:05d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return path


def zipped(path: Path, contents: list[bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", "no image")
        for number, content in enumerate(contents):
            archive.writestr(f"in/{number:05d}.png", content)
    return path


def tarred(path: Path, contents: list[bytes], mode: str = "w") -> Path:
    """As WebDataset lays it out: files that share a name up to the dot are one sample."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for number, content in enumerate(contents):
            for ending, data in (("cls", b"3"), ("png", content)):
                info = tarfile.TarInfo(f"{number:05d}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def tabled(path: Path, contents: list[bytes | None], *, structs: bool = False, name: str = "image") -> Path:
    values: list[Any] = [{"bytes": one, "path": "x"} for one in contents] if structs else contents
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if structs else pa.binary()
    table = pa.table({"id": list(range(len(contents))), name: pa.array(values, kind)})
    pq.write_table(table, path, row_group_size=7)
    return path


def rows(out: Path) -> list[dict[str, Any]]:
    """Every row of every shard, in the order of the names of the files."""
    return [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def answers(out: Path) -> list[dict[str, Any]]:
    """The same without paths."""
    return [{name: value for name, value in row.items() if name != "path"} for row in rows(out)]
