"""The client for threads."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

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
from service.client.window import Window
from service.detection.types import Detection
from service.errors import AdvsentryError, PermissionRefused
from service.files import find_images
from service.hosts import check_target
from service.rpc import read_answers
from service.rpc.convert import SERVICE
from service.rpc.read_answers import Options, ServerInfo

__all__ = ["Client"]

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Client:
    """One channel to a server, or to several behind one name; safe to use from several threads.

    Calls are tried again while the server has no room (when it says) or is not there, 4 times in all. A stream that
    breaks off is opened again, for `timeout_s` at most, and nothing of it is lost or answered twice. Every method
    raises an `AdvsentryError` by who can mend it: `InvalidRequest` (with its reason), `Overloaded`, `Unavailable`, ...
    """

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
        """Opens no connection yet.

        Args:
            target: HOST:PORT, or any name that gRPC resolves.
            timeout_s: for one call of `detect`, `detect_batch`, `info` and `is_serving`. A stream may last for ever; it
                is given up when it broke off and had no answer for so long.
            tls: whether to use TLS, the server known by gRPC's own roots; `ca` and `cert` imply it.
            ca: PEM file of the roots that the server is known by.
            cert: PEM file of the client's certificate, where the server asks for one.
            key: PEM file of its key.
            token: what `advsentry token new` printed; never sent in plaintext over a network.

        Raises:
            SetupError: a file cannot be read, the target is none, or the options do not go together.
        """
        check_target(target)
        self.target = target
        self._timeout_s = timeout_s
        credentials = channel_credentials(tls=tls, ca=ca, cert=cert, key=key)
        self._metadata = token_metadata(token, target, credentials)
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options=OPTIONS)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=OPTIONS)
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
    ) -> "grpc.UnaryUnaryMultiCallable[Request, Response]":
        return self._channel.unary_unary(f"/{service}/{method}", request.SerializeToString, response.FromString)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel; streams under way end with an error."""
        self._is_closed = True
        self._channel.close()

    def detect(self, image: Image, options: Options | None = None) -> Detection:
        """What the server says of one image."""
        request = detect_request(image, options, MAX_MESSAGE_BYTES)
        with self._errors():
            return read_answers.detection_of(
                self._detect(request, timeout=self._timeout_s, metadata=self._metadata).detection
            )

    def detect_batch(self, images: Sequence[Image], options: Options | None = None) -> list[Detection | AdvsentryError]:
        """What the server says of several images, in order; a bad one gets an error of its own.

        At most `ServerInfo.max_batch_items` images; `detect_stream` takes any number.
        """
        prepared = [prepare(number, image, MAX_MESSAGE_BYTES) for number, image in enumerate(images)]
        with self._errors():
            answer = self._batch_detect(
                batch_request(prepared, options), timeout=self._timeout_s, metadata=self._metadata
            )
        return batch_outcomes(prepared, answer)

    def detect_stream(
        self, images: Iterable[Image], options: Options | None = None
    ) -> Iterator[Detection | AdvsentryError]:
        """What the server says of any number of images, in order, as answers come; the way for bulk.

        Args:
            images: read by another thread, as fast as the server takes them; at most 1,024 of them and 64 MiB wait for
                their answers. What it raises is raised here, after the answers to the images before.
        """
        most_bytes = self._message_limit()
        window = Window(prepare(number, image, most_bytes) for number, image in enumerate(images))
        first, reopening = stream_options(options), Reopening(self._timeout_s)
        try:
            while not window.is_done:
                with self._errors():
                    call = self._stream_detect(_requests(window.items(), first), metadata=self._metadata)
                try:
                    for answer in call:
                        reopening.answered()
                        yield outcome_of(window.answered(), answer)
                    if not window.is_done:
                        raise AdvsentryError(f"{self.target}: the server ended the stream before its last answer")
                except grpc.RpcError as error:
                    failure = self._failure(error)
                    wait_s = reopening.wait_s(failure)
                    if wait_s is None:
                        raise failure from error
                    time.sleep(wait_s)
                finally:
                    call.cancel()
        finally:
            window.close()

    def detect_folder(
        self, *paths: Path, options: Options | None = None
    ) -> Iterator[tuple[Path, Detection | AdvsentryError]]:
        """What the server says of image files, and of those in folders and below them, in order.

        Raises:
            SetupError: a path does not exist, or a folder holds no image.
        """
        found = find_images(paths)
        yield from zip(found, self.detect_stream(found, options), strict=True)

    def info(self) -> ServerInfo:
        """What the server runs and takes."""
        with self._errors():
            return read_answers.info_of(
                self._model_info(pb.GetModelInfoRequest(), timeout=self._timeout_s, metadata=self._metadata)
            )

    def health(self, service: str = "ready") -> bool:
        """Whether the server says SERVING.

        Args:
            service: `ready`, `live`, `` or `advsentry.v1.DetectorService`.

        Raises:
            UnknownModel: the server knows no such service.
            Unavailable: nobody answers.
        """
        request = health_pb2.HealthCheckRequest(service=service)
        with self._errors():
            answer = self._check(request, timeout=self._timeout_s, metadata=self._metadata)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def is_serving(self, service: str = "ready") -> bool:
        """As `health`; False, too, when nobody answers or the service is unknown."""
        try:
            return self.health(service)
        except AdvsentryError:
            return False

    def _message_limit(self) -> int:
        """A larger message would end a stream, so that its image is not sent; asked for once."""
        if self._most_bytes is None:
            try:
                self._most_bytes = self.info().max_message_bytes
            except PermissionRefused:  # we may ask about images only
                self._most_bytes = USUAL_LIMIT_BYTES
        return self._most_bytes

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._failure(error) from error
        except ValueError as error:  # gRPC's of a closed channel
            if self._is_closed:
                raise closed_client() from error
            raise
        self._has_worked = True

    def _failure(self, error: grpc.RpcError) -> AdvsentryError:
        if self._is_closed:
            return closed_client()
        return error_from(self.target, error, has_worked=self._has_worked)


def _requests(items: Iterator[Prepared], first: pb.StreamOptions) -> Iterator[pb.StreamDetectRequest]:
    for place, item in enumerate(items):
        yield stream_request(item, first if place == 0 else None)
