"""A chunk to arrays: every image that can be decoded, and of the others what is wrong."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from service.detection.bundle import find_bundle, load_bundle
from service.detection.graph import Resizer
from service.detection.images import ImageLimits, decode_image
from service.detection.types import Bytes8
from service.errors import ErrorReason, InvalidRequest
from service.files import read_file
from service.scoring.chunks import Chunk, Item

__all__ = ["NO_NUMBER", "Columns", "Decoder"]

Columns: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
"""Rows as arrays by name: (N,) piece, number, total, weight, path, error, reason, is_decoded; (N, H, W, C) image."""

NO_NUMBER = -1
"""The number of a row that is no image, but tells the total of its piece; and the total of all other rows."""


class Decoder:
    """Decodes for one bundle, by the same limits and rules as the server.

    Raises:
        BundleError: there is no such bundle, or it cannot be used.
    """

    def __init__(self, bundle: str, root: str) -> None:
        """Reads the bundle.

        Args:
            root: what relative paths are relative to.
        """
        found = load_bundle(find_bundle(bundle))
        self._shape = found.manifest.input
        self._resizer = None if found.resize is None else Resizer(found.resize, self._shape)
        self._limits = ImageLimits()
        self._root = root

    def __call__(self, chunk: Chunk) -> Columns:
        """The rows of a chunk; the last of a piece has one row without an image."""
        if chunk.total is not None:
            return self._rows(chunk, [""], [InvalidRequest("")], np.array([NO_NUMBER]), chunk.total)
        numbers = chunk.first + np.arange(len(chunk.items))
        return self._rows(chunk, [one.path for one in chunk.items], list(map(self._image, chunk.items)), numbers)

    def _image(self, item: Item) -> Bytes8 | InvalidRequest:
        if item.error is not None:
            return item.error
        try:
            data = item.data
            if data is None:
                data = read_file(Path(os.path.join(self._root, item.path)), self._limits.max_bytes)
            return decode_image(data, self._shape, self._limits, resizer=self._resizer)
        except InvalidRequest as error:
            return error
        except Exception as error:  # noqa: BLE001  # one image, whatever is wrong with it, never ends a run of millions
            return InvalidRequest(f"cannot be decoded: {type(error).__name__}: {error}", reason=ErrorReason.INTERNAL)

    def _rows(
        self,
        chunk: Chunk,
        paths: list[str],
        found: list[Bytes8 | InvalidRequest],
        numbers: "np.ndarray[Any, Any]",
        total: int = NO_NUMBER,
    ) -> Columns:
        count, shape = len(found), self._shape
        images = np.zeros((count, shape.height, shape.width, shape.channels), np.uint8)
        errors, reasons = [""] * count, [""] * count
        is_decoded = np.zeros(count, np.bool_)
        for i, one in enumerate(found):
            if isinstance(one, InvalidRequest):
                errors[i], reasons[i] = str(one), one.reason.value if one.reason else ""
            else:
                images[i], is_decoded[i] = one, True
        return {
            "piece": np.full(count, chunk.piece),
            "number": numbers,
            "total": np.full(count, total),
            "weight": np.full(count, chunk.weight / count),
            "path": _texts([_printable(path) for path in paths]),
            "error": _texts([_printable(error) for error in errors]),
            "reason": _texts(reasons),
            "is_decoded": is_decoded,
            "image": images,
        }


def _texts(values: list[str]) -> "np.ndarray[Any, Any]":
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _printable(text: str) -> str:
    r"""A text of UTF-8 alone, as a column holds it; of the name of a file other bytes come as \udc80 and up."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
