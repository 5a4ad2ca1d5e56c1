"""Through the door: a real server and real messages."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service.client import Client
from service.detection.engine import Engine
from service.detection.types import Measurements
from service.detection.verdict import RevealMode, Wish, judge, reveal
from service.errors import Overloaded
from service.rpc import convert, read_answers
from service.rpc.decoding import Decoder
from service.rpc.read_answers import Options
from tests import tiny
from tests.service import bad_images
from tests.service.running import Running, running

SERVICE = "advsentry.v1.DetectorService"
CODE = grpc.StatusCode
DETECT = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Detect"}
STREAM = {"grpc_type": "bidi_stream", "grpc_service": SERVICE, "grpc_method": "StreamDetect"}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine, max_batch_items=8) as made:
        yield made


@pytest.fixture(scope="module")
def stub(server: Running) -> detection_pb2_grpc.DetectorServiceStub:
    return detection_pb2_grpc.DetectorServiceStub(server.channel)


def raw(image: np.ndarray) -> pb.Image:
    height, width, channels = image.shape
    return pb.Image(raw=pb.RawImage(height=height, width=width, channels=channels, data=image.tobytes()))


def file(data: bytes, mime_type: str = "") -> pb.Image:
    return pb.Image(encoded=pb.EncodedImage(data=data, mime_type=mime_type))


GOOD = raw(tiny.images(1)[0])
ODD = raw(tiny.odd_image())


def fails(call: object, request: Message | object, code: grpc.StatusCode, says: str) -> dict[str, str]:
    with pytest.raises(grpc.RpcError, match=says) as caught:
        call(request)  # type: ignore[operator]
    assert caught.value.code() is code
    return {key: str(value) for key, value in caught.value.trailing_metadata()}


def test_detect_answers_as_the_engine_does(stub: detection_pb2_grpc.DetectorServiceStub, engine: Engine) -> None:
    images = tiny.images(20, seed=4)
    expected = engine.detect(images)
    for image, known in zip(images, expected, strict=True):
        found = stub.Detect(pb.DetectRequest(request_id="7", image=raw(image)))
        assert found.meta.request_id == "7"
        assert found.meta.model_version == "1"
        assert found.meta.batch_size == 1
        assert found.detection.top.index == known.top.index
        assert (found.detection.verdict == pb.VERDICT_ADVERSARIAL) == (known.verdict == "adversarial")


def test_what_is_hidden_is_absent(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    detection = stub.Detect(pb.DetectRequest(image=ODD)).detection
    assert detection.HasField("combined_p_value")
    assert not detection.detectors[0].HasField("score")
    assert not detection.detectors[0].HasField("threshold")
    assert list(detection.embedding) == []


def test_a_call_ends_with_its_times(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    _, call = stub.Detect.with_call(pb.DetectRequest(image=GOOD))
    trailers = dict(call.trailing_metadata())
    assert trailers["x-advsentry-batch"] == "1"
    assert float(trailers["x-advsentry-queue-ms"]) >= 0
    assert float(trailers["x-advsentry-infer-ms"]) > 0


@pytest.mark.parametrize("case", bad_images.CASES, ids=lambda case: case.name)
def test_a_bad_image_gets_its_reason_and_the_server_serves_on(
    stub: detection_pb2_grpc.DetectorServiceStub, case: bad_images.Case
) -> None:
    trailers = fails(
        stub.Detect, pb.DetectRequest(image=file(case.data, case.mime_type)), CODE.INVALID_ARGUMENT, case.says
    )
    assert trailers["x-advsentry-reason"] == case.reason
    assert stub.Detect(pb.DetectRequest(image=GOOD)).detection.top.label


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (pb.DetectRequest(), CODE.INVALID_ARGUMENT, "got no bytes"),
        (pb.DetectRequest(image=pb.Image()), CODE.INVALID_ARGUMENT, "got no bytes"),
        (pb.DetectRequest(image=GOOD, request_id="ä" * 65), CODE.INVALID_ARGUMENT, "at most 128 bytes, got 130"),
        (
            pb.DetectRequest(image=GOOD, options=pb.DetectOptions(target_fpr=0.03)),
            CODE.INVALID_ARGUMENT,
            r"expected one of 0\.005, 0\.01, 0\.02, 0\.05, 0\.1",
        ),
        (
            pb.DetectRequest(image=GOOD, options=pb.DetectOptions(target_fpr=0.001)),
            CODE.INVALID_ARGUMENT,
            "needs 999 calibration images",
        ),
        (
            pb.DetectRequest(image=GOOD, options=pb.DetectOptions(target_fpr=float("nan"))),
            CODE.INVALID_ARGUMENT,
            "got nan",
        ),
        (
            pb.DetectRequest(image=GOOD, options=pb.DetectOptions(target_fpr=0)),
            CODE.INVALID_ARGUMENT,
            "got 0",
        ),
        (pb.DetectRequest(image=GOOD, options=pb.DetectOptions(detectors=["x"])), CODE.INVALID_ARGUMENT, "unknown det"),
        (pb.DetectRequest(image=GOOD, options=pb.DetectOptions(model_version="9")), CODE.NOT_FOUND, "not '9'"),
        (
            pb.DetectRequest(image=GOOD, options=pb.DetectOptions(return_embedding=True)),
            CODE.PERMISSION_DENIED,
            "embedding",
        ),
        (pb.DetectRequest(image=file(b"x" * (17 * 2**20))), CODE.RESOURCE_EXHAUSTED, "larger than max"),
    ],
    ids=["empty", "no source", "id", "step", "alpha", "nan", "zero", "detector", "version", "embedding", "too large"],
)
def test_a_bad_call_gets_its_code(
    stub: detection_pb2_grpc.DetectorServiceStub, request_: pb.DetectRequest, code: grpc.StatusCode, says: str
) -> None:
    fails(stub.Detect, request_, code, says)
    assert stub.Detect(pb.DetectRequest(image=GOOD)).detection.top.label


@pytest.mark.parametrize("method", ["Detect", "BatchDetect", "GetModelInfo"])
def test_bytes_that_are_no_message_are_the_callers_fault(server: Running, method: str) -> None:
    call = server.channel.unary_unary(f"/{SERVICE}/{method}")
    fails(call, b"\xff\xff garbage", CODE.INVALID_ARGUMENT, f"expected one advsentry.v1.{method}Request")


def test_bytes_that_are_no_message_are_the_callers_fault_in_reflection_too(server: Running) -> None:
    call = server.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff\xff garbage"])))
    assert caught.value.code() is CODE.INVALID_ARGUMENT


def test_a_batch_of_millions_is_refused_unparsed(server: Running) -> None:
    call = server.channel.unary_unary(f"/{SERVICE}/BatchDetect")
    since = time.monotonic()
    fails(call, b"\x12\x00" * (8 * 2**20 - 100), CODE.INVALID_ARGUMENT, "expected 1 to 8, got far more")
    assert time.monotonic() - since < 5  # parsed, it takes 25 s and 800 MB


@pytest.mark.parametrize(
    "rest", [b"", b"\x80", b"\x12\xff", b"\x13\x14", b"\xff" * 20, b"\x98\x06\x01", b"\x19" + b"0" * 8, b"\x1d0000"]
)
def test_a_batch_with_odd_fields_is_read_or_refused(server: Running, rest: bytes) -> None:
    request = pb.BatchDetectRequest(images=[GOOD]).SerializeToString() + rest
    call = server.channel.unary_unary(f"/{SERVICE}/BatchDetect").future(request)
    assert call.code() in (CODE.OK, CODE.INVALID_ARGUMENT)
    assert call.code() is not CODE.OK or len(pb.BatchDetectResponse.FromString(call.result()).results) == 1


def test_a_detector_that_is_named_often_costs_no_more(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    options = pb.DetectOptions(detectors=["contrast"] * 100)
    results = stub.BatchDetect(pb.BatchDetectRequest(images=[GOOD] * 8, options=options)).results
    assert [row.detector for row in results[0].detection.detectors] == ["contrast"]
    asked = convert.batch_request(pb.BatchDetectRequest(images=[GOOD], options=options).SerializeToString(), 8).asked
    assert asked.wish.detectors == ("contrast",)


@pytest.mark.parametrize(
    ("method", "kind", "options"),
    [
        ("Detect", pb.DetectRequest, "options"),
        ("BatchDetect", pb.BatchDetectRequest, "options"),
        ("StreamDetect", pb.StreamDetectRequest, "stream_options"),
    ],
)
def test_a_message_with_far_too_many_names_of_detectors_is_refused_unparsed(
    server: Running, method: str, kind: Any, options: str
) -> None:
    names = pb.DetectOptions(detectors=["contrast"] * 10**4)
    given: Any = pb.StreamOptions(options=names) if method == "StreamDetect" else names
    message = kind(**{options: given}).SerializeToString()
    channel = server.channel
    call = (
        channel.stream_stream(f"/{SERVICE}/{method}")(iter([message]))
        if method == "StreamDetect"
        else channel.unary_unary(f"/{SERVICE}/{method}").future(message)
    )
    assert call.code() is CODE.INVALID_ARGUMENT
    assert "got far more" in call.details()


def test_a_batch_lets_others_in_while_it_decodes_and_keeps_its_deadline(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(engine, canary_s=100.0, max_deadline_s=1.0) as server:
        decode_now = Decoder.decode_now

        def slow_decode(decoder: Decoder, picture: convert.Picture) -> np.ndarray:
            time.sleep(0.02)
            return decode_now(decoder, picture)

        monkeypatch.setattr(Decoder, "decode_now", slow_decode)
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        batch = stub.BatchDetect.future(pb.BatchDetectRequest(images=[GOOD] * 200))
        until(lambda: server.value("grpc_server_started_total", **{**DETECT, "grpc_method": "BatchDetect"}) == 1)
        stub.Detect(pb.DetectRequest(image=GOOD))
        assert not batch.done()
        with pytest.raises(grpc.RpcError, match="while the images were decoded") as caught:
            batch.result(5)
        assert caught.value.code() is CODE.DEADLINE_EXCEEDED


def test_bytes_that_are_no_message_end_a_stream(server: Running) -> None:
    call = server.channel.stream_stream(f"/{SERVICE}/StreamDetect")
    with pytest.raises(grpc.RpcError, match="StreamDetectRequest") as caught:
        list(call(iter([b"\xff\xff garbage"])))
    assert caught.value.code() is CODE.INVALID_ARGUMENT


def test_an_unknown_method_is_unimplemented(server: Running) -> None:
    fails(server.channel.unary_unary(f"/{SERVICE}/Nope"), b"", CODE.UNIMPLEMENTED, "found")


def test_a_bad_image_never_fails_its_neighbours(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    alone = stub.Detect(pb.DetectRequest(image=GOOD)).detection
    bad = [file(case.data, case.mime_type) for case in bad_images.CASES[:3]]
    results = stub.BatchDetect(pb.BatchDetectRequest(request_id="b", images=[bad[0], GOOD, bad[1], ODD, bad[2]]))
    outcomes = [result.WhichOneof("outcome") for result in results.results]
    assert outcomes == ["error", "detection", "error", "detection", "error"]
    assert results.results[1].detection == alone
    assert results.results[3].detection.verdict == pb.VERDICT_ADVERSARIAL
    reasons = [pb.ErrorReason.Name(results.results[i].error.reason) for i in (0, 2, 4)]
    assert reasons == [f"ERROR_REASON_{case.reason}" for case in bad_images.CASES[:3]]
    assert not results.results[0].error.retryable


def test_a_batch_of_bad_images_only_is_answered(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    assert len(stub.BatchDetect(pb.BatchDetectRequest(images=[pb.Image()] * 3)).results) == 3


@pytest.mark.parametrize("count", [0, 9])
def test_a_batch_of_the_wrong_length_is_refused(stub: detection_pb2_grpc.DetectorServiceStub, count: int) -> None:
    request = pb.BatchDetectRequest(images=[GOOD] * count)
    fails(stub.BatchDetect, request, CODE.INVALID_ARGUMENT, f"expected 1 to 8, got {count}")


def items(images: list[pb.Image], *, in_order: bool) -> Iterator[pb.StreamDetectRequest]:
    for number, image in enumerate(images):
        options = pb.StreamOptions(preserve_order=in_order) if number == 0 else None
        yield pb.StreamDetectRequest(item_id=str(number), image=image, stream_options=options)


@pytest.mark.parametrize("in_order", [False, True], ids=["as ready", "in order"])
def test_each_message_of_a_stream_gets_exactly_one_answer(
    stub: detection_pb2_grpc.DetectorServiceStub, engine: Engine, in_order: bool
) -> None:
    images = tiny.images(700, seed=8)
    sent = [raw(image) for image in images]
    sent[3] = sent[699] = pb.Image()
    known = engine.detect(images)
    answers = list(stub.StreamDetect(items(sent, in_order=in_order)))
    ids = [int(answer.item_id) for answer in answers]
    assert sorted(ids) == list(range(700))
    if in_order:
        assert ids == list(range(700))
    for number, answer in zip(ids, answers, strict=True):
        if number in (3, 699):
            assert answer.result.error.reason == pb.ERROR_REASON_EMPTY_IMAGE
        else:
            assert answer.result.detection.top.index == known[number].top.index


WISHES = {
    RevealMode.DECISION: [Wish()],
    RevealMode.P_VALUES: [Wish(), Wish(detectors=("contrast",), top_k=2)],
    RevealMode.SCORES: [Wish(), Wish(embedding=True, raw_scores=True, top_k=3)],
}


@pytest.mark.parametrize("mode", RevealMode)
def test_every_call_shows_what_reveal_shows_and_nothing_else(engine: Engine, mode: RevealMode) -> None:
    images = np.concatenate([tiny.images(30, seed=3), tiny.odd_image()[None]])
    judged = judge(engine.measure(images), engine.bundle, engine.bundle.manifest.default_alpha)
    with running(engine, reveal=mode) as server:
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        for wish in WISHES[mode]:
            known = reveal(judged, mode, wish).detections()
            options = read_answers.options_message(
                Options(
                    detectors=wish.detectors, top_k=wish.top_k, embedding=wish.embedding, raw_scores=wish.raw_scores
                )
            )
            sent = [raw(image) for image in images]
            one = [stub.Detect(pb.DetectRequest(image=image, options=options)).detection for image in sent]
            batch = stub.BatchDetect(pb.BatchDetectRequest(images=sent, options=options)).results
            messages = [pb.StreamDetectRequest(image=image) for image in sent]
            messages[0].stream_options.options.CopyFrom(options)
            messages[0].stream_options.preserve_order = True
            stream = list(stub.StreamDetect(iter(messages)))
            assert [read_answers.detection_of(answer) for answer in one] == known
            assert [read_answers.result_of(result) for result in batch] == known
            assert [read_answers.result_of(answer.result) for answer in stream] == known
            assert all(answer.meta.batch_size > 0 for answer in stream)


def test_an_empty_stream_ends_well(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    assert list(stub.StreamDetect(iter(()))) == []


def test_bad_options_end_a_stream(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    options = pb.StreamOptions(options=pb.DetectOptions(target_fpr=0.03))
    request = pb.StreamDetectRequest(item_id="0", image=GOOD, stream_options=options)
    with pytest.raises(grpc.RpcError, match="expected one of") as caught:
        list(stub.StreamDetect(iter([request])))
    assert caught.value.code() is CODE.INVALID_ARGUMENT


def test_the_model_info_says_what_callers_need(stub: detection_pb2_grpc.DetectorServiceStub) -> None:
    info = stub.GetModelInfo(pb.GetModelInfoRequest())
    assert (info.input_height, info.input_width, info.input_channels) == (8, 8, 1)
    assert list(info.labels) == list(tiny.CLASSES)
    assert list(info.limits.target_fpr_steps) == [0.005, 0.01, 0.02, 0.05, 0.1]
    assert info.limits.max_batch_items == 8
    assert info.limits.max_message_bytes == 16 * 2**20
    assert info.detectors[0].calibration_size == 299
    assert info.execution_provider == "CPUExecutionProvider"
    assert info.loaded_at.seconds > 1.7e9


def test_scores_mode_shows_everything_and_takes_any_alpha(engine: Engine) -> None:
    with running(engine, reveal=RevealMode.SCORES) as server:
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        options = pb.DetectOptions(target_fpr=0.03, return_embedding=True, return_raw_scores=True)
        detection = stub.Detect(pb.DetectRequest(image=GOOD, options=options)).detection
        known = engine.detect(tiny.images(1), alpha=0.03)[0]
        assert detection.combined_p_value == known.p_value
        assert detection.detectors[0].score == known.detectors[0].score
        assert np.allclose(detection.embedding, known.embedding)


class Slow:
    """An engine whose graph waits until it is let go."""

    def __init__(self, engine: Engine) -> None:
        self.bundle, self.graph, self.resizer, self.resolve_alpha, self.canaries = (
            engine.bundle,
            engine.graph,
            engine.resizer,
            engine.resolve_alpha,
            engine.canaries,
        )
        self.warm_up = engine.warm_up
        self._measure = engine.measure
        self.go = threading.Event()
        self.go.set()
        self.sizes: list[int] = []

    def measure(self, images: np.ndarray) -> Measurements:
        assert self.go.wait(20)
        self.sizes.append(len(images))
        return self._measure(images)


def until(holds: object, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@pytest.fixture
def slow(engine: Engine) -> Iterator[tuple[Slow, Running]]:
    slowed = Slow(engine)
    with running(slowed, queue_items=4, max_batch=1, canary_s=100.0) as server:  # type: ignore[arg-type]
        slowed.go.clear()
        yield slowed, server
        slowed.go.set()


def rpc_count(server: Running, code: str, method: str = "Detect") -> float:
    kind = "bidi_stream" if method == "StreamDetect" else "unary"
    return server.value(
        "grpc_server_handled_total", grpc_type=kind, grpc_service=SERVICE, grpc_method=method, grpc_code=code
    )


def test_a_full_queue_is_refused_with_a_time_to_come_back(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    detect = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect
    waiting = [detect.future(pb.DetectRequest(image=GOOD)) for _ in range(5)]  # one runs, four wait
    until(lambda: server.value("grpc_server_msg_received_total", **DETECT) == 5)
    trailers = fails(detect, pb.DetectRequest(image=GOOD), CODE.RESOURCE_EXHAUSTED, "queue is full")
    assert 20 <= int(trailers["grpc-retry-pushback-ms"]) <= 5000
    slowed.go.set()
    assert all(future.result(5).detection.top.label for future in waiting)
    assert server.value("advsentry_dropped_total", reason="overload") == 1


def test_a_detect_call_is_refused_before_its_message_is_read(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    detect = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect
    waiting = [detect.future(pb.DetectRequest(image=GOOD)) for _ in range(5)]
    until(lambda: server.value("grpc_server_msg_received_total", **DETECT) == 5)
    never = threading.Event()

    def no_message() -> Iterator[bytes]:
        never.wait(60)
        yield b""

    with pytest.raises(grpc.RpcError, match="queue is full") as caught:
        server.channel.stream_unary(f"/{SERVICE}/Detect")(no_message(), timeout=60)
    never.set()
    assert caught.value.code() is CODE.RESOURCE_EXHAUSTED
    slowed.go.set()
    assert all(future.result(5).detection.top.label for future in waiting)
    assert server.value("grpc_server_msg_received_total", **DETECT) == 5
    assert server.value("advsentry_images_total", outcome="error") == 1


def test_the_client_comes_back_when_a_full_queue_says_so(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    detect = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect
    waiting = [detect.future(pb.DetectRequest(image=GOOD)) for _ in range(5)]
    until(lambda: server.value("grpc_server_msg_received_total", **DETECT) == 5)
    with Client(server.ports.grpc) as client, ThreadPoolExecutor(1) as executor:
        patient = executor.submit(client.detect, tiny.images(1)[0])
        until(lambda: rpc_count(server, "RESOURCE_EXHAUSTED") >= 1)
        slowed.go.set()
        assert patient.result(10).top.label
    assert all(future.result(5).detection.top.label for future in waiting)
    until(lambda: rpc_count(server, "OK") == 6)


def test_a_client_gives_up_on_a_queue_that_stays_full(slow: tuple[Slow, Running]) -> None:
    _, server = slow
    detect = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect
    waiting = [detect.future(pb.DetectRequest(image=GOOD)) for _ in range(5)]
    until(lambda: server.value("grpc_server_msg_received_total", **DETECT) == 5)
    with Client(server.ports.grpc) as client, pytest.raises(Overloaded, match="queue is full"):
        client.detect(tiny.images(1)[0])
    until(lambda: rpc_count(server, "RESOURCE_EXHAUSTED") == 4)
    for future in waiting:
        future.cancel()


def test_a_passed_deadline_never_runs(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    detect = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect
    first = detect.future(pb.DetectRequest(image=GOOD))
    until(lambda: server.value("advsentry_inflight") == 1)
    for timeout_s in (0.1, 1.0, 10.0):  # on a busy machine the shorter ones may pass before the call has come
        late = detect.future(pb.DetectRequest(image=GOOD), timeout=timeout_s)
        assert late.exception(60).code()  # type: ignore[union-attr] is CODE.DEADLINE_EXCEEDED
        if server.value("advsentry_queue_items") == 1:
            break
    dropped = server.value("advsentry_dropped_total", reason="deadline")  # of calls that came too late to wait
    slowed.sizes.clear()
    slowed.go.set()
    first.result(60)
    detect(pb.DetectRequest(image=GOOD))
    assert slowed.sizes == [1, 1]
    until(lambda: server.value("advsentry_dropped_total", reason="deadline") == dropped + 1)


def test_the_servers_own_deadline_holds(engine: Engine) -> None:
    slowed = Slow(engine)
    with running(slowed, max_deadline_s=0.1, canary_s=100.0) as server:  # type: ignore[arg-type]
        slowed.go.clear()
        detect = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect
        fails(detect, pb.DetectRequest(image=GOOD), CODE.DEADLINE_EXCEEDED, "deadline passed")
        slowed.go.set()


def test_a_cancelled_call_is_counted_as_such(slow: tuple[Slow, Running]) -> None:
    _, server = slow
    call = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect.future(pb.DetectRequest(image=GOOD))
    until(lambda: server.value("grpc_server_started_total", **DETECT) == 1)
    call.cancel()
    until(lambda: rpc_count(server, "CANCELLED") == 1)


def test_a_stream_is_read_no_further_than_its_window(engine: Engine) -> None:
    slowed = Slow(engine)
    with running(slowed, stream_window=5, canary_s=100.0) as server:  # type: ignore[arg-type]
        slowed.go.clear()
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        answers = stub.StreamDetect(items([GOOD] * 50, in_order=True))

        def received() -> float:
            return server.value("grpc_server_msg_received_total", **STREAM)

        until(lambda: received() >= 5)
        time.sleep(0.2)
        assert received() <= 6
        slowed.go.set()
        assert [answer.item_id for answer in answers] == [str(i) for i in range(50)]


def test_a_cancelled_stream_leaves_nothing_behind(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
    answers = stub.StreamDetect(items([GOOD] * 4, in_order=False))
    until(lambda: server.value("advsentry_inflight") == 1)
    time.sleep(0.1)
    answers.cancel()
    until(lambda: rpc_count(server, "CANCELLED", "StreamDetect") == 1)
    slowed.go.set()
    stub.Detect(pb.DetectRequest(image=GOOD))
    until(lambda: server.value("advsentry_dropped_total", reason="cancelled") == 3)


def test_the_unforeseen_is_internal_with_an_id_and_its_text_in_the_log_only(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def resolve_alpha(alpha: float | None) -> float:
        if alpha is None:
            return 0.01
        raise RuntimeError("a secret")

    broken = Slow(engine)
    broken.resolve_alpha = resolve_alpha
    with running(broken, canary_s=100.0) as server:  # type: ignore[arg-type]
        detect = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect
        with pytest.raises(grpc.RpcError) as caught:
            detect(pb.DetectRequest(image=GOOD, options=pb.DetectOptions(target_fpr=0.01)))
        assert caught.value.code() is CODE.INTERNAL
        assert "secret" not in caught.value.details()
        error_id = caught.value.details().split()[2].rstrip(";")
        until(lambda: rpc_count(server, "INTERNAL") == 1)
    assert error_id in caplog.text
    assert "a secret" in caplog.text


def test_counts_are_exact(engine: Engine) -> None:
    with running(engine, canary_s=100.0) as server:
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        for _ in range(3):
            stub.Detect(pb.DetectRequest(image=ODD))
        fails(stub.Detect, pb.DetectRequest(), CODE.INVALID_ARGUMENT, "no bytes")
        list(stub.StreamDetect(items([GOOD, ODD, pb.Image()], in_order=False)))
        until(lambda: rpc_count(server, "OK", "StreamDetect") == 1)
        assert rpc_count(server, "OK") == 3
        assert rpc_count(server, "INVALID_ARGUMENT") == 1
        assert server.value("advsentry_images_total", outcome="detected") == 5
        assert server.value("advsentry_images_total", outcome="error") == 2
        assert server.value("advsentry_verdicts_total", verdict="adversarial") == 4
        assert server.value("advsentry_detector_p_value_count", detector="fused") == 5
        assert server.value("advsentry_flagged_total", reason="OUT_OF_DISTRIBUTION") == 4
        assert server.value("grpc_server_msg_sent_total", **STREAM) == 3
        assert server.value("grpc_server_msg_received_total", **STREAM) == 3


def test_reflection_lists_the_services(server: Running) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    answer = next(iter(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))))
    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


def test_compressed_messages_are_refused_unless_they_are_wanted(engine: Engine) -> None:
    message = pb.DetectRequest(image=GOOD).SerializeToString()
    with running(engine) as server:
        method = server.channel.unary_unary(f"/{SERVICE}/Detect")
        assert method(message, timeout=60)
        with pytest.raises(grpc.RpcError, match=r"[Cc]ompression") as caught:
            method(message, timeout=60, compression=grpc.Compression.Gzip)
        assert caught.value.code() is CODE.UNIMPLEMENTED
    with running(engine, compression=True) as server:
        method = server.channel.unary_unary(f"/{SERVICE}/Detect")
        assert method(message, timeout=60, compression=grpc.Compression.Gzip)
