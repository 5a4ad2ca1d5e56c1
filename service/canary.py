"""Asks the server's own queue about images whose answers are known, every few seconds."""

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np

from service.batching import Batcher
from service.detection.engine import Engine, is_right
from service.detection.types import Bytes8, gather
from service.detection.verdict import judge
from service.errors import DeadlinePassed, Overloaded
from service.metrics import Metrics
from service.rpc.health import Health

__all__ = ["Canaries", "CanaryWatch"]

log = logging.getLogger(__name__)


class Canaries:
    """The known images of one bundle, and the queue that is asked about them."""

    def __init__(self, engine: Engine, batcher: Batcher) -> None:
        self._engine = engine
        self._batcher = batcher
        self._known = engine.canaries()

    async def are_right(self, timeout_s: float) -> bool:
        """Whether every answer is the known one.

        Raises:
            Overloaded, DeadlinePassed, Unavailable: an image got no answer.
        """
        if not self._known:  # a bundle may have none; that an answer comes is worth knowing too
            await self._batcher.submit(self._blank(), time.monotonic() + timeout_s)
            return True
        bundle = self._engine.bundle
        for canary, image in self._known:
            scored = await self._batcher.submit(image, time.monotonic() + timeout_s)
            judged = judge(gather([scored]), bundle, bundle.manifest.default_alpha)
            if not is_right(canary, judged.detections()[0]):
                return False
        return True

    def _blank(self) -> Bytes8:
        shape = self._engine.bundle.manifest.input
        return np.zeros((shape.height, shape.width, shape.channels), np.uint8)


class CanaryWatch:
    """Feeds health: a wrong answer makes the server not ready, a right one ready again. A full queue does neither."""

    def __init__(self, current: Callable[[], Canaries], health: Health, metrics: Metrics) -> None:
        """Takes where to find the canaries of the bundle that is served now."""
        self._current = current
        self._health = health
        self._metrics = metrics

    async def watch(self, every_s: float) -> None:
        """Asks until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.ask_once(every_s)

    async def ask_once(self, timeout_s: float) -> None:
        """Asks about every canary and tells health what came."""
        canaries = self._current()
        try:
            right = await canaries.are_right(timeout_s)
        except (Overloaded, DeadlinePassed):
            return  # load, not health
        except Exception:
            if canaries is not self._current():
                return  # their bundle was replaced while they were asked
            log.exception("the canary got no answer")
            right = False
        self._metrics.canary_ok.set(right)
        if right:
            self._metrics.canary_success.set_to_current_time()
        if right != self._health.is_ready:
            log.log(
                logging.INFO if right else logging.ERROR, "the canary's answer is %s", "right" if right else "wrong"
            )
            self._health.set_ready(right)
            self._metrics.ready.set(right)
