"""Image files to detections, by a server or in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from service.client import Client, Options
from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.detection.images import ImageLimits, decode_image
from service.detection.types import Bytes8, Detection
from service.detection.verdict import RevealMode, Wish, judge, reveal
from service.errors import AdvsentryError, ErrorReason, InvalidRequest
from service.files import read_file
from service.scoring.scorer import applied_alpha

__all__ = ["scan_here", "scan_remote"]

BATCH = 64
Result = tuple[Path, Detection | AdvsentryError]


def scan_remote(client: Client, paths: Sequence[Path], alpha: float | None) -> Iterator[Result]:
    """Detections by a server, in order; the files are read as the server takes them."""
    yield from zip(paths, client.detect_stream(paths, Options(alpha=alpha)), strict=True)


def scan_here(bundle: str, paths: Sequence[Path], alpha: float | None, mode: RevealMode) -> Iterator[Result]:
    """Detections by a bundle in this process, through the code that the server uses."""
    engine = Engine.load(find_bundle(bundle))
    alpha = applied_alpha(engine, alpha, mode)
    for start in range(0, len(paths), BATCH):
        chunk = paths[start : start + BATCH]
        decoded = [_decoded(engine, bundle, path) for path in chunk]
        yield from zip(chunk, _detect(engine, decoded, alpha, mode), strict=True)


def _decoded(engine: Engine, bundle: str, path: Path) -> Bytes8 | AdvsentryError:
    limits = ImageLimits()
    try:
        data = read_file(path, limits.max_bytes)
        return decode_image(data, engine.bundle.manifest.input, limits, resizer=engine.resizer)
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
