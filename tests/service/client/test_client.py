"""service/client: both clients do the same, and a stream loses nothing."""

import asyncio
import contextlib
import io
import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image as Pillow

from deploy.reliability.certificates import Authority
from protos import detection_pb2 as pb
from service.client import AsyncClient, Client, Image, Options
from service.client.channel import MAX_ATTEMPTS
from service.client.credentials import token_metadata
from service.client.window import MOST_ITEMS
from service.detection.engine import Engine
from service.detection.types import Detection
from service.errors import AdvsentryError, ErrorReason, InvalidRequest, SetupError, Unavailable
from tests.service.client.stub import Asynchronous, Blocking, Face, answer_to, stub
from tests.service.running import Running, running

CLIENTS = pytest.mark.parametrize("kind", [Blocking, Asynchronous])


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine) as made:
        yield made


@pytest.fixture
def face(kind: type[Face], server: Running) -> Face:
    return kind(server.ports.grpc)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def pixels(engine: Engine) -> np.ndarray:
    shape = engine.bundle.manifest.input
    size = (shape.height, shape.width, shape.channels)
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    pillow(pixels).save(file, "PNG")
    return file.getvalue()


def pillow(pixels: np.ndarray) -> Pillow.Image:
    return Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def indices(outcomes: Iterable[object]) -> list[int]:
    return [outcome.top.index if isinstance(outcome, Detection) else -1 for outcome in outcomes]


@CLIENTS
def test_an_image_may_come_in_every_form(face: Face, pixels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(png(pixels))
    forms: list[Image] = [png(pixels), path, pixels, pillow(pixels)]
    alone = [face.detect(form) for form in forms]
    assert alone == [alone[0]] * len(forms)
    assert face.batch(forms) == alone
    assert face.stream(forms) == alone
    assert face.folder(tmp_path) == [(path, alone[0])]
    assert face.is_serving()


@CLIENTS
def test_what_is_no_image_is_said_of_that_one_alone(face: Face, pixels: np.ndarray, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(17 * 2**20)
    images: list[Image] = [
        pixels,
        tmp_path / "missing.png",
        pixels.astype(np.float32),  # type: ignore[list-item]
        large,
        b"no image",
        pillow(pixels).convert("RGBA"),
        Pillow.open(io.BytesIO(png(pixels)[:-40])),
        "cat.png",  # type: ignore[list-item]
        pixels,
    ]
    outcomes = face.stream(images)
    assert isinstance(outcomes[0], Detection)
    assert outcomes[-1] == outcomes[0]
    said = [str(outcome) for outcome in outcomes[1:-1]]
    wanted = (
        "cannot be read",
        "uint8",
        "expected at most",
        "PNG",
        "use image.convert()",
        "Pillow image cannot be read",
        "got str",
    )
    for text, want in zip(said, wanted, strict=True):
        assert want in text
    assert [str(outcome) for outcome in face.batch(images[:3])[1:]] == said[:2]
    with pytest.raises(InvalidRequest) as caught:
        face.detect(images[2])
    assert caught.value.reason is ErrorReason.BAD_TENSOR


@CLIENTS
def test_a_stream_that_breaks_goes_on_where_it_was(kind: type[Blocking]) -> None:
    seen: list[list[str]] = []

    def breaking(
        requests: Iterator[pb.StreamDetectRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamDetectResponse]:
        ids: list[str] = []
        seen.append(ids)
        for request in requests:
            assert request.HasField("stream_options") == (not ids)
            ids.append(request.item_id)
            if len(seen) < 4 and len(ids) > 5 * len(seen):
                context.abort(grpc.StatusCode.UNAVAILABLE, "going")
            yield answer_to(request)

    with stub(breaking) as target:
        outcomes = kind(target).stream(bytes(size) for size in range(1, 40))
    assert indices(outcomes) == list(range(1, 40))
    assert [ids[0] for ids in seen] == ["0", "5", "15", "30"]  # each began at the first that had no answer


@CLIENTS
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_a_server_that_never_comes_back_is_given_up(kind: type[Blocking], code: grpc.StatusCode) -> None:
    calls = []

    def gone(
        requests: Iterator[pb.StreamDetectRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamDetectResponse]:
        calls.append(next(requests))
        context.abort(code, "the server is shutting down")
        yield from ()

    with stub(gone) as target, pytest.raises(Unavailable, match="shutting down"):
        kind(target).stream([b"x"])
    assert len(calls) == 4


@CLIENTS
def test_a_stream_outlives_its_servers_restart(kind: type[Blocking], engine: Engine, pixels: np.ndarray) -> None:
    with contextlib.ExitStack() as first, contextlib.ExitStack() as later:
        server = first.enter_context(running(engine))
        port = server.ports.grpc.rpartition(":")[2]

        def images() -> Iterator[np.ndarray]:
            yield from [pixels] * 20
            first.close()
            threading.Timer(1.5, lambda: later.enter_context(running(engine, port=int(port)))).start()
            yield from [pixels] * 20

        outcomes = kind(server.ports.grpc).stream(images())
    assert [type(outcome) for outcome in outcomes] == [Detection] * 40


@CLIENTS
def test_a_refused_stream_comes_back_when_it_was_told_to(kind: type[Blocking]) -> None:
    opened: list[float] = []

    def full(
        requests: Iterator[pb.StreamDetectRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamDetectResponse]:
        opened.append(time.monotonic())
        if len(opened) == 1:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "300"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        yield from map(answer_to, requests)

    with stub(full) as target:
        assert indices(kind(target).stream([b"x"])) == [1]
    if kind is Blocking:  # grpc.aio loses the status of a call that ends while its first message is written
        assert opened[1] - opened[0] >= 0.3


@CLIENTS
def test_a_large_call_is_made_again_too(kind: type[Blocking]) -> None:
    calls: list[int] = []

    def none(*_: object) -> Iterator[pb.StreamDetectResponse]:
        yield from ()

    def detect(data: bytes, context: grpc.ServicerContext) -> bytes:
        calls.append(len(data))
        if len(calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return pb.DetectResponse(detection=pb.Detection(verdict=pb.VERDICT_CLEAN)).SerializeToString()

    with stub(none, detect=detect) as target:
        assert kind(target).detect(bytes(2**20)).verdict == "clean"
    assert len(calls) == 2
    assert min(calls) > 2**20


@CLIENTS
def test_what_is_too_large_for_the_server_is_no_overload(kind: type[Blocking], server: Running) -> None:
    with pytest.raises(InvalidRequest, match="larger than max") as caught:
        kind(server.ports.grpc).detect(bytes(17 * 2**20))
    assert caught.value.reason is ErrorReason.TOO_MANY_BYTES


def test_a_closed_client_says_so(server: Running, pixels: np.ndarray) -> None:
    client = Client(server.ports.grpc)
    answers = client.detect_stream(itertools.repeat(pixels))
    next(answers)
    client.close()
    with pytest.raises(AdvsentryError, match="client is closed"):
        list(answers)
    with pytest.raises(AdvsentryError, match="client is closed"):
        client.detect(pixels)

    async def closed() -> None:
        client = AsyncClient(server.ports.grpc)
        answers = client.detect_stream([pixels] * 2000)
        await anext(answers)
        await client.close()
        with pytest.raises(AdvsentryError, match="client is closed"):
            [answer async for answer in answers]
        with pytest.raises(AdvsentryError, match="client is closed"):
            await client.detect(pixels)

    asyncio.run(closed())


def test_hundreds_of_calls_to_a_busy_server_wait_for_their_turn(server: Running, pixels: np.ndarray) -> None:
    is_over = threading.Event()

    def keep_busy() -> None:
        while not is_over.is_set():
            sum(range(2000))

    async def many() -> list[Detection]:
        async with AsyncClient(server.ports.grpc, timeout_s=120) as client:
            return await asyncio.gather(*(client.detect(pixels) for _ in range(500)))

    other = threading.Thread(target=keep_busy)
    other.start()
    try:
        assert len(asyncio.run(many())) == 500
    finally:
        is_over.set()
        other.join()


def test_another_certificates_key_is_refused_before_any_call(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine, other = authority.sign("mine"), authority.sign("other")
    with pytest.raises(SetupError, match="is not the key of certificate"):
        Client("127.0.0.1:1", ca=authority.ca, cert=mine.cert, key=other.key)


def test_a_token_goes_to_a_socket_of_this_machine() -> None:
    assert token_metadata("secret", "unix:/run/advsentry.sock", None) == (("authorization", "Bearer secret"),)
    with pytest.raises(SetupError, match="in plaintext"):
        token_metadata("secret", "unix.example.com:50051", None)


@CLIENTS
def test_what_the_callers_iterator_raises_comes_after_the_answers(kind: type[Blocking]) -> None:
    def images() -> Iterator[bytes]:
        yield b"12"
        yield b"123"
        raise KeyError("mine")

    def answering(requests: Iterator[pb.StreamDetectRequest], _: object) -> Iterator[pb.StreamDetectResponse]:
        yield from map(answer_to, requests)

    with stub(answering) as target:
        assert indices(kind(target).stream(images(), most=2)) == [2, 3]
        with pytest.raises(KeyError, match="mine"):
            kind(target).stream(images())


@CLIENTS
def test_no_more_images_are_read_than_may_wait(kind: type[Blocking]) -> None:
    read = 0
    is_full, goes_on = threading.Event(), threading.Event()

    def images() -> Iterator[bytes]:
        nonlocal read
        for read in range(1, 3 * MOST_ITEMS):
            if read == MOST_ITEMS + 1:
                is_full.set()
            yield b"x"

    def slow(requests: Iterator[pb.StreamDetectRequest], _: object) -> Iterator[pb.StreamDetectResponse]:
        yield answer_to(next(requests))
        is_full.wait(20)
        goes_on.wait(0.2)  # time to read on, for one that would
        assert read == MOST_ITEMS + 1
        yield from map(answer_to, requests)

    with stub(slow) as target:
        assert len(kind(target).stream(images())) == 3 * MOST_ITEMS - 1


@CLIENTS
def test_an_answer_to_another_image_is_refused(kind: type[Blocking]) -> None:
    def wrong(requests: Iterator[pb.StreamDetectRequest], _: object) -> Iterator[pb.StreamDetectResponse]:
        request = next(requests)
        request.item_id = "7"
        yield answer_to(request)

    def few(requests: Iterator[pb.StreamDetectRequest], _: object) -> Iterator[pb.StreamDetectResponse]:
        yield answer_to(next(requests))

    with stub(wrong) as target, pytest.raises(AdvsentryError, match="item '7' where 0 was due"):
        kind(target).stream([b"x"])
    with stub(few) as target, pytest.raises(AdvsentryError, match="before its last answer"):
        kind(target).stream([b"x", b"y"])


@CLIENTS
def test_nobody_there_is_said_plainly(kind: type[Blocking]) -> None:
    with pytest.raises(Unavailable, match=r"no server answers at 127\.0\.0\.1:1; start one"):
        kind("127.0.0.1:1").detect(b"x")
    assert not kind("127.0.0.1:1").is_serving()


@pytest.mark.parametrize(
    "options",
    [Options(top_k=-1), Options(priority=2**40), Options(alpha="x")],
    ids=str,  # type: ignore[arg-type]
)
def test_options_that_no_message_holds_are_a_wrong_request(pixels: np.ndarray, options: Options) -> None:
    with Client("127.0.0.1:1") as client:
        with pytest.raises(InvalidRequest, match=r"^options: "):
            client.detect(pixels, options)
        with pytest.raises(InvalidRequest, match=r"^options: "):
            client.detect_batch([pixels], options)


def test_a_client_serves_several_threads(server: Running, pixels: np.ndarray) -> None:
    found: list[Detection] = []
    with Client(server.ports.grpc) as client:
        threads = [threading.Thread(target=lambda: found.append(client.detect(pixels, Options()))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert found == [found[0]] * 8


@CLIENTS
@pytest.mark.parametrize("times", [1, 9])
def test_a_call_that_an_ending_server_cancels_is_made_again(kind: type[Blocking], times: int) -> None:
    calls: list[bytes] = []

    def none(*_: object) -> Iterator[pb.StreamDetectResponse]:
        yield from ()

    def detect(data: bytes, context: grpc.ServicerContext) -> bytes:
        calls.append(data)
        if len(calls) <= times:
            context.abort(grpc.StatusCode.CANCELLED, "")
        return pb.DetectResponse(detection=pb.Detection(verdict=pb.VERDICT_CLEAN)).SerializeToString()

    with stub(none, detect=detect) as target:
        if times < MAX_ATTEMPTS:
            assert kind(target).detect(b"x").verdict == "clean"
        else:
            with pytest.raises(Unavailable, match="cancelled the call"):
                kind(target).detect(b"x")
    assert len(calls) == min(times + 1, MAX_ATTEMPTS)


def test_a_caller_who_is_cancelled_is_told_so() -> None:
    begun, let_go = threading.Event(), threading.Event()

    def none(*_: object) -> Iterator[pb.StreamDetectResponse]:
        yield from ()

    def detect(data: bytes, _: grpc.ServicerContext) -> bytes:
        begun.set()
        let_go.wait(20)
        return b""

    async def cancel(target: str) -> None:
        async with AsyncClient(target) as client:
            task = asyncio.create_task(client.detect(b"x"))
            await asyncio.to_thread(begun.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            let_go.set()

    with stub(none, detect=detect) as target:
        asyncio.run(cancel(target))
