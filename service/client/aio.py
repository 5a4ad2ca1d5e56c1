"""The client for asyncio."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from protos import detection_pb2 as pb
from service.client.channel import (
    DEFAULT_TARGET,
    MAX_MESSAGE_BYTES,
    OPTIONS,
    USUAL_LIMIT_BYTES,
    Reopening,
    cancelled_by_server,
    closed_client,
    error_from,
)
from service.client.credentials import channel_credentials, token_metadata
from service.client.messages import (
    Image,
    Prepared,
    batch_outcomes,
    batch_request,
    detect_request,
    outcome_of,
    prepare,
    stream_options,
    stream_request,
)
from service.client.window import AsyncWindow
from service.detection.types import Detection
from service.errors import AdvsentryError, PermissionRefused, Unavailable
from service.files import find_images
from service.hosts import check_target
from service.rpc import read_answers
from service.rpc.convert import SERVICE
from service.rpc.read_answers import Options, ServerInfo

__all__ = ["AsyncClient"]

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class AsyncClient:
    """As `Client`, for asyncio: one channel, made in the loop that uses it."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout_s: float = 30.0,
        tls: bool = False,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        token: str = "",
    ) -> None:
        """As `Client`. Needs a running event loop."""
        check_target(target)
        self.target = target
        self._timeout_s = timeout_s
        credentials = channel_credentials(tls=tls, ca=ca, cert=cert, key=key)
        self._metadata = token_metadata(token, target, credentials)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=OPTIONS)
        self._detect = self._unary(SERVICE, "Detect", pb.DetectRequest, pb.DetectResponse)
        self._batch_detect = self._unary(SERVICE, "BatchDetect", pb.BatchDetectRequest, pb.BatchDetectResponse)
        self._model_info = self._unary(SERVICE, "GetModelInfo", pb.GetModelInfoRequest, pb.GetModelInfoResponse)
        self._check = self._unary(
            "grpc.health.v1.Health", "Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        )
        self._stream_detect = self._channel.stream_stream(
            f"/{SERVICE}/StreamDetect", pb.StreamDetectRequest.SerializeToString, pb.StreamDetectResponse.FromString
        )
        self._most_bytes: int | None = None
        self._has_worked = self._is_closed = False

    def _unary(
        self, service: str, method: str, request: type[Request], response: type[Response]
    ) -> "grpc.aio.UnaryUnaryMultiCallable[Request, Response]":
        return self._channel.unary_unary(f"/{service}/{method}", request.SerializeToString, response.FromString)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel; streams under way end with an error."""
        self._is_closed = True
        await self._channel.close()

    async def detect(self, image: Image, options: Options | None = None) -> Detection:
        """What the server says of one image."""
        request = detect_request(image, options, MAX_MESSAGE_BYTES)
        with self._errors():
            return read_answers.detection_of(
                (await self._detect(request, timeout=self._timeout_s, metadata=self._metadata)).detection
            )

    async def detect_batch(
        self, images: Sequence[Image], options: Options | None = None
    ) -> list[Detection | AdvsentryError]:
        """As `Client.detect_batch`."""
        prepared = [prepare(number, image, MAX_MESSAGE_BYTES) for number, image in enumerate(images)]
        with self._errors():
            answer = await self._batch_detect(
                batch_request(prepared, options), timeout=self._timeout_s, metadata=self._metadata
            )
        return batch_outcomes(prepared, answer)

    async def detect_stream(
        self, images: Iterable[Image] | AsyncIterable[Image], options: Options | None = None
    ) -> AsyncIterator[Detection | AdvsentryError]:
        """As `Client.detect_stream`.

        Args:
            images: an iterable that is not asynchronous must not block; files of paths are read in a thread.
        """
        most_bytes = await self._message_limit()
        window = AsyncWindow(_prepared(images, most_bytes))
        first, reopening = stream_options(options), Reopening(self._timeout_s)
        try:
            while not window.is_done:
                with self._errors():
                    call = self._stream_detect(metadata=self._metadata)
                is_answered = asyncio.Event()
                sender = asyncio.create_task(_send(call, window.items(), first, is_answered))
                try:
                    async for answer in call:
                        reopening.answered()
                        is_answered.set()
                        yield outcome_of(window.answered(), answer)
                    if not window.is_done:
                        raise AdvsentryError(f"{self.target}: the server ended the stream before its last answer")
                except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
                    failure = self._failure(error)
                    wait_s = reopening.wait_s(failure)
                    if wait_s is None:
                        raise failure from error
                    await asyncio.sleep(wait_s)
                finally:
                    call.cancel()
                    sender.cancel()
                    await asyncio.gather(sender, return_exceptions=True)
        finally:
            await window.close()

    async def detect_folder(
        self, *paths: Path, options: Options | None = None
    ) -> AsyncIterator[tuple[Path, Detection | AdvsentryError]]:
        """As `Client.detect_folder`; the files are read in a thread."""
        found = await asyncio.to_thread(find_images, paths)
        names = iter(found)
        async for result in self.detect_stream(found, options):
            yield next(names), result

    async def info(self) -> ServerInfo:
        """What the server runs and takes."""
        with self._errors():
            return read_answers.info_of(
                await self._model_info(pb.GetModelInfoRequest(), timeout=self._timeout_s, metadata=self._metadata)
            )

    async def health(self, service: str = "ready") -> bool:
        """As `Client.health`."""
        request = health_pb2.HealthCheckRequest(service=service)
        with self._errors():
            answer = await self._check(request, timeout=self._timeout_s, metadata=self._metadata)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def is_serving(self, service: str = "ready") -> bool:
        """As `Client.is_serving`."""
        try:
            return await self.health(service)
        except AdvsentryError:
            return False

    async def _message_limit(self) -> int:
        """As the other client's."""
        if self._most_bytes is None:
            try:
                self._most_bytes = (await self.info()).max_message_bytes
            except PermissionRefused:
                self._most_bytes = USUAL_LIMIT_BYTES
        return self._most_bytes

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (grpc.RpcError, asyncio.CancelledError) as error:
            raise self._failure(error) from error
        except grpc.aio.UsageError as error:
            if self._is_closed:
                raise closed_client() from error
            raise
        self._has_worked = True

    def _failure(self, error: grpc.RpcError | asyncio.CancelledError) -> AdvsentryError:
        """What the end of a call means.

        Raises:
            asyncio.CancelledError: the caller's own. grpc.aio raises the same when the server says CANCELLED.
        """
        if isinstance(error, grpc.RpcError):
            if self._is_closed:
                return closed_client()
            return _broken(error) or error_from(self.target, error, has_worked=self._has_worked)
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise error
        return closed_client() if self._is_closed else cancelled_by_server()


async def _prepared(images: Iterable[Image] | AsyncIterable[Image], most_bytes: int) -> AsyncIterator[Prepared]:
    if isinstance(images, AsyncIterable):
        number = 0
        async for image in images:
            yield await _one(number, image, most_bytes)
            number += 1
    else:
        for number, image in enumerate(images):
            yield await _one(number, image, most_bytes)


async def _one(number: int, image: Image, most_bytes: int) -> Prepared:
    if isinstance(image, Path):
        return await asyncio.to_thread(prepare, number, image, most_bytes)
    return prepare(number, image, most_bytes)


async def _send(call: Any, items: AsyncIterator[Prepared], first: pb.StreamOptions, is_answered: asyncio.Event) -> None:
    """Writes until all is written or the call has ended, which its reader is told.

    What follows the first message waits for the first answer: were the call to end during a write, gRPC would tell of
    that instead of its status.
    """
    is_first = True
    with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
        async for item in items:
            if not is_first:
                await is_answered.wait()
            await call.write(stream_request(item, first if is_first else None))
            is_first = False
        if not is_first:
            await is_answered.wait()
        await call.done_writing()


def _broken(error: grpc.RpcError) -> Unavailable | None:
    """A stream that ended during a write has lost its status; opened again, it tells it."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return None
    if error.code() is grpc.StatusCode.INTERNAL and "from Core" in (error.details() or ""):
        return Unavailable("the stream broke off")
    return None
