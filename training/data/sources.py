"""Where sets can be had in public, and how to know that what came is whole."""

import hashlib
import http.client
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from service.errors import SetupError

__all__ = ["SOURCES", "Source", "digest", "download"]

CHUNK = 1 << 20
TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """One public file."""

    url: str
    sha256: str
    """Of the file, in hexadecimal."""

    @property
    def name(self) -> str:
        """The file's own name, under which the readers look for it."""
        return self.url.rsplit("/", 1)[1]


MNIST_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist"

SOURCES: Mapping[str, tuple[Source, ...]] = {
    "mnist": (
        Source(
            url=f"{MNIST_MIRROR}/train-images-idx3-ubyte.gz",
            sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        Source(
            url=f"{MNIST_MIRROR}/train-labels-idx1-ubyte.gz",
            sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        Source(
            url=f"{MNIST_MIRROR}/t10k-images-idx3-ubyte.gz",
            sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        Source(
            url=f"{MNIST_MIRROR}/t10k-labels-idx1-ubyte.gz",
            sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "cifar10": (
        Source(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
}


def download(name: str, root: Path | None) -> None:
    """Fetches the public files of a set into the data folder, those that are there already aside.

    Args:
        name: a key of SOURCES.
        root: the folder, made where it is missing.

    Raises:
        SetupError: no folder, a set without a public address, no connection, or a file with another checksum.
    """
    if name not in SOURCES:
        raise SetupError(f"--download: expected one of the sets {', '.join(SOURCES)}, got {name}")
    if root is None:
        raise SetupError("--download: expected a folder to keep the data in, got none; name it with --data")
    root.mkdir(parents=True, exist_ok=True)
    for source in SOURCES[name]:
        if not (root / source.name).exists():
            sys.stderr.write(f"downloading {source.url}\n")
            _fetch(source, root / source.name)


def _fetch(source: Source, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT_S) as answer, part.open("wb") as file:
            while content := answer.read(CHUNK):
                file.write(content)
        with part.open("rb") as file:
            found = digest(file)
        if found != source.sha256:
            raise SetupError(
                f"{source.url}: expected a file of SHA-256 {source.sha256}, got {found}; "
                f"try again, or put the right file at {path}"
            )
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise SetupError(
            f"{source.url}: expected to download it to {path}, got: {error}; try again, or put it there by hand"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def digest(file: BufferedReader) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    return hashlib.file_digest(file, "sha256").hexdigest()
