"""ModelStreamInfer: answers in order, failures that end nothing, and no reading ahead."""

import itertools
import queue
import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from protos import inference as pb
from service.client import Client
from service.detection.engine import Engine
from service.errors import Overloaded
from service.rpc import convert_inference
from service.rpc.call import Call
from tests import tiny
from tests.service import oip
from tests.service.rpc.test_door import Slow, until
from tests.service.running import Running, running

CODE = grpc.StatusCode
STREAM = {"grpc_type": "bidi_stream", "grpc_service": oip.SERVICE, "grpc_method": "ModelStreamInfer"}
REAL_STATUS = (("triton_grpc_error", "true"),)
ONE = tiny.images(1)


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine, max_batch_items=32, canary_s=100.0) as made:
        yield made


def received(server: Running) -> float:
    return server.value("grpc_server_msg_received_total", **STREAM)


def ended(server: Running, code: str) -> float:
    return server.value("grpc_server_handled_total", **STREAM, grpc_code=code)


class Sending:
    """A stream whose requests are given one by one."""

    def __init__(self, server: Running, **options: object) -> None:
        self._requests: queue.Queue[pb.ModelInferRequest | None] = queue.Queue()
        self.call = oip.stream(server.channel, iter(self._requests.get, None), **options)

    def send(self, request: pb.ModelInferRequest) -> None:
        self._requests.put(request)

    def end(self) -> None:
        self._requests.put(None)


def test_answers_come_in_order_and_are_those_of_the_native_api(server: Running) -> None:
    images = tiny.images(300, seed=3)
    images[::7] = tiny.odd_image()
    with Client(server.ports.grpc) as client:
        known = list(client.detect_stream(images))
    sizes = [1 + i % 5 for i in range(100)]
    edges = np.cumsum([0, *sizes])
    groups = [range(a, b) for a, b in itertools.pairwise(edges)]
    requests = [
        oip.files([oip.png(images[i]) for i in group], id=str(number))
        if number % 2
        else oip.pixels(images[group], id=str(number))
        for number, group in enumerate(groups)
    ]
    answers = list(oip.stream(server.channel, iter(requests)))
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(100)]
    for group, answer in zip(groups, answers, strict=True):
        assert answer.error_message == ""
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        oip.check_same(oip.tensors(answer.infer_response), [known[i] for i in group])


def bad_requests() -> list[tuple[pb.ModelInferRequest, str]]:
    return [
        (oip.files([oip.png(ONE[0]), b"x"], id="a"), "[request id: a] INVALID_ARGUMENT: images[1]: "),
        (oip.pixels(ONE, id="b", model_name="x"), "[request id: b] NOT_FOUND: model 'x'"),
        (oip.pixels(ONE, model_version="9"), "[request id: <id_unknown>] NOT_FOUND: "),
        (pb.ModelInferRequest(model_name="advsentry", id="d"), "[request id: d] INVALID_ARGUMENT: inputs: "),
        (
            oip.pixels(ONE, id="e", parameters={"timeout": pb.InferParameter(bool_param=True)}),
            "[request id: e] INVALID_ARGUMENT: parameters: ",
        ),
    ]


def test_a_failure_is_told_in_its_place_and_the_stream_lives_on(server: Running) -> None:
    good = oip.pixels(ONE, id="good")
    requests = [request for bad, _ in bad_requests() for request in (bad, good)]
    answers = list(oip.stream(server.channel, iter(requests)))
    assert len(answers) == len(requests)
    for (bad, says), answer in zip(bad_requests(), answers[::2], strict=True):
        assert answer.error_message.startswith(says)
        assert answer.infer_response.id == bad.id
        assert not answer.infer_response.outputs
    assert all(answer.infer_response.outputs for answer in answers[1::2])


@pytest.mark.parametrize(
    ("bad", "known_id", "says"),
    [
        (oip.pixels(ONE, id="x" * 129), "x" * 128, "INVALID_ARGUMENT: id: expected at most 128 bytes, got 129"),
        (oip.pixels(ONE, id="x" + "ä" * 64), "x" + "ä" * 63, "INVALID_ARGUMENT: id: expected at most 128 bytes, got"),
        (
            oip.pixels(ONE, id="p", parameters={str(i): pb.InferParameter(bool_param=True) for i in range(400)}),
            "",
            "INVALID_ARGUMENT: expected one inference.ModelInferRequest of at most 32 images, got far more fields",
        ),
    ],
    ids=["long id", "long id of two-byte letters", "many parameters"],
)
def test_a_request_that_is_refused_before_its_fields_are_read_fails_alone(
    server: Running, bad: pb.ModelInferRequest, known_id: str, says: str
) -> None:
    good = oip.pixels(ONE, id="good")
    first, refused, last = oip.stream(server.channel, iter([good, bad, good]))
    assert refused.error_message.startswith(f"[request id: {known_id or '<id_unknown>'}] {says}")
    assert refused.infer_response.id == known_id
    assert (first.infer_response.id, last.infer_response.id) == ("good", "good")
    call = oip.stream(server.channel, iter([bad, good]), metadata=REAL_STATUS)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is CODE.INVALID_ARGUMENT


@pytest.mark.parametrize("at", range(5))
def test_a_client_may_have_a_failure_end_the_stream_with_its_status(server: Running, at: int) -> None:
    code = CODE.NOT_FOUND if at in (1, 2) else CODE.INVALID_ARGUMENT
    requests = [oip.pixels(ONE, id="good"), bad_requests()[at][0], oip.pixels(ONE)]
    call = oip.stream(server.channel, iter(requests), metadata=REAL_STATUS)
    assert next(call).infer_response.id == "good"
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is code


def test_bytes_that_are_no_message_end_a_stream_after_what_came_before(server: Running) -> None:
    call = server.channel.stream_stream(f"/{oip.SERVICE}/ModelStreamInfer")
    answers = call(iter([oip.pixels(ONE).SerializeToString(), b"\xff\xff garbage"]))
    assert next(answers)
    with pytest.raises(grpc.RpcError, match="ModelInferRequest") as caught:
        list(answers)
    assert caught.value.code() is CODE.INVALID_ARGUMENT


def test_an_empty_stream_ends_well(server: Running) -> None:
    assert list(oip.stream(server.channel, iter(()))) == []


def test_what_nobody_foresaw_fails_one_request_only(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[object] = []
    server.loop.set_exception_handler(lambda _, context: caught.append(context["exception"]))
    stream_answer = convert_inference.stream_answer

    def failing(answer: convert_inference.Answer) -> bytes:
        if answer.request.request_id == "1":
            raise ZeroDivisionError
        return stream_answer(answer)

    monkeypatch.setattr(convert_inference, "stream_answer", failing)
    answers = list(oip.stream(server.channel, iter([oip.pixels(ONE, id=str(i)) for i in range(3)])))
    server.loop.set_exception_handler(None)
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert answers[1].error_message == "[request id: 1] INTERNAL: internal error"
    assert [type(error) for error in caught] == [ZeroDivisionError]


def test_what_a_caller_may_not_send_now_fails_by_itself(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    takes = Call.takes

    def limited(call: Call, *, items: int, size_bytes: int, request_id: str = "") -> None:
        if items > 4:
            raise Overloaded("over your rate", retry_after_ms=50)
        takes(call, items=items, size_bytes=size_bytes, request_id=request_id)

    monkeypatch.setattr(Call, "takes", limited)
    requests = iter([oip.pixels(tiny.images(size), id=str(size)) for size in (4, 5, 1)])
    answers = list(oip.stream(server.channel, requests))
    assert [answer.error_message for answer in answers] == [
        "",
        "[request id: 5] RESOURCE_EXHAUSTED: over your rate",
        "",
    ]


@pytest.fixture
def slow(engine: Engine) -> Iterator[tuple[Slow, Running]]:
    slowed = Slow(engine)
    with running(slowed, max_batch=1, stream_window=6, canary_s=100.0) as made:  # type: ignore[arg-type]
        slowed.go.clear()
        yield slowed, made
        slowed.go.set()


def test_it_reads_no_further_than_its_window_of_images(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    requests = iter([oip.pixels(tiny.images(2), id=str(i)) for i in range(50)])
    call = oip.stream(server.channel, requests)
    until(lambda: received(server) == 4)  # three are worked on, one waits for room
    time.sleep(0.2)
    assert received(server) == 4
    slowed.go.set()
    assert len(list(call)) == 50


def test_a_request_larger_than_the_window_has_its_turn(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    slowed.go.set()
    requests = [oip.pixels(tiny.images(size), id=str(size)) for size in (1, 9, 1, 20)]
    answers = [answer.infer_response for answer in oip.stream(server.channel, iter(requests))]
    assert [len(oip.tensors(answer)["label"]) for answer in answers] == [1, 9, 1, 20]


def test_it_waits_for_room_where_a_single_call_is_refused(engine: Engine) -> None:
    with running(engine, max_batch=1, queue_items=2, canary_s=100.0) as server:
        requests = iter([oip.pixels(tiny.images(3), id=str(i)) for i in range(60)])
        assert all(not answer.error_message for answer in oip.stream(server.channel, requests))


def test_large_files_wait_for_their_bytes_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    padding = b"\0" * 40_000  # behind the end of a PNG
    with running(engine, decode_bytes=50_000, canary_s=100.0) as server:
        held: list[int] = []
        decoder = server.app.models.served.current.decoder
        decode_now = decoder.decode_now

        def noting(picture: object) -> np.ndarray:
            held.append(decoder.held_bytes)
            return decode_now(picture)  # type: ignore[arg-type]

        monkeypatch.setattr(decoder, "decode_now", noting)
        requests = iter([oip.files([oip.png(ONE[0]) + padding], id=str(i)) for i in range(20)])
        answers = list(oip.stream(server.channel, requests))
        assert all(not answer.error_message for answer in answers)
        assert len(held) == 20
        assert 40_000 < max(held) < 50_000
        until(lambda: decoder.held_bytes == 0)


def test_large_messages_of_small_tensors_wait_for_their_bytes_too(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = b"\xfa\x7f\xc0\xb8\x02" + bytes(40_000)  # a field of so many bytes that nobody knows
    with running(engine, decode_bytes=50_000, canary_s=100.0) as server:
        held: list[int] = []
        pipeline = server.app.models.served.current
        score_all = pipeline.score_all

        def noting(*arguments: object, **named: object) -> object:
            held.append(pipeline.decoder.held_bytes)
            return score_all(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(pipeline, "score_all", noting)
        messages = [oip.pixels(ONE, id=str(i)).SerializeToString() + unknown for i in range(10)]
        call = server.channel.stream_stream(f"/{oip.SERVICE}/ModelStreamInfer")(iter(messages))
        assert all(not pb.ModelStreamInferResponse.FromString(answer).error_message for answer in call)
        assert len(held) == 10
        assert 40_000 < max(held) < 50_000
        until(lambda: pipeline.decoder.held_bytes == 0)


def test_a_client_that_leaves_leaves_no_work_behind(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    call = oip.stream(server.channel, iter([oip.pixels(ONE, id=str(i)) for i in range(20)]))
    until(lambda: received(server) == 7)
    ran = len(slowed.sizes)
    call.cancel()
    until(lambda: ended(server, "CANCELLED") == 1)
    slowed.go.set()
    until(lambda: server.value("advsentry_dropped_total", reason="cancelled") == 5)
    until(lambda: server.value("advsentry_inflight") == 0)
    assert len(slowed.sizes) == ran + 1  # the one that was in the graph


def test_a_deadline_ends_a_stream(slow: tuple[Slow, Running]) -> None:
    _, server = slow
    is_over = threading.Event()

    def kept_open() -> Iterator[object]:
        yield oip.pixels(ONE)  # may be refused at once, where runs take longer than the deadline
        is_over.wait(20)

    call = oip.stream(server.channel, kept_open(), timeout=0.3)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    is_over.set()
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED


def test_a_request_that_takes_too_long_fails_alone(slow: tuple[Slow, Running]) -> None:
    slowed, server = slow
    sending = Sending(server)
    sending.send(oip.pixels(ONE, id="a", parameters={"timeout": pb.InferParameter(int64_param=50_000)}))
    assert next(sending.call).error_message.startswith("[request id: a] DEADLINE_EXCEEDED: ")
    slowed.go.set()
    sending.send(oip.pixels(ONE, id="b"))
    assert next(sending.call).infer_response.id == "b"
    sending.end()
    assert list(sending.call) == []


def test_a_server_that_ends_does_not_wait_for_an_idle_stream(engine: Engine) -> None:
    ends: list[grpc.StatusCode] = []
    with running(engine, drain_s=15.0, canary_s=100.0) as server:
        sending = Sending(server)
        sending.send(oip.pixels(ONE, id="a"))
        assert next(sending.call).infer_response.id == "a"

        def wait() -> None:
            try:
                next(sending.call)
            except grpc.RpcError as error:
                ends.append(error.code())

        waiting = threading.Thread(target=wait)
        waiting.start()
        since = time.monotonic()
        server.loop.call_soon_threadsafe(server.app.models.served.drain)
        waiting.join(10)
        assert time.monotonic() - since < 10
    assert ends == [CODE.UNAVAILABLE]
    sending.end()
