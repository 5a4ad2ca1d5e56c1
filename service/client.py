"""A small typed client: images in, detections out.

with Client("127.0.0.1:50051") as client:
detection = client.detect(Path("cat.png").read_bytes())
print(detection.top.label, detection.verdict, detection.p_value)
"""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import NoReturn, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from protos import detection_pb2 as pb
from service.detection.types import Bytes8, Detection
from service.errors import AdvsentryError, Unavailable
from service.rpc import read_answers
from service.rpc.convert import SERVICE
from service.rpc.read_answers import Options, ServerInfo
from service.rpc.status import error_of

__all__ = ["DEFAULT_TARGET", "Client", "Options", "ServerInfo"]

DEFAULT_TARGET = "127.0.0.1:50051"
MAX_MESSAGE_BYTES = 64 * 2**20

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
            },
        }
    ]
}
"""A server without room says when to come back; the channel waits for that and tries again."""


class Client:
    """One channel to one server, with retries while it has no room; safe to use from several threads.

    An image is the content of a PNG, JPEG or WebP file, or a uint8 array (height, width, channels). Every method raises
    an `AdvsentryError` by who can mend it: `InvalidRequest` (with its reason), `Overloaded`, `Unavailable`, ...
    """

    def __init__(self, target: str = DEFAULT_TARGET, *, timeout_s: float = 30.0) -> None:
        """Opens no connection yet.

        Args:
            timeout_s: for one call of `detect`, `detect_batch`, `info` and `is_serving`; a stream has none.
        """
        self.target = target
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.service_config", json.dumps(_RETRIES)),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ],
        )
        self._detect = self._unary(SERVICE, "Detect", pb.DetectRequest, pb.DetectResponse)
        self._batch_detect = self._unary(SERVICE, "BatchDetect", pb.BatchDetectRequest, pb.BatchDetectResponse)
        self._model_info = self._unary(SERVICE, "GetModelInfo", pb.GetModelInfoRequest, pb.GetModelInfoResponse)
        self._check = self._unary(
            "grpc.health.v1.Health", "Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        )
        self._stream_detect = self._channel.stream_stream(
            f"/{SERVICE}/StreamDetect", pb.StreamDetectRequest.SerializeToString, pb.StreamDetectResponse.FromString
        )

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
        """Closes the channel."""
        self._channel.close()

    def detect(self, image: bytes | Bytes8, options: Options | None = None) -> Detection:
        """What the server says of one image."""
        request = pb.DetectRequest(image=read_answers.image_message(image))
        _set_options(request, options)
        with self._errors():
            return read_answers.detection_of(self._detect(request, timeout=self._timeout_s).detection)

    def detect_batch(
        self, images: Sequence[bytes | Bytes8], options: Options | None = None
    ) -> list[Detection | AdvsentryError]:
        """What the server says of several images, in order; a bad one gets an error of its own.

        At most `ServerInfo.max_batch_items` images; `detect_stream` takes any number.
        """
        request = pb.BatchDetectRequest(images=[read_answers.image_message(image) for image in images])
        _set_options(request, options)
        with self._errors():
            answer = self._batch_detect(request, timeout=self._timeout_s)
        return [read_answers.result_of(result) for result in answer.results]

    def detect_stream(
        self, images: Iterable[bytes | Bytes8], options: Options | None = None
    ) -> Iterator[Detection | AdvsentryError]:
        """What the server says of any number of images, in order, as answers come; the way for bulk.

        Args:
            images: read by another thread, as fast as the server takes them.
        """
        with self._errors():
            for answer in self._stream_detect(_stream(images, options)):
                yield read_answers.result_of(answer.result)

    def info(self) -> ServerInfo:
        """What the server runs and takes."""
        with self._errors():
            return read_answers.info_of(self._model_info(pb.GetModelInfoRequest(), timeout=self._timeout_s))

    def is_serving(self, service: str = "ready") -> bool:
        """Whether the server says SERVING; False when nobody answers.

        Args:
            service: `ready`, `live`, `` or `advsentry.v1.DetectorService`.
        """
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = self._check(request, timeout=self._timeout_s)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            self._raise(error)

    def _raise(self, error: grpc.RpcError) -> NoReturn:
        if not isinstance(error, grpc.Call):
            raise AdvsentryError(f"{self.target}: {error}") from error
        trailers = {str(key): str(value) for key, value in error.trailing_metadata() or ()}
        made = error_of(error.code(), error.details() or "", trailers)
        if isinstance(made, Unavailable) and re.search("connect|resolv", str(made)):
            made = Unavailable(f"no server answers at {self.target}; start one with `advsentry serve`")
        raise made from error


def _set_options(request: pb.DetectRequest | pb.BatchDetectRequest, options: Options | None) -> None:
    if options is not None:
        request.options.CopyFrom(read_answers.options_message(options))


def _stream(images: Iterable[bytes | Bytes8], options: Options | None) -> Iterator[pb.StreamDetectRequest]:
    first = pb.StreamOptions(options=read_answers.options_message(options or Options()), preserve_order=True)
    for number, image in enumerate(images):
        yield pb.StreamDetectRequest(
            item_id=str(number),
            image=read_answers.image_message(image),
            stream_options=first if number == 0 else None,
        )
