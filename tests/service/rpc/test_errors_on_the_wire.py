"""What a caller reads in the end of a call that failed: field, times, retry; and that nothing is ever UNKNOWN."""

import itertools
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service.detection.engine import Engine
from tests.service.bad_images import CASES
from tests.service.rpc.test_door import GOOD, file, raw
from tests.service.running import Running, running

SERVICE = "advsentry.v1.DetectorService"
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine, max_batch_items=8, max_image_bytes=2**20) as made:
        yield made


@pytest.fixture(scope="module")
def stub(server: Running) -> detection_pb2_grpc.DetectorServiceStub:
    return detection_pb2_grpc.DetectorServiceStub(server.channel)


def failure(call: object, request: object) -> grpc.Call:
    with pytest.raises(grpc.RpcError) as caught:
        list(call(request))  # type: ignore[operator]  # a call of one answer fails before there is a list to make
    assert isinstance(caught.value, grpc.Call)
    return caught.value


def field(call: grpc.Call) -> str:
    """The field at fault, out of the rich details, which must agree with the status."""
    status = status_pb2.Status.FromString(dict(call.trailing_metadata())["grpc-status-details-bin"])
    assert (status.code, status.message) == (call.code().value[0], call.details())
    request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(request)
    (violation,) = request.field_violations
    assert violation.description == call.details()
    return violation.field


WRONG_TYPE = next(case for case in CASES if case.reason == "FORMAT_MISMATCH")
CUT = next(case for case in CASES if case.reason == "UNDECODABLE")
ALPHA = pb.DetectOptions(target_fpr=0.03)


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("Detect", pb.DetectRequest(), "image"),
        ("Detect", pb.DetectRequest(image=file(CUT.data)), "image.encoded.data"),
        ("Detect", pb.DetectRequest(image=file(WRONG_TYPE.data, WRONG_TYPE.mime_type)), "image.encoded.mime_type"),
        ("Detect", pb.DetectRequest(image=file(b"x" * (2**20 + 1))), "image.encoded.data"),
        ("Detect", pb.DetectRequest(image=raw(np.zeros((9, 8, 1), np.uint8))), "image.raw"),
        ("Detect", pb.DetectRequest(image=pb.Image(raw=pb.RawImage(height=8, data=b"x"))), "image.raw.data"),
        ("Detect", pb.DetectRequest(image=GOOD, options=ALPHA), "options.target_fpr"),
        ("Detect", pb.DetectRequest(image=GOOD, request_id="x" * 129), "request_id"),
        ("Detect", pb.DetectRequest(image=GOOD, options=pb.DetectOptions(detectors=["x"])), "options.detectors"),
        ("BatchDetect", pb.BatchDetectRequest(), "images"),
        ("BatchDetect", pb.BatchDetectRequest(images=[GOOD] * 9), "images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_field_at_fault_and_the_times_are_told(
    stub: detection_pb2_grpc.DetectorServiceStub, method: str, request_: object, expected: str
) -> None:
    call = failure(getattr(stub, method), request_)
    assert call.code() is CODE.INVALID_ARGUMENT
    assert field(call) == expected
    trailers = dict(call.trailing_metadata())
    assert (trailers["x-advsentry-queue-ms"], trailers["x-advsentry-batch"]) == ("0.000", "0")


def test_the_field_at_fault_in_a_streams_options_is_told(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    request = pb.StreamDetectRequest(image=GOOD, stream_options=pb.StreamOptions(options=ALPHA))
    assert field(failure(stub.StreamDetect, iter([request]))) == "stream_options.options.target_fpr"


DEEP = b"\xa3\x06" * 300 + b"\xa4\x06" * 300
"""Groups of an unknown field, 300 deep; protobuf reads 100."""
GARBAGE = {"garbage": b"\xff\xff garbage", "cut": b"\x12\xff\x01", "deep": DEEP, "not UTF-8": b"\x0a\x02\xff\xfe"}


PATHS = {
    f"/{SERVICE}/Detect": "unary_unary",
    f"/{SERVICE}/BatchDetect": "unary_unary",
    f"/{SERVICE}/GetModelInfo": "unary_unary",
    f"/{SERVICE}/StreamDetect": "stream_stream",
    "/grpc.health.v1.Health/Check": "unary_unary",
    "/grpc.health.v1.Health/Watch": "unary_stream",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "stream_stream",
}
BAD = [
    (path, name)
    for path, name in itertools.product(PATHS, GARBAGE)
    if (path.rpartition("/")[2], name) != ("GetModelInfo", "not UTF-8")  # it has no text: a field of a newer client
]


@pytest.mark.parametrize(("path", "name"), BAD)
def test_bytes_that_are_no_message_are_never_unknown(server: Running, path: str, name: str) -> None:
    shape, data = PATHS[path], GARBAGE[name]
    call = getattr(server.channel, shape)(path)
    failed = failure(call, iter([data]) if shape.startswith("stream") else data)
    assert failed.code() is CODE.INVALID_ARGUMENT
    stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
    assert stub.Detect(pb.DetectRequest(image=GOOD)).detection.top.label


def test_fields_of_a_newer_client_are_borne(stub: detection_pb2_grpc.DetectorServiceStub, server: Running) -> None:
    unknown = b"\xa0\x06\x01" * 1000 + b"\xa2\x06\x03abc" + b"\xa3\x06" * 20 + b"\xa4\x06" * 20
    call = server.channel.unary_unary(f"/{SERVICE}/Detect")
    answer = pb.DetectResponse.FromString(call(pb.DetectRequest(image=GOOD).SerializeToString() + unknown))
    assert answer.detection == stub.Detect(pb.DetectRequest(image=GOOD)).detection
