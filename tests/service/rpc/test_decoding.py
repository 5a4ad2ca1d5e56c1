"""What waits to be decoded is bounded in bytes, and a caller who gives up is told so."""

import asyncio
import gc
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.detection.engine import Engine
from service.detection.images import ImageLimits
from service.detection.types import Bytes8
from service.errors import DeadlinePassed, Overloaded
from service.metrics import Metrics
from service.rpc.budget import PixelBudget
from service.rpc.convert import Picture
from service.rpc.decoding import INLINE_BYTES, Decoder
from tests.service.rpc.test_door import until

PICTURE = Picture(data=b"x" * (INLINE_BYTES + 1), size=None, mime_type="")  # too large to be decoded on the loop


class Slow(Decoder):
    """Decodes when it is told to."""

    def __init__(self, engine: Engine, most_bytes: int) -> None:
        self.metrics = Metrics(CollectorRegistry())
        super().__init__(
            engine, ThreadPoolExecutor(1), limits=ImageLimits(), most_bytes=most_bytes, metrics=self.metrics
        )
        self.go = threading.Event()
        self.begun = 0

    def decode_now(self, picture: Picture) -> Bytes8:
        self.begun += 1
        assert self.go.wait(5)
        return np.zeros((8, 8, 1), np.uint8)


def test_a_picture_beyond_the_budget_is_refused_and_the_budget_comes_back(engine: Engine) -> None:
    async def scene() -> None:
        slow = Slow(engine, len(PICTURE.data) + 1)
        first = asyncio.create_task(slow.decode(PICTURE))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many images wait to be decoded"):
            await slow.decode(PICTURE)
        slow.go.set()
        assert (await first).shape == (8, 8, 1)
        assert (await slow.decode(PICTURE)).shape == (8, 8, 1)

    asyncio.run(scene())


def test_one_picture_larger_than_the_budget_is_decoded_alone(engine: Engine) -> None:
    async def scene() -> None:
        slow = Slow(engine, 1)
        slow.go.set()
        assert (await slow.decode(PICTURE)).shape == (8, 8, 1)

    asyncio.run(scene())


def test_a_reader_waits_for_room_instead_of_being_refused(engine: Engine) -> None:
    async def scene() -> None:
        slow = Slow(engine, 1)
        slow.reserve(PICTURE)
        waiting = asyncio.create_task(slow.room(PICTURE))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        slow.release(PICTURE)
        await asyncio.wait_for(waiting, timeout=1)

    asyncio.run(scene())


def test_decoding_keeps_the_deadline(engine: Engine) -> None:
    async def scene() -> None:
        slow = Slow(engine, 2**20)
        with pytest.raises(DeadlinePassed, match="before the image was decoded"):
            await slow.decode_until(PICTURE, time.monotonic() + 0.05)
        slow.go.set()

    asyncio.run(scene())


def test_one_who_is_refused_for_want_of_decoding_comes_back_after_what_decoding_takes(engine: Engine) -> None:
    async def scene() -> None:
        slow = Slow(engine, 1)
        first = asyncio.create_task(slow.decode(PICTURE))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await slow.decode(PICTURE)
        assert caught.value.retry_after_ms == 100  # nothing is known yet
        slow.go.set()
        await first
        for _ in range(30):
            await slow.decode(PICTURE)
        slow.go.clear()
        second = asyncio.create_task(slow.decode(PICTURE))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await slow.decode(PICTURE)
        assert 1 <= caught.value.retry_after_ms < 100
        slow.go.set()
        await second
        assert slow.metrics.registry.get_sample_value("advsentry_dropped_total", {"reason": "overload"}) == 2

    asyncio.run(scene())


def test_the_bytes_of_a_caller_who_left_do_not_wait_for_a_thread(engine: Engine) -> None:
    async def scene() -> None:
        slow = Slow(engine, 10**9)
        running = asyncio.create_task(slow.decode(PICTURE))
        data = bytes(len(PICTURE.data))
        held = sys.getrefcount(data)
        waiting = asyncio.create_task(slow.decode(Picture(data, "", None)))
        await asyncio.sleep(0)
        assert sys.getrefcount(data) > held
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        del waiting
        for _ in range(3):
            await asyncio.sleep(0)  # the loop lets go of the task
        gc.collect()
        assert sys.getrefcount(data) == held
        slow.go.set()
        await running

    asyncio.run(scene())


def test_an_image_whose_caller_left_while_it_waited_for_the_budget_is_not_decoded(engine: Engine) -> None:
    async def scene() -> None:
        slow = Slow(engine, 10**9)
        shape = engine.bundle.manifest.input
        slow._budget = PixelBudget(shape.height * shape.width)  # of one image
        with ThreadPoolExecutor(2) as slow._threads:
            first = asyncio.create_task(slow.decode(PICTURE))
            await asyncio.sleep(0)
            until(lambda: slow.begun == 1)
            waiting = asyncio.create_task(slow.decode(PICTURE))
            await asyncio.sleep(0)
            until(slow._budget._turn.locked)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            slow.go.set()
            await first
        assert slow.begun == 1

    asyncio.run(scene())
