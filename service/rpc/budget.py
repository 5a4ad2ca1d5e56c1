"""How many pixels are decoded at once."""

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["PixelBudget"]


class PixelBudget:
    """Bounds the memory of the threads that decode: each takes the pixels of its image, or waits for them.

    Nobody passes one who waits, so that a large image has its turn.
    """

    def __init__(self, most: int) -> None:
        """Takes the pixels of all images together, at least 1."""
        self._most = most
        self._held = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Holds pixels while an image is decoded.

        Args:
            pixels: no more than there are.
        """
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._held + pixels <= self._most)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify()
