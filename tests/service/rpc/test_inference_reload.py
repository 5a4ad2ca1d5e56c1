"""A ModelStreamInfer outlives its bundle: each request goes to the one that is served when it comes."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client import CollectorRegistry

from protos import inference as pb
from service.batching import Batcher, QueueLimits
from service.detection.bundle import write_bundle
from service.metrics import Metrics
from service.rpc.inference_stream import InferenceStream
from service.rpc.pipeline import Pipeline, Policy, Served
from tests import tiny
from tests.service import oip


class Context:
    """As much of a call's context as a stream needs."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[bytes] = asyncio.Queue()

    def time_remaining(self) -> None:
        return None

    def invocation_metadata(self) -> None:
        return None

    async def write(self, answer: bytes) -> None:
        await self.written.put(answer)

    async def version(self) -> str:
        """Of the next answer."""
        answer = pb.ModelStreamInferResponse.FromString(await self.written.get())
        assert not answer.error_message
        return answer.infer_response.model_version


def test_each_request_of_a_stream_goes_to_the_bundle_of_its_time(tmp_path: Path) -> None:
    content = tiny.files()
    for version in ("1", "2"):
        write_bundle(tmp_path / version, tiny.manifest(content, version=version), content)
    request = oip.pixels(tiny.images(2)).SerializeToString()

    async def scene() -> None:
        with ThreadPoolExecutor(1) as executor:
            batchers = []

            def made(version: str) -> Pipeline:
                engine, metrics = tiny.engine(tmp_path / version), Metrics(CollectorRegistry())
                batcher = Batcher(engine.measure, executor, limits=QueueLimits(), metrics=metrics)
                batcher.start()
                batchers.append(batcher)
                return Pipeline(engine, batcher, executor, policy=Policy(), metrics=metrics)

            context, served = Context(), Served(made("1"))
            first = weakref.ref(served.current)

            async def requests() -> AsyncIterator[bytes]:
                yield request
                assert await context.version() == "1"
                served.current = made("2")
                await asyncio.sleep(0)
                gc.collect()
                assert first() is None, "an idle stream keeps what was served before"
                yield request

            await InferenceStream(served).serve(requests(), context)  # type: ignore[arg-type]
            assert await context.version() == "2"
            for batcher in batchers:
                await batcher.close()

    asyncio.run(asyncio.wait_for(scene(), 30))
