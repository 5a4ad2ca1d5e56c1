"""Arrays whose memory is taken as they are written to, and goes back with the last who holds them."""

import contextlib
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["reserved"]


def reserved(shape: int | tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
    """Zeros; pages that nobody writes to take no memory, where the system can do that.

    `numpy.zeros` is no such array. What malloc had before it gets again, so that once a large array was freed the next
    ones lie between other things: written to at once, and not given back. And numpy asks for huge pages, of which one
    number takes 2 MB.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # Windows
        return np.zeros(shape, kind)
    count, kind = math.prod(np.atleast_1d(shape).tolist()), np.dtype(kind)
    pages = mmap.mmap(-1, max(1, count * kind.itemsize), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel that has no huge pages
            pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, kind, count).reshape(shape)
