"""Starts the service with a defect that a check of the sheet must find: `planted.py DEFECT serve ...`."""

import sys
from pathlib import Path
from typing import Any

from deploy.reliability.inject import FAULTS
from service.__main__ import main
from service.app import App
from service.batching import Batcher
from service.detection.graph import Graph
from service.detection.types import Outputs
from service.rpc.pipeline import Pipeline


def leak() -> None:
    """The queue keeps every image, and the picture that a camera would have sent for it."""
    kept: list[bytes] = []
    put = Batcher.put

    def patched(self: Batcher, image: Any, *arguments: Any) -> None:
        kept.append(bytes(100_000))
        put(self, image, *arguments)

    Batcher.put = patched  # type: ignore[method-assign]


def miscount() -> None:
    """One image in 50 is counted twice."""
    count, seen = Pipeline._count, [0]

    def patched(self: Pipeline, judged: Any) -> None:
        count(self, judged)
        seen[0] += len(judged.measured)
        if seen[0] % 50 == 0:
            self.metrics.images_detected.inc()

    Pipeline._count = patched  # type: ignore[method-assign]


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

    decode = Pipeline.decode_now

    def patched(self: Pipeline, picture: Any) -> Any:
        try:
            return decode(self, picture)
        except InvalidRequest:
            shape = self.engine.bundle.manifest.input
            return np.zeros((shape.height, shape.width, shape.channels), np.uint8)

    Pipeline.decode_now = patched  # type: ignore[method-assign]


def run_late() -> None:
    """What nobody waits for is run all the same."""
    from service import batching

    batching._Future.is_settled = property(lambda self: False)  # type: ignore[method-assign,assignment]
    batching._Future.__init__ = _careless  # type: ignore[method-assign,assignment]
    put = Batcher.put
    Batcher.put = lambda self, image, deadline, waiter: put(self, image, deadline + 1e6, waiter)  # type: ignore


def _careless(self: Any) -> None:
    import asyncio
    import contextlib

    self.future = asyncio.get_running_loop().create_future()

    def scored(row: Any) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            self.future.set_result(row)

    self.scored, self.failed = scored, lambda error: None


def hang() -> None:
    """A run does not come back while a fault of `deploy.reliability.inject` is there, and the watchdog sleeps."""
    FAULTS[sys.argv.pop(2)](Path(sys.argv.pop(2)))
    Batcher._stuck = lambda self, limit_s: None  # type: ignore[method-assign]


if __name__ == "__main__":
    {defect.__name__: defect for defect in (leak, miscount, lose, differ, take, run_late, hang)}[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
