"""What callers of every RPC get of the queue: their lane, and no run that nobody waits for."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import numpy as np

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from protos import inference as oip_pb
from service.detection.engine import Engine
from service.detection.types import Measurements
from tests import tiny
from tests.service import oip
from tests.service.rpc.test_door import DETECT, Slow, raw, until
from tests.service.running import Running, running

CODE = grpc.StatusCode
BULK, FIRST = pb.DetectOptions(priority=2), pb.DetectOptions(priority=1)
BLOCKER, BULK_MARK, URGENT_MARK = 1, 2, 3


class Marked(Slow):
    """Keeps the first pixel of every image that runs."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.ran: list[int] = []

    def measure(self, images: np.ndarray) -> Measurements:
        measured = super().measure(images)
        self.ran += images[:, 0, 0, 0].tolist()
        return measured


def marked(mark: int) -> np.ndarray:
    image = tiny.images(1)[0].copy()
    image[0, 0, 0] = mark
    return image


def send_bulk(server: Running) -> list[Callable[[], object]]:
    """Sends one bulk image by each RPC; gives what waits for the answers."""
    stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
    image = raw(marked(BULK_MARK))
    tensor = oip.pixels(marked(BULK_MARK)[None], parameters={"priority": oip_pb.InferParameter(uint64_param=2)})
    infer = server.channel.unary_unary(f"/{oip.SERVICE}/ModelInfer").future
    options = pb.StreamOptions(options=BULK)
    unary = [
        stub.Detect.future(pb.DetectRequest(image=image, options=BULK)),
        stub.BatchDetect.future(pb.BatchDetectRequest(images=[image], options=BULK)),
        infer(tensor.SerializeToString()),
    ]
    streams = [
        stub.StreamDetect(iter([pb.StreamDetectRequest(image=image, stream_options=options)])),
        oip.stream(server.channel, iter([tensor])),
    ]
    return [partial(call.result, 20) for call in unary] + [partial(list, answers) for answers in streams]


def test_bulk_of_every_call_waits_for_interactive_images(engine: Engine) -> None:
    graph = Marked(engine)
    with running(graph, max_batch=1, canary_s=100.0) as server:  # type: ignore[arg-type]
        graph.ran.clear()
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        graph.go.clear()
        blocker = stub.Detect.future(pb.DetectRequest(image=raw(marked(BLOCKER))))
        until(lambda: server.value("advsentry_inflight") == 1)
        bulk = send_bulk(server)
        until(lambda: server.value("advsentry_queue_items") == len(bulk))
        urgent = [
            stub.Detect.future(pb.DetectRequest(image=raw(marked(URGENT_MARK)), options=options))
            for options in (None, FIRST)
        ]
        until(lambda: server.value("advsentry_queue_items") == len(bulk) + 2)
        graph.go.set()
        for call in (blocker, *urgent):
            call.result(20)
        for ended in bulk:
            ended()
        order = "".join({BLOCKER: ".", BULK_MARK: "b", URGENT_MARK: "u"}[mark] for mark in graph.ran)
        assert order == ".uubbbbb"


def under_way(server: Running) -> float:
    """Detect calls that have come to the server and have not ended."""
    began, ended = "grpc_server_started_total", "grpc_server_handled_total"
    return server.value(began, **DETECT) - sum(server.value(ended, **DETECT, grpc_code=code.name) for code in CODE)


def test_no_image_runs_for_those_who_have_gone_by_then(engine: Engine) -> None:
    graph = Marked(engine)
    with running(graph, max_batch=1, canary_s=100.0) as server:  # type: ignore[arg-type]
        graph.ran.clear()
        detect = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect
        graph.go.clear()
        blocker = detect.future(pb.DetectRequest(image=raw(marked(BLOCKER))))
        until(lambda: server.value("advsentry_inflight") == 1)
        late = pb.DetectRequest(image=raw(marked(BULK_MARK)))
        calls = [detect.future(late, timeout=0.02) for _ in range(5)]  # some may be late before they are read
        assert {call.code() for call in calls} == {CODE.DEADLINE_EXCEEDED}
        calls = [detect.future(late, timeout=1.5) for _ in range(5)]
        until(lambda: server.value("advsentry_queue_items") >= 5)
        assert {call.code() for call in calls} == {CODE.DEADLINE_EXCEEDED}
        until(lambda: under_way(server) == 1)  # a client knows first that its time is up
        queued = server.value("advsentry_queue_items")
        graph.go.set()
        blocker.result(20)
        detect(pb.DetectRequest(image=raw(marked(URGENT_MARK))))
        assert graph.ran == [BLOCKER, URGENT_MARK]
        # a client's own clock may end its call a moment before the server's does
        dropped = [server.value("advsentry_dropped_total", reason=reason) for reason in ("deadline", "cancelled")]
        assert sum(dropped) == queued >= 5


class Paced:
    """A graph that takes its time for each image."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def measure(self, images: np.ndarray) -> Measurements:
        time.sleep(0.005 * len(images))
        return self._engine.measure(images)


def test_many_streams_of_a_slow_graph_wait_and_lose_nothing(engine: Engine) -> None:
    image = raw(tiny.images(1)[0])
    with running(Paced(engine), max_batch=1, max_deadline_s=3.0, canary_s=100.0) as server:  # type: ignore[arg-type]

        def answered(number: int) -> int:
            requests = (pb.StreamDetectRequest(item_id=str(i), image=image) for i in range(60))
            answers = detection_pb2_grpc.DetectorServiceStub(server.channel).StreamDetect(requests)
            return sum(answer.result.HasField("detection") for answer in answers)

        with ThreadPoolExecutor(10) as callers:
            assert list(callers.map(answered, range(10))) == [60] * 10
