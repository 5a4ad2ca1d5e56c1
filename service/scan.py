"""Image files to detections, by a server or in this process."""

import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from service.client import Client, Options
from service.detection.bundle import find_bundle
from service.detection.engine import MAX_ALPHA, Engine
from service.detection.images import ImageLimits, decode_image
from service.detection.types import Bytes8, Detection
from service.detection.verdict import RevealMode, Wish, alpha_steps, check_step, judge, reveal
from service.errors import AdvsentryError, ErrorReason, InvalidRequest, SetupError

__all__ = ["find_images", "scan_here", "scan_remote"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
BATCH = 64
Result = tuple[Path, Detection | AdvsentryError]


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those below the folders named that end as images do, in order.

    Raises:
        SetupError: a path does not exist, cannot be read or is no file, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        _check_path(path)
        if path.is_dir():
            inside = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in SUFFIXES and entry.is_file())
            if not inside:
                raise SetupError(f"{path}: no image in this folder ({', '.join(sorted(SUFFIXES))})")
            found += inside
        else:
            found.append(path)
    return found


def _check_path(path: Path) -> None:
    """Refuses what does not exist, and what never ends, such as a pipe or a device."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            next(path.iterdir(), None)
    except FileNotFoundError:
        raise SetupError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise SetupError(f"{_shortened(path)}: cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SetupError(f"{path}: expected an image file or a folder, got a pipe or a device")


def _shortened(path: Path, most: int = 200) -> str:
    text = str(path)
    return text if len(text) <= most else f"...{text[-most:]}"  # the end tells more than the beginning


def scan_remote(client: Client, paths: Iterable[Path], alpha: float | None) -> Iterator[Result]:
    """Detections by a server, in order; the files are read as the server takes them."""
    most = client.info().max_message_bytes - 1024  # what surrounds the file in its message
    planned = [(path, _why_not(path, most)) for path in paths]
    unread: dict[Path, AdvsentryError] = {}
    contents = (_content(path, unread) for path, error in planned if error is None)
    answers = client.detect_stream(contents, Options(alpha=alpha))
    for path, error in planned:
        if error is None:
            answer = next(answers, AdvsentryError("the server ended the stream without an answer"))
            error = unread.get(path)
            yield path, answer if error is None else error
        else:
            yield path, error


def _content(path: Path, unread: dict[Path, AdvsentryError]) -> bytes:
    """A file's bytes; what went wrong is left in `unread`, since an error here would end the whole stream."""
    try:
        return path.read_bytes()
    except OSError as error:
        unread[path] = InvalidRequest(f"cannot be read: {error.strerror}")
        return b""


def _why_not(path: Path, most_bytes: int) -> AdvsentryError | None:
    """Why a file cannot be sent."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return InvalidRequest(f"cannot be read: {error.strerror}")
    if size > most_bytes:
        return InvalidRequest(f"expected at most {most_bytes} bytes, got {size}", reason=ErrorReason.TOO_MANY_BYTES)
    return None


def scan_here(bundle: str, paths: Sequence[Path], alpha: float | None, mode: RevealMode) -> Iterator[Result]:
    """Detections by a bundle in this process, through the code that the server uses."""
    engine = Engine.load(find_bundle(bundle))
    alpha = engine.resolve_alpha(alpha)
    if mode is not RevealMode.SCORES:
        check_step(alpha, alpha_steps(engine.bundle.calibration, engine.bundle.manifest.default_alpha, MAX_ALPHA))
    for start in range(0, len(paths), BATCH):
        chunk = paths[start : start + BATCH]
        decoded = [_decoded(engine, bundle, path) for path in chunk]
        yield from zip(chunk, _detect(engine, decoded, alpha, mode), strict=True)


def _decoded(engine: Engine, bundle: str, path: Path) -> Bytes8 | AdvsentryError:
    limits = ImageLimits()
    if (why_not := _why_not(path, limits.max_bytes)) is not None:
        return why_not
    try:
        return decode_image(path.read_bytes(), engine.bundle.manifest.input, limits, resizer=engine.resizer)
    except OSError as error:
        return InvalidRequest(f"cannot be read: {error.strerror}")
    except InvalidRequest as error:
        if error.reason is ErrorReason.WRONG_SIZE:  # often the default bundle, which nobody chose
            return InvalidRequest(f"{error}; --bundle: expected one for such images, got {bundle}", reason=error.reason)
        return error


def _detect(
    engine: Engine, images: Sequence[Bytes8 | AdvsentryError], alpha: float, mode: RevealMode
) -> list[Detection | AdvsentryError]:
    good = [image for image in images if not isinstance(image, AdvsentryError)]
    if not good:
        return [image for image in images if isinstance(image, AdvsentryError)]
    judged = judge(engine.measure(np.stack(good)), engine.bundle, alpha)
    rows = iter(reveal(judged, mode, Wish()).detections())
    return [image if isinstance(image, AdvsentryError) else next(rows) for image in images]
