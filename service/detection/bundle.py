"""A bundle on disk: written whole or not at all, read only when nothing about it is in doubt."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.detection.calibration import Calibration
from service.detection.graph import GraphShape
from service.detection.images import PREPROCESSING_ID
from service.detection.manifest import FileEntry, Manifest
from service.errors import BundleError
from service.history.calibration import Calibration as HistoryCalibration
from service.history.fitting import check_fits

__all__ = [
    "FILES",
    "HISTORY",
    "RESIZE",
    "Bundle",
    "check_room",
    "file_entries",
    "find_bundle",
    "load_bundle",
    "read_files",
    "write_bundle",
]

MANIFEST = "manifest.json"
FILES = ("model.onnx", "calibration.npz", "report.json", "model_card.md")
"""What a bundle holds beside its manifest."""

RESIZE = "resize.onnx"
"""What it may hold besides; then images of any height and width are taken."""

HISTORY = "history.npz"
"""Another; then the query history knows what benign traffic looks like to this graph."""

SHIPPED = Path(__file__).parent.parent / "bundles"


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """A checked bundle in memory; the graph's bytes are those whose checksum was verified."""

    path: Path
    manifest: Manifest
    calibration: Calibration
    graph: bytes
    resize: bytes | None
    """The graph that images of another size go through; None refuses them."""
    calibration_id: str
    """Equal ids mean comparable p-values: a digest over graphs, calibration and decode rules."""
    history: HistoryCalibration | None = None
    """Of the query history, whose p-values are its own; None: the bundle has none."""

    @property
    def graph_shape(self) -> GraphShape:
        """What the graph must take and give."""
        return GraphShape(
            height=self.manifest.input.height,
            width=self.manifest.input.width,
            channels=self.manifest.input.channels,
            classes=len(self.manifest.class_names),
            embedding=self.manifest.embedding_dim,
            detectors=len(self.manifest.detectors),
        )


def find_bundle(name: str) -> Path:
    """A directory, or the name of a shipped bundle.

    A folder that happens to have a shipped bundle's name, and is no bundle, does not hide it.

    Raises:
        BundleError: it is neither.
    """
    if not name:  # such as "$UNSET"
        raise BundleError(f"expected a bundle's directory or the name of a shipped one ({_shipped()}), got {name!r}")
    local, shipped_one = Path(name), SHIPPED / name
    with contextlib.suppress(OSError):  # a name too long, a folder that may not be entered
        if local.is_dir() and ((local / MANIFEST).exists() or not shipped_one.is_dir()):
            return local
    with contextlib.suppress(OSError):
        if shipped_one.is_dir():
            return shipped_one
    raise BundleError(f"{name[:200]}: no such bundle directory; shipped bundles: {_shipped()}")


def _shipped() -> str:
    return ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}")) or ["none"])


def load_bundle(path: Path, *, reads_history: bool = True) -> Bundle:
    """Reads and checks a bundle.

    Args:
        reads_history: False passes over what the query history's calibration says, for who will replace it.

    Raises:
        BundleError: names the file and the reason: a file missing, extra or changed, an unknown format version,
            calibration that is not finite or not in order, or of another number of detectors or classes; or one of the
            query history that cannot be of this graph.
    """
    manifest_text = _read(path / MANIFEST).decode("utf-8", errors="replace")
    try:
        manifest = Manifest.from_json(manifest_text)
    except BundleError as error:
        raise BundleError(f"{path.name}/{error}") from error
    files = read_files(path, manifest.files)
    try:
        calibration = Calibration.from_bytes(files["calibration.npz"])
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path.name}/calibration.npz: {error}") from error
    if len(calibration.detector_scores) != len(manifest.detectors):
        raise BundleError(
            f"{path.name}/calibration.npz: expected {len(manifest.detectors)} detectors as in the manifest, "
            f"got {len(calibration.detector_scores)}"
        )
    by_class = calibration.by_class
    if by_class is not None and by_class.has_own_row.size != len(manifest.class_names):
        raise BundleError(
            f"{path.name}/calibration.npz: expected {len(manifest.class_names)} classes as in the manifest, "
            f"got {by_class.has_own_row.size}"
        )
    resize = files.get(RESIZE)
    digest = hashlib.sha256()
    parts = [files["model.onnx"], files["calibration.npz"], PREPROCESSING_ID.encode()]
    for part in parts if resize is None else [*parts, resize]:
        digest.update(hashlib.sha256(part).digest())
    return Bundle(
        path=path,
        manifest=manifest,
        calibration=calibration,
        graph=files["model.onnx"],
        resize=resize,
        calibration_id=digest.hexdigest()[:16],
        history=_history(path, files[HISTORY], manifest) if reads_history and HISTORY in files else None,
    )


def _history(path: Path, content: bytes, manifest: Manifest) -> HistoryCalibration:
    try:
        history = HistoryCalibration.from_bytes(content)
        check_fits(history, dimensions=manifest.embedding_dim, alpha=manifest.default_alpha)
    except ValueError as error:
        raise BundleError(
            f"{path.name}/{HISTORY}: {error}; make it again for this bundle with `advsentry-train history`"
        ) from error
    return history


def read_files(path: Path, entries: Mapping[str, FileEntry]) -> dict[str, bytes]:
    """The content of every file of a bundle, checked against its manifest.

    Raises:
        BundleError: a file is missing, extra or changed.
    """
    if set(entries) - {RESIZE, HISTORY} != set(FILES):
        raise BundleError(
            f"{path.name}/{MANIFEST}: expected the files {sorted(FILES)} and at most {RESIZE} and {HISTORY}, "
            f"got {sorted(entries)}"
        )
    try:
        found = {entry.name for entry in path.iterdir()} - {MANIFEST}
    except OSError as error:
        raise BundleError(f"{path.name}: cannot be read: {error.strerror}") from error
    for name in sorted(found - set(entries)):
        raise BundleError(f"{path.name}/{name}: unexpected file; this bundle holds {MANIFEST}, {', '.join(entries)}")
    files = {name: _read(path / name) for name in entries}
    for name, content in files.items():
        _verify(path / name, content, entries[name])
    return files


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes], *, replace: bool = False) -> None:
    """Writes a bundle under a temporary name, then renames it.

    Args:
        manifest: its `files` must describe `files`; see `file_entries`.
        replace: whether a bundle of that name may be replaced.

    Raises:
        BundleError: something stands at `path` already, or is no bundle that could be replaced.
    """
    check_room(path, replace=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for name, content in {**files, MANIFEST: manifest.to_json().encode()}.items():
            _write(made / name, content)
        made.chmod(0o755)
        load_bundle(made)  # what would be refused later is not left behind
        if path.exists():
            old = made.with_name(made.name + "-old")
            path.rename(old)
            made.rename(path)
            shutil.rmtree(old)
        else:
            made.rename(path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def check_room(path: Path, *, replace: bool) -> None:
    """Refuses a place that write_bundle would refuse.

    Raises:
        BundleError: as for write_bundle.
    """
    if path.exists() and not (replace and (path / MANIFEST).exists()):
        hint = (
            "choose another --out, or replace it with --force"
            if (path / MANIFEST).exists()
            else "it is no bundle; choose another --out"
        )
        raise BundleError(f"{path}: exists already; {hint}")
    above = next((parent for parent in path.parents if parent.exists()), path)
    if above != path and not above.is_dir():
        raise BundleError(f"{path}: expected a place in a folder, got the file {above} above it; choose another --out")


def file_entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """The manifest's entry of each file."""
    return {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in files.items()
    }


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path.parent.name}/{path.name}: missing; a bundle without it cannot be used") from None
    except OSError as error:
        raise BundleError(f"{path.parent.name}/{path.name}: cannot be read: {error.strerror}") from error


def _verify(path: Path, content: bytes, entry: FileEntry) -> None:
    if len(content) != entry.size:
        raise BundleError(f"{path.parent.name}/{path.name}: expected {entry.size} bytes, got {len(content)}")
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise BundleError(
            f"{path.parent.name}/{path.name}: changed since it was exported: expected sha-256 "
            f"{entry.sha256[:12]}..., got {found[:12]}...; copy or export the bundle again"
        )
