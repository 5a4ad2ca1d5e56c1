"""A server that does as a test says, and both clients behind one face."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc

from protos import detection_pb2 as pb
from service.client import AsyncClient, Client, Image, Options
from service.detection.types import Detection
from service.errors import AdvsentryError
from service.rpc.convert import SERVICE

Outcome = Detection | AdvsentryError
StreamBehaviour = Callable[[Iterator[pb.StreamDetectRequest], grpc.ServicerContext], Iterator[pb.StreamDetectResponse]]


class Face(Protocol):
    """What both clients can do."""

    def detect(self, image: Image, options: Options | None = None) -> Detection: ...
    def batch(self, images: list[Image]) -> list[Outcome]: ...
    def stream(self, images: Iterable[Image], most: int | None = None) -> list[Outcome]: ...
    def folder(self, *paths: Path) -> list[tuple[Path, Outcome]]: ...
    def is_serving(self) -> bool: ...


class Blocking:
    def __init__(self, target: str) -> None:
        self.target = target

    def detect(self, image: Image, options: Options | None = None) -> Detection:
        with Client(self.target) as client:
            return client.detect(image, options)

    def batch(self, images: list[Image]) -> list[Outcome]:
        with Client(self.target) as client:
            return client.detect_batch(images)

    def stream(self, images: Iterable[Image], most: int | None = None) -> list[Outcome]:
        found: list[Outcome] = []
        with Client(self.target) as client, contextlib.closing(client.detect_stream(images)) as answers:  # type: ignore[type-var]
            for answer in answers:
                found.append(answer)
                if len(found) == most:
                    break
        return found

    def folder(self, *paths: Path) -> list[tuple[Path, Outcome]]:
        with Client(self.target) as client:
            return list(client.detect_folder(*paths))

    def is_serving(self) -> bool:
        with Client(self.target) as client:
            return client.is_serving()


class Asynchronous:
    def __init__(self, target: str) -> None:
        self.target = target

    def _run(self, call: Callable[[AsyncClient], Any]) -> Any:
        async def run() -> Any:
            async with AsyncClient(self.target) as client:
                return await call(client)

        return asyncio.run(run())

    def detect(self, image: Image, options: Options | None = None) -> Detection:
        found: Detection = self._run(lambda client: client.detect(image, options))
        return found

    def batch(self, images: list[Image]) -> list[Outcome]:
        found: list[Outcome] = self._run(lambda client: client.detect_batch(images))
        return found

    def stream(self, images: Iterable[Image], most: int | None = None) -> list[Outcome]:
        found: list[Outcome] = self._run(lambda client: _first(client.detect_stream(images), most))
        return found

    def folder(self, *paths: Path) -> list[tuple[Path, Outcome]]:
        found: list[tuple[Path, Outcome]] = self._run(lambda client: _first(client.detect_folder(*paths), None))
        return found

    def is_serving(self) -> bool:
        return bool(self._run(lambda client: client.is_serving()))


async def _first(answers: AsyncIterator[Any], most: int | None) -> list[Any]:
    found = []
    async with contextlib.aclosing(answers):  # type: ignore[type-var]
        async for answer in answers:
            found.append(answer)
            if len(found) == most:
                break
    return found


@contextlib.contextmanager
def stub(
    stream: StreamBehaviour,
    limit_bytes: int = 2**20,
    detect: Callable[[bytes, grpc.ServicerContext], bytes] = lambda *_: b"",
) -> Iterator[str]:
    """A server with this StreamDetect and Detect, at a free port; gives its target."""

    def info(_: pb.GetModelInfoRequest, __: grpc.ServicerContext) -> pb.GetModelInfoResponse:
        return pb.GetModelInfoResponse(limits=pb.Limits(max_message_bytes=limit_bytes))

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Detect": grpc.unary_unary_rpc_method_handler(detect),
        "GetModelInfo": grpc.unary_unary_rpc_method_handler(
            info, pb.GetModelInfoRequest.FromString, pb.GetModelInfoResponse.SerializeToString
        ),
        "StreamDetect": grpc.stream_stream_rpc_method_handler(
            stream, pb.StreamDetectRequest.FromString, pb.StreamDetectResponse.SerializeToString
        ),
    }
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(10)


def answer_to(request: pb.StreamDetectRequest) -> pb.StreamDetectResponse:
    """A detection whose label is the size of the image."""
    size = len(request.image.encoded.data)
    detection = pb.Detection(top=pb.ClassScore(index=size), verdict=pb.VERDICT_CLEAN)
    return pb.StreamDetectResponse(item_id=request.item_id, result=pb.DetectResult(detection=detection))
