"""A known load of every kind, and every counter has exactly the value that it must have."""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry, generate_latest

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service.detection.engine import Engine
from tests import tiny
from tests.service.rpc.test_door import GOOD, ODD, Slow, file, raw, until
from tests.service.running import Running, running

SERVICE = "advsentry.v1.DetectorService"
HEALTH = "grpc.health.v1.Health"
MARK = "written-by-a-caller"
CODE = grpc.StatusCode
EMPTY, CUT, NO_IMAGE = pb.Image(), file(b"\x89PNG\r\n\x1a\n"), file(b"no image")
IMAGES = tiny.images(60, seed=5)


Counts: TypeAlias = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels."""


class Load:
    """Calls a server, and keeps the books of what its counters must say."""

    def __init__(self, server: Running, engine: Engine) -> None:
        self.server, self.engine = server, engine
        self.stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        self.books: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()

    def book(self, name: str, count: int = 1, **labels: str) -> None:
        if count:
            self.books[name, frozenset(labels.items())] += count

    def rpc(
        self, method: str, code: str, *, kind: str = "unary", service: str = SERVICE, received: int = 1, sent: int = 1
    ) -> None:
        """Books one call."""
        labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method}
        self.book("grpc_server_started_total", **labels)
        self.book("grpc_server_handled_total", **labels, grpc_code=code)
        if method in ("Detect", "BatchDetect", "StreamDetect"):  # that take images
            self.book("grpc_server_handling_seconds_count", **labels)
        self.book("grpc_server_msg_received_total", received, **labels)
        self.book("grpc_server_msg_sent_total", sent if code == "OK" or kind == "bidi_stream" else 0, **labels)
        if service == SERVICE:
            self.book("advsentry_requests_total", code=code)

    def detected(self, images: np.ndarray) -> None:
        """Books images that got a detection."""
        count = len(images)
        known = self.engine.detect(images)
        adversarial = sum(one.verdict == "adversarial" for one in known)
        self.book("advsentry_images_total", count, outcome="detected")
        self.book("advsentry_verdicts_total", adversarial, verdict="adversarial")
        self.book("advsentry_verdicts_total", count - adversarial, verdict="clean")
        for one in known:
            for flag in one.flags:
                self.book("advsentry_flagged_total", reason=flag.reason)
        for detector in ("brightness", "contrast", "fused"):
            self.book("advsentry_detector_p_value_count", count, detector=detector)
        for stage in ("decode", "queue", "inference", "postprocess"):
            self.book("advsentry_stage_seconds_count", count, stage=stage)
        self.book("advsentry_batch_size_count", count)

    def failed(self, reason: str, count: int = 1) -> None:
        """Books images that got none."""
        self.book("advsentry_images_total", count, outcome="error")
        self.book("advsentry_image_errors_total", count, reason=reason)

    def refused(self, call: object, request: object, code: grpc.StatusCode) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            list(call(request))  # type: ignore[operator]
        assert caught.value.code() is code


@pytest.fixture
def slowed(engine: Engine) -> Iterator[tuple[Slow, Running]]:
    slow = Slow(engine)
    settings = {"max_batch": 1, "queue_items": 4, "max_batch_items": 8, "canary_s": 100.0}
    with running(slow, **settings) as server:  # type: ignore[arg-type]
        yield slow, server
        slow.go.set()


def one_by_one(load: Load) -> None:
    for image in [*IMAGES, *[tiny.odd_image()] * 10]:
        load.stub.Detect(pb.DetectRequest(request_id=MARK, image=raw(image)))
        load.rpc("Detect", "OK")
    load.detected(np.concatenate([IMAGES, np.stack([tiny.odd_image()] * 10)]))
    for image, reason in ((EMPTY, "EMPTY_IMAGE"), (CUT, "UNDECODABLE"), (NO_IMAGE, "FORMAT_UNSUPPORTED")):
        for _ in range(7):
            load.refused(load.stub.Detect, pb.DetectRequest(image=image), CODE.INVALID_ARGUMENT)
            load.rpc("Detect", "INVALID_ARGUMENT")
        load.failed(reason, 7)


def bad_calls(load: Load) -> None:
    wrong = {
        CODE.INVALID_ARGUMENT: pb.DetectOptions(detectors=[MARK]),
        CODE.NOT_FOUND: pb.DetectOptions(model_version=MARK),
        CODE.PERMISSION_DENIED: pb.DetectOptions(return_embedding=True),
    }
    for code, options in wrong.items():
        for _ in range(5):
            load.refused(load.stub.Detect, pb.DetectRequest(image=GOOD, options=options), code)
            load.rpc("Detect", code.name)
    for method in ("Detect", "BatchDetect", "GetModelInfo"):
        for _ in range(4):
            call = load.server.channel.unary_unary(f"/{SERVICE}/{method}")
            load.refused(call, b"\xff" + MARK.encode(), CODE.INVALID_ARGUMENT)
            load.rpc(method, "INVALID_ARGUMENT")
    for i in range(20):
        call = load.server.channel.unary_unary(f"/{SERVICE if i % 2 else MARK}/{MARK}{i}")
        load.refused(call, b"", CODE.UNIMPLEMENTED)
        load.rpc("unknown", "UNIMPLEMENTED", service="unknown", received=0)


def batches(load: Load) -> None:
    for _ in range(6):
        images = [raw(image) for image in IMAGES[:5]] + [EMPTY, ODD, NO_IMAGE]
        load.stub.BatchDetect(pb.BatchDetectRequest(images=images))
        load.rpc("BatchDetect", "OK")
        load.detected(np.concatenate([IMAGES[:5], tiny.odd_image()[None]]))
        load.failed("EMPTY_IMAGE")
        load.failed("FORMAT_UNSUPPORTED")
    for count in (0, 9):
        load.refused(load.stub.BatchDetect, pb.BatchDetectRequest(images=[GOOD] * count), CODE.INVALID_ARGUMENT)
        load.rpc("BatchDetect", "INVALID_ARGUMENT")


def streams(load: Load) -> None:
    for _ in range(3):
        images = [raw(image) for image in IMAGES[:40]] + [EMPTY] * 3
        requests = [pb.StreamDetectRequest(item_id=MARK, image=image) for image in images]
        assert len(list(load.stub.StreamDetect(iter(requests)))) == 43
        load.rpc("StreamDetect", "OK", kind="bidi_stream", received=43, sent=43)
        load.detected(IMAGES[:40])
        load.failed("EMPTY_IMAGE", 3)
    call = load.server.channel.stream_stream(f"/{SERVICE}/StreamDetect")
    load.refused(call, iter([b"\xff"]), CODE.INVALID_ARGUMENT)
    load.rpc("StreamDetect", "INVALID_ARGUMENT", kind="bidi_stream", sent=0)


def others(load: Load) -> None:
    for _ in range(5):
        load.stub.GetModelInfo(pb.GetModelInfoRequest())
        load.rpc("GetModelInfo", "OK")
    check = load.server.channel.unary_unary(f"/{HEALTH}/Check", health_pb2.HealthCheckRequest.SerializeToString)
    for service, code in (("", "OK"), ("ready", "OK"), (MARK, "NOT_FOUND")):
        if code == "OK":
            check(health_pb2.HealthCheckRequest(service=service))
        else:
            load.refused(check, health_pb2.HealthCheckRequest(service=service), CODE.NOT_FOUND)
        load.rpc("Check", code, service=HEALTH)


def overload(load: Load, slow: Slow) -> None:
    """One image runs, four wait; of these two leave, and one comes too late. All others are refused."""
    server, pipeline = load.server, load.server.app.models.served.current
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Detect"}
    slow.go.clear()
    running_ = load.stub.Detect.future(pb.DetectRequest(image=GOOD))
    until(lambda: server.value("advsentry_inflight") == 1)
    policy = pipeline.policy
    pipeline.policy = dataclasses.replace(policy, max_deadline_s=0.3)
    load.refused(load.stub.Detect, pb.DetectRequest(image=GOOD), CODE.DEADLINE_EXCEEDED)
    load.rpc("Detect", "DEADLINE_EXCEEDED")
    load.failed("DEADLINE")
    load.book("advsentry_dropped_total", reason="deadline")
    load.book("advsentry_stage_seconds_count", stage="decode")
    pipeline.policy = policy
    waiting = [load.stub.Detect.future(pb.DetectRequest(image=GOOD)) for _ in range(3)]
    until(lambda: server.value("advsentry_queue_items") == 4)  # the late one lies there until its turn comes
    for _ in range(6):
        load.refused(load.stub.Detect, pb.DetectRequest(image=GOOD), CODE.RESOURCE_EXHAUSTED)
        load.rpc("Detect", "RESOURCE_EXHAUSTED", received=0)  # turned away before its message is read
        load.failed("OVERLOADED")
    load.book("advsentry_dropped_total", 6, reason="overload")
    for call in waiting[:2]:
        call.cancel()
        load.rpc("Detect", "CANCELLED")
    load.book("advsentry_dropped_total", 2, reason="cancelled")
    load.book("advsentry_stage_seconds_count", 2, stage="decode")
    until(lambda: server.value("grpc_server_handled_total", **labels, grpc_code="CANCELLED") == 2)
    slow.go.set()
    for call in (running_, waiting[2]):
        call.result(20)
        load.rpc("Detect", "OK")
    load.detected(tiny.images(1).repeat(2, axis=0))


def counted(registry: CollectorRegistry) -> Counts:
    """Every counter and every histogram's count that is not 0."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count")) and sample.value
    }


def settled(registry: CollectorRegistry, books: Counts) -> Counts:
    """What is counted when it agrees with the books, or some seconds later: a call is counted after its answer."""
    end = time.monotonic() + 5
    while counted(registry) != books and time.monotonic() < end:
        time.sleep(0.01)
    return counted(registry)


def test_every_counter_is_exact_after_a_known_load(slowed: tuple[Slow, Running], engine: Engine) -> None:
    slow, server = slowed
    load = Load(server, engine)
    load.book("advsentry_batch_size_count")  # the canary at the start; it is counted nowhere else
    for part in (one_by_one, bad_calls, batches, streams, others):
        part(load)
    overload(load, slow)
    found, expected = settled(server.registry, load.books), dict(load.books)
    assert {key: (found.get(key), expected.get(key)) for key in found.keys() ^ expected.keys()} == {}
    assert {key: (found[key], expected[key]) for key in found if found[key] != expected[key]} == {}
    text = generate_latest(server.registry).decode()
    assert MARK not in text


def ended_whole(server: Running, images: list[pb.Image], code: grpc.StatusCode) -> Counts:
    """What a BatchDetect that ends with a code adds to the images that failed or were dropped."""
    names = ("advsentry_images_total", "advsentry_image_errors_total", "advsentry_dropped_total")
    stub, before = detection_pb2_grpc.DetectorServiceStub(server.channel), counted(server.registry)
    with pytest.raises(grpc.RpcError) as caught:
        stub.BatchDetect(pb.BatchDetectRequest(images=images))
    assert caught.value.code() is code
    after = counted(server.registry)
    return {key: n - before.get(key, 0) for key, n in after.items() if key[0] in names and n != before.get(key, 0)}


def failed_images(count: int, reason: str) -> Counts:
    return {
        ("advsentry_images_total", frozenset({("outcome", "error")})): count,
        ("advsentry_image_errors_total", frozenset({("reason", reason)})): count,
    }


@pytest.mark.parametrize("deadline_s", [1e-9, 0.2], ids=["decoding", "queued"])
def test_a_batch_that_comes_too_late_counts_each_of_its_images_once(
    slowed: tuple[Slow, Running], deadline_s: float
) -> None:
    slow, server = slowed
    slow.go.clear()
    pipeline = server.app.models.served.current
    pipeline.policy = dataclasses.replace(pipeline.policy, max_deadline_s=deadline_s)
    found = ended_whole(server, [EMPTY, GOOD, GOOD], CODE.DEADLINE_EXCEEDED)
    expected = failed_images(3, "DEADLINE")
    assert {key: found.get(key) for key in expected} == expected


def test_a_batch_that_is_turned_away_counts_each_of_its_images_once(slowed: tuple[Slow, Running]) -> None:
    slow, server = slowed
    slow.go.clear()
    stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
    waiting = [stub.Detect.future(pb.DetectRequest(image=GOOD)) for _ in range(5)]
    until(lambda: server.value("advsentry_queue_items") == 4)
    found = ended_whole(server, [GOOD, EMPTY, GOOD], CODE.RESOURCE_EXHAUSTED)
    dropped = {("advsentry_dropped_total", frozenset({("reason", "overload")})): 2}  # an empty one is never queued
    assert found == {**failed_images(3, "OVERLOADED"), **dropped}
    slow.go.set()
    for call in waiting:
        call.result(20)


@pytest.mark.parametrize(
    ("size", "options", "code"),
    [
        (17 * 2**20, {}, CODE.RESOURCE_EXHAUSTED),
        (10_000, {"compression": grpc.Compression.Gzip}, CODE.UNIMPLEMENTED),
    ],
    ids=["too large", "compressed"],
)
def test_a_call_that_grpc_itself_refuses_counts_as_cancelled(
    slowed: tuple[Slow, Running], size: int, options: dict[str, object], code: grpc.StatusCode
) -> None:
    """As docs/metrics.md says: gRPC does not tell how it ended the call."""
    _, server = slowed
    stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Detect(pb.DetectRequest(image=file(bytes(size))), **options)
    assert caught.value.code() is code
    until(lambda: server.value("advsentry_requests_total", code="CANCELLED") == 1)
    assert server.value("advsentry_requests_total", code=code.name) == 0
    assert server.value("advsentry_images_total", outcome="error") == 0
