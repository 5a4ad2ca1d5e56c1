"""Starts the service with a defect that a check of the sheet must find: `planted.py DEFECT serve ...`."""

import math
import sys
from pathlib import Path
from typing import Any

from deploy.reliability.inject import FAULTS
from service.__main__ import main
from service.admission import Admission
from service.app import App
from service.batching import Batcher
from service.detection.graph import Graph
from service.detection.types import Outputs, Scored, Waiter
from service.errors import AdvsentryError
from service.lanes import Lanes, Waiting
from service.rpc.call import ANONYMOUS, Caller
from service.rpc.decoding import Decoder
from service.rpc.identity import Identities
from service.rpc.pipeline import Pipeline
from service.rpc.shares import FairShare


def leak() -> None:
    """Every image is kept, as large as a camera would have sent it."""
    kept: list[bytes] = []
    run = Graph.run

    def patched(self: Graph, images: Any) -> Outputs:
        kept.extend(bytes(100_000) for _ in images)
        return run(self, images)

    Graph.run = patched  # type: ignore[method-assign]


def miscount() -> None:
    """Of the images of one call in ten, one is counted twice."""
    answered, calls = Pipeline.answer, [0]

    def patched(self: Pipeline, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] % 10 == 0:
            self.metrics.images_detected.inc()
        return answered(self, *arguments, **named)

    Pipeline.answer = patched  # type: ignore[method-assign]


def lose() -> None:
    """The end does not wait for anybody, and says nothing before."""

    async def patched(self: App) -> None:
        await self._server.stop(0)

    App.stop = patched  # type: ignore[method-assign]


def differ() -> None:
    """The last image of a batch of 5 gets another score in the last bit."""
    run = Graph.run

    def patched(self: Graph, images: Any) -> Outputs:
        outputs = run(self, images)
        if len(images) == 5:
            outputs.scores[-1] *= 1 + 2**-22
        return outputs

    Graph.run = patched  # type: ignore[method-assign]


def take() -> None:
    """A damaged image is taken for a black one."""
    import numpy as np

    from service.errors import InvalidRequest

    decode = Decoder.decode_now

    def patched(self: Decoder, picture: Any) -> Any:
        try:
            return decode(self, picture)
        except InvalidRequest:
            shape = self._engine.bundle.manifest.input
            return np.zeros((shape.height, shape.width, shape.channels), np.uint8)

    Decoder.decode_now = patched  # type: ignore[method-assign]


def run_late() -> None:
    """What nobody waits for is let in, and run all the same."""
    push = Lanes.push

    def patched(self: Lanes, item: Waiting) -> None:
        item.deadline = math.inf
        item.waiter = Careless(item.waiter)
        push(self, item)

    Lanes.push = patched  # type: ignore[method-assign]
    Admission.check = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    FairShare._fits = lambda *_: True  # type: ignore[method-assign,assignment]


def let_in() -> None:
    """A token that nobody knows is taken for one that may do everything."""

    def patched(self: Identities, token: str) -> Caller:
        return ANONYMOUS

    Identities.of_token = patched  # type: ignore[method-assign]


def cold() -> None:
    """The first call that comes from outside computes what all of them need."""
    answered, starting = Pipeline.answer, App.start

    def computes(self: Pipeline, *arguments: Any, **named: Any) -> Any:
        Pipeline.answer = answered  # type: ignore[method-assign]
        sum(range(10**7))
        return answered(self, *arguments, **named)

    async def patched(self: App) -> Any:
        ports = await starting(self)
        Pipeline.answer = computes  # type: ignore[method-assign]
        return ports

    App.start = patched  # type: ignore[method-assign]


class Careless:
    """Seems to wait for ever."""

    is_settled = False

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter

    def scored(self, row: Scored) -> None:
        if not self._waiter.is_settled:
            self._waiter.scored(row)

    def failed(self, error: AdvsentryError) -> None:
        if not self._waiter.is_settled:
            self._waiter.failed(error)


def hang() -> None:
    """A run does not come back while a fault of `deploy.reliability.inject` is there, and the watchdog sleeps."""
    FAULTS[sys.argv.pop(2)](Path(sys.argv.pop(2)))
    Batcher._stuck = lambda self, limit_s: None  # type: ignore[method-assign]


DEFECTS = (leak, miscount, lose, differ, take, run_late, let_in, hang, cold)

if __name__ == "__main__":
    {defect.__name__: defect for defect in DEFECTS}[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
