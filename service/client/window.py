"""Images of a stream between their reading and their answer, so that a stream that breaks can go on where it was."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator

from service.client.messages import Prepared

__all__ = ["AsyncWindow", "Window"]

MOST_ITEMS = 1024
MOST_BYTES = 64 * 2**20


class _Unanswered:
    """Images in the order of reading, bounded in number and bytes; those before `sent` are on the wire."""

    def __init__(self) -> None:
        self._items: deque[tuple[Prepared, int]] = deque()
        self._size_bytes = 0
        self.sent = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        return len(self._items) >= MOST_ITEMS or self._size_bytes >= MOST_BYTES

    def add(self, item: Prepared) -> None:
        size = item.message.ByteSize()
        self._items.append((item, size))
        self._size_bytes += size

    def next(self) -> Prepared | None:
        """The first that is not on the wire."""
        if self.sent == len(self._items):
            return None
        self.sent += 1
        return self._items[self.sent - 1][0]

    def answered(self) -> Prepared:
        """The oldest, which leaves."""
        item, size = self._items.popleft()
        self._size_bytes -= size
        self.sent -= 1
        return item


class Window:
    """Read by the threads in which gRPC asks for messages, one stream after the other."""

    def __init__(self, images: Iterator[Prepared]) -> None:
        self._images = images
        self._unanswered = _Unanswered()
        self._changed = threading.Condition()
        self._stream = 0
        self._is_reading = False
        self._has_ended = False
        self._error: BaseException | None = None

    def items(self) -> Iterator[Prepared]:
        """For one more stream: first what was sent and not answered, then new images. An older stream's ends."""
        with self._changed:
            self._stream += 1
            self._unanswered.sent = 0
            self._changed.notify_all()
            mine = self._stream
        return iter(lambda: self._next(mine), None)

    def _next(self, mine: int) -> Prepared | None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: mine != self._stream or self._can_go_on())
                if mine != self._stream:
                    return None
                item = self._unanswered.next()
                if item is not None or self._has_ended:
                    return item
                self._is_reading = True
            self._read()

    def _can_go_on(self) -> bool:
        is_unsent = self._unanswered.sent < len(self._unanswered)
        return is_unsent or self._has_ended or not (self._is_reading or self._unanswered.is_full)

    def _read(self) -> None:
        """Takes one image from the caller's iterator, which may keep us as long as it likes."""
        item, error = None, None
        try:
            item = next(self._images, None)
        except BaseException as caught:  # noqa: BLE001  # the caller's own: raised to him when the answers are out
            error = caught
        with self._changed:
            if item is None:
                self._has_ended, self._error = True, error
            else:
                self._unanswered.add(item)
            self._is_reading = False
            self._changed.notify_all()

    def answered(self) -> Prepared:
        """The image that an answer is of."""
        with self._changed:
            self._changed.notify_all()
            return self._unanswered.answered()

    @property
    def is_done(self) -> bool:
        """Whether every image has its answer.

        Raises:
            BaseException: what the caller's iterator raised, once all before it are answered.
        """
        with self._changed:
            done = self._has_ended and not len(self._unanswered)
        if done and self._error is not None:
            raise self._error
        return done

    def close(self) -> None:
        """Ends the stream that reads."""
        with self._changed:
            self._stream += 1
            self._changed.notify_all()


class AsyncWindow:
    """The same within one event loop."""

    def __init__(self, images: AsyncIterator[Prepared]) -> None:
        self._images = images
        self._unanswered = _Unanswered()
        self._room = asyncio.Event()
        self._reading: asyncio.Task[Prepared | None] | None = None
        self._has_ended = False
        self._error: BaseException | None = None

    async def items(self) -> AsyncIterator[Prepared]:
        """For one more stream; cancel the older stream's task before."""
        self._unanswered.sent = 0
        while True:
            item = self._unanswered.next()
            if item is not None:
                yield item
            elif self._has_ended:
                return
            elif self._unanswered.is_full:
                self._room.clear()
                await self._room.wait()
            else:
                await self._read()

    async def _read(self) -> None:
        """Takes one image from the caller's iterator; a read outlives the stream that began it."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._next_image())
        item = await asyncio.shield(self._reading)
        self._reading = None
        if item is None:
            self._has_ended = True
        else:
            self._unanswered.add(item)

    async def _next_image(self) -> Prepared | None:
        try:
            return await anext(self._images, None)
        except Exception as error:  # noqa: BLE001  # the caller's own: raised to him when the answers are out
            self._error = error
            return None

    def answered(self) -> Prepared:
        """The image that an answer is of."""
        self._room.set()
        return self._unanswered.answered()

    @property
    def is_done(self) -> bool:
        """As `Window.is_done`."""
        done = self._has_ended and not len(self._unanswered)
        if done and self._error is not None:
            raise self._error
        return done

    async def close(self) -> None:
        """Lets the caller's iterator go."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
