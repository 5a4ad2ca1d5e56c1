"""From the pictures of a call to arrays: on the loop or in a thread, bounded in bytes and pixels."""

import asyncio
import logging
import math
import time
from concurrent.futures import Executor

from service.detection.engine import Engine
from service.detection.images import ImageLimits, decode_image, header_pixels, raw_image
from service.detection.types import Bytes8
from service.errors import AdvsentryError, DeadlinePassed, Overloaded
from service.metrics import Metrics
from service.rpc.budget import PixelBudget
from service.rpc.convert import Picture

__all__ = ["INLINE_BYTES", "Decoder"]

log = logging.getLogger(__name__)

INLINE_PIXELS = 64 * 64
INLINE_BYTES = 32 * 1024
"""Below both an image is decoded on the loop: 8 x 8 PNG 34 us, 32 x 32 JPEG 60 us, against 39 us for the way to a
thread and back. An image that is resized must have as few pixels: 64 x 64 of RGB take 42 us more."""
MOST_HINT_MS = 5000
"""Time after which anybody may try again."""


class Decoder:
    """Decodes for one bundle; used from one event loop."""

    def __init__(
        self, engine: Engine, threads: Executor, *, limits: ImageLimits, most_bytes: int, metrics: Metrics
    ) -> None:
        """Puts the parts together.

        Args:
            threads: a small pool; decoding lets the interpreter's lock go.
            most_bytes: encoded images that may wait for a thread to decode them, in bytes.
        """
        self._engine = engine
        self._threads = threads
        self._limits = limits
        self._most_bytes = most_bytes
        self._metrics = metrics
        self._shape = engine.bundle.manifest.input
        self._model_size = (self._shape.height, self._shape.width, self._shape.channels)
        self._model_pixels = self._shape.height * self._shape.width
        self._budget = PixelBudget(limits.max_pixels)
        self.held_bytes = 0
        """Of pictures that wait to be decoded."""
        self._decoding_s = 0.1  # that an image lately took to be decoded, with its waiting; at first a guess
        self._left = asyncio.Event()

    def decodes_inline(self, picture: Picture) -> bool:
        """Whether decoding costs less than going to a thread for it."""
        if picture.size is not None:
            is_resized = self._engine.resizer is not None and picture.size != self._model_size
            return not is_resized or len(picture.data) <= INLINE_BYTES
        if self._model_pixels > INLINE_PIXELS or len(picture.data) > INLINE_BYTES:
            return False
        return self._pixels(picture) <= INLINE_PIXELS

    def _pixels(self, picture: Picture) -> int:
        """How many pixels decoding it makes at most."""
        if self._engine.resizer is None:
            return self._model_pixels  # one of another size is refused by its header
        if picture.size is not None:
            return min(picture.size[0] * picture.size[1], len(picture.data))  # its size may be any three numbers
        return header_pixels(picture.data, self._limits)

    def decode_now(self, picture: Picture) -> Bytes8:
        """The image of a picture.

        Raises:
            InvalidRequest: with the reason.
            AdvsentryError: our fault; the log says how.
        """
        try:
            if picture.size is not None:
                return raw_image(picture.data, picture.size, self._shape, self._limits, resizer=self._engine.resizer)
            return decode_image(
                picture.data,
                self._shape,
                self._limits,
                mime_type=picture.mime_type,
                resizer=self._engine.resizer,
            )
        except AdvsentryError:
            raise
        except Exception as error:
            log.exception("an image could not be decoded")
            raise AdvsentryError("this image could not be decoded; the server's log says why") from error

    async def decode(self, picture: Picture) -> Bytes8:
        """The image of a picture, decoded where it costs least; its time is counted.

        Raises:
            InvalidRequest: with the reason.
            Overloaded: too many bytes wait to be decoded.
        """
        if self.decodes_inline(picture):
            return self._decode_inline(picture)
        if not self._fits(picture):
            self._metrics.dropped["overload"].inc()
            hint_ms = min(MOST_HINT_MS, math.ceil(1000 * self._decoding_s))
            raise Overloaded("too many images wait to be decoded", retry_after_ms=hint_ms)
        self.reserve(picture)
        try:
            return await self.decode_in_thread(picture)
        finally:
            self.release(picture)

    def _decode_inline(self, picture: Picture) -> Bytes8:
        started = time.perf_counter()
        image = self.decode_now(picture)
        self._metrics.stage["decode"].observe(time.perf_counter() - started)
        return image

    async def decode_until(self, picture: Picture, deadline: float) -> Bytes8:
        """The same, given up at a monotonic time.

        Raises:
            DeadlinePassed: it was not decoded by then.
        """
        if self.decodes_inline(picture):
            return self._decode_inline(picture)  # there is nothing to wait for, so no timer
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.decode(picture)
        except TimeoutError:
            self._metrics.dropped["deadline"].inc()
            raise DeadlinePassed("the deadline passed before the image was decoded") from None
        except asyncio.CancelledError:
            self._metrics.dropped["cancelled"].inc()
            raise

    async def decode_in_thread(self, picture: Picture) -> Bytes8:
        """The image of a picture whose bytes are reserved; its time is counted."""
        started, handed = time.perf_counter(), [picture]
        try:
            image = await asyncio.get_running_loop().run_in_executor(self._threads, self._decode_handed, handed)
        finally:
            handed.clear()  # what its caller has left lies in the executor's queue until its turn; not its bytes
        took_s = time.perf_counter() - started
        self._decoding_s += 0.1 * (took_s - self._decoding_s)
        self._metrics.stage["decode"].observe(took_s)
        return image

    def _decode_handed(self, handed: list[Picture]) -> Bytes8:
        """The image of a picture, decoded in the thread that calls, within the budget of pixels.

        One whose caller leaves while it waits for that is not decoded.
        """
        pixels = self._pixels(handed[0])
        if pixels > self._limits.max_pixels:
            pixels = 0  # its header is all that is ever read
        with self._budget.taken(pixels):
            return self.decode_now(handed.pop())

    async def room(self, picture: Picture) -> None:
        """Waits until the bytes of a picture may be reserved."""
        while not self._fits(picture):
            self._left.clear()
            await self._left.wait()

    def _fits(self, picture: Picture) -> bool:
        held = self.held_bytes
        return held == 0 or held + len(picture.data) <= self._most_bytes

    def reserve(self, picture: Picture) -> None:
        """Counts the bytes of a picture that waits to be decoded."""
        self.held_bytes += len(picture.data)

    def release(self, picture: Picture) -> None:
        """Gives them back."""
        self.held_bytes -= len(picture.data)
        self._left.set()
