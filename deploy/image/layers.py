"""An image that buildah wrote to a folder (`dir:`): its settings, and the files of the layers that are ours."""

import gzip
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["PACKAGE", "Content", "Image", "content_of"]

MB = 1e6
SECRET_NAME = re.compile(
    r"(^|/)(\.git|\.env|\.netrc|\.pypirc|pip\.conf|id_(rsa|ed25519|ecdsa)|[^/]*\.(key|token|p12|pfx))(/|$)"
)
SECRET_TEXT = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{32}|://(?![\[<{])[^/\s:@]+:(?![\[<{*])[^/\s@]+@"
)
"""Of an address with a password, what is no placeholder of a manual: `[user:password@]`, `user:***@`."""
TEST_NAME = re.compile(r"(^|/)(tests?|conftest\.py|test_[^/]*\.py)(/|$)")
PACKAGE = re.compile(r"(?:^|/)([A-Za-z0-9._]+)-([^/-]+)\.dist-info(?:/|$)")
LARGEST_TEXT = 1_000_000
"""Bytes of a file that is searched for secrets; larger ones are graphs and libraries."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """What the folder holds."""

    config: Mapping[str, Any]
    """Of a container: `User`, `Entrypoint`, `Healthcheck` and so on."""
    history: tuple[str, ...]
    layers: tuple[Path, ...]
    """Archives from the lowest to the highest; plain or by gzip."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads it."""
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        whole = json.loads(_blob(folder, manifest["config"]).read_text(encoding="utf-8"))
        return cls(
            config=whole["config"],
            history=tuple(entry.get("created_by", "") for entry in whole["history"]),
            layers=tuple(_blob(folder, layer) for layer in manifest["layers"]),
        )


def _blob(folder: Path, entry: Mapping[str, str]) -> Path:
    return folder / entry["digest"].partition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Content:
    """Our layers, looked through."""

    size_mb: float
    compressed_mb: float
    files: int
    secrets: tuple[str, ...]
    tests: tuple[str, ...]
    writable: tuple[str, ...]
    """Files that others than root may change."""
    packages: Mapping[str, str]
    """Versions by the name of a distribution, in small letters with hyphens."""


def content_of(layers: tuple[Path, ...]) -> Content:
    """Looks through archives."""
    found: dict[str, list[str]] = {"secrets": [], "tests": [], "writable": []}
    size, compressed, files = 0, 0, 0
    packages: dict[str, str] = {}
    for layer in layers:
        size += layer.stat().st_size
        compressed += len(gzip.compress(layer.read_bytes(), 6))
        for member, text in _members(layer):
            files += member.isfile()
            if SECRET_NAME.search(member.name) or SECRET_TEXT.search(text):
                found["secrets"].append(member.name)
            if TEST_NAME.search(member.name):
                found["tests"].append(member.name)
            if not member.issym() and (member.uid, member.gid, member.mode & 0o022) != (0, 0, 0):
                found["writable"].append(member.name)
            if package := PACKAGE.search(member.name):
                packages[re.sub(r"[-_.]+", "-", package[1]).lower()] = package[2]
    lists = {name: tuple(names) for name, names in found.items()}
    return Content(size_mb=size / MB, compressed_mb=compressed / MB, files=files, packages=packages, **lists)


def _members(layer: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Entries, and the text of those that may be one."""
    with tarfile.open(layer) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() and member.size <= LARGEST_TEXT else None
            content = b"" if stream is None else stream.read()
            yield member, content if b"\0" not in content[:1024] else b""
