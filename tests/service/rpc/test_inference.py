"""The Open Inference Protocol through the door: a real server and real messages."""

import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from protos import detection_pb2, detection_pb2_grpc
from protos import inference as pb
from service.client import Client
from service.detection.engine import Engine
from service.detection.types import Detection
from service.detection.verdict import RevealMode
from tests import tiny
from tests.service import oip
from tests.service.rpc.test_door import Slow, until
from tests.service.running import Running, running

CODE = grpc.StatusCode
IMAGES = tiny.images(3)
ONE = oip.pixels(IMAGES[:1])


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine, max_batch_items=32, canary_s=100.0) as made:
        yield made


def native(server: Running, images: np.ndarray) -> list[Detection]:
    with Client(server.ports.grpc) as client:
        return [client.detect(image) for image in images]


def mixed(count: int) -> np.ndarray:
    """Clean images, and some that detectors fire on."""
    images = tiny.images(count, seed=5)
    images[::3] = tiny.odd_image()
    return images


@pytest.mark.parametrize("reveal", [RevealMode.P_VALUES, RevealMode.SCORES])
def test_answers_are_those_of_the_native_api_bit_for_bit(engine: Engine, reveal: RevealMode) -> None:
    images = mixed(20)
    coded = [oip.png(image) for image in images]
    with running(engine, reveal=reveal) as server:
        known = native(server, images)
        assert {one.verdict for one in known} == {"clean", "adversarial"}
        for request in (
            oip.pixels(images),
            oip.pixels(images, typed=True),
            oip.files(coded),
            oip.files(coded, typed=True),
        ):
            response = oip.infer(server.channel, request)
            oip.check_same(oip.tensors(response), known)
        for image, one in zip(images, known, strict=True):
            oip.check_same(oip.tensors(oip.infer(server.channel, oip.pixels(image[None]))), [one])


def test_an_answer_says_whose_it_is(server: Running) -> None:
    response = oip.infer(server.channel, oip.pixels(IMAGES, id="7", model_version="1"))
    assert (response.model_name, response.model_version, response.id) == ("advsentry", "1", "7")
    assert response.parameters["target_fpr"].double_param == 0.01
    assert response.parameters["execution_provider"].string_param == "CPUExecutionProvider"
    assert oip.infer(server.channel, oip.pixels(IMAGES, model_name="tiny")).model_name == "tiny"


def test_a_call_ends_with_its_times(server: Running) -> None:
    call = server.channel.unary_unary(f"/{oip.SERVICE}/ModelInfer")
    _, ended = call.with_call(oip.pixels(IMAGES).SerializeToString())
    trailers = dict(ended.trailing_metadata())
    assert trailers["x-advsentry-batch"] == "3"
    assert float(trailers["x-advsentry-infer-ms"]) > 0


def test_outputs_come_in_the_order_in_which_they_are_asked_for(server: Running) -> None:
    wanted = [oip.Wanted(name=name) for name in ("p_values", "label", "p_values")]
    response = oip.infer(server.channel, oip.pixels(IMAGES, outputs=wanted))
    assert [(output.name, list(output.shape)) for output in response.outputs] == [("p_values", [3, 2]), ("label", [3])]
    assert len(response.raw_output_contents) == 2


def test_decision_mode_speaks_of_nothing_that_it_hides(engine: Engine) -> None:
    with running(engine, reveal=RevealMode.DECISION) as server:
        shown = ["label", "adversarial"]
        assert [output.name for output in oip.infer(server.channel, oip.pixels(IMAGES)).outputs] == shown
        assert [output.name for output in oip.tell(server.channel, "ModelMetadata", name="advsentry").outputs] == shown
        assert [
            output.name for output in oip.tell(server.channel, "ModelConfig", name="advsentry").config.output
        ] == shown
        hidden = oip.pixels(IMAGES, outputs=[oip.Wanted(name="p_values")])
        oip.fails(
            server.channel,
            "ModelInfer",
            hidden,
            CODE.PERMISSION_DENIED,
            "does not return p_values .reveal mode decision",
        )


def test_metadata_says_what_to_send_and_what_comes(server: Running) -> None:
    said = oip.tell(server.channel, "ModelMetadata", name="advsentry")
    response = oip.infer(server.channel, oip.pixels(IMAGES))
    assert [(entry.name, entry.datatype, list(entry.shape)) for entry in said.inputs] == [
        ("images", "UINT8", [-1, 8, 8, 1])
    ]
    told = [(entry.name, entry.datatype, list(entry.shape)[1:]) for entry in said.outputs]
    assert told == [(entry.name, entry.datatype, list(entry.shape)[1:]) for entry in response.outputs]
    assert all(entry.shape[0] == -1 for entry in said.outputs)
    assert said.properties["classes"] == ",".join(tiny.CLASSES)
    assert list(said.versions) == ["1"]


def test_the_configuration_agrees_with_the_metadata(server: Running) -> None:
    said, config = (
        oip.tell(server.channel, "ModelMetadata", name="tiny"),
        oip.tell(server.channel, "ModelConfig", name="tiny").config,
    )
    assert (config.name, config.platform, config.max_batch_size) == ("tiny", said.platform, 32)
    assert [(entry.name, list(entry.dims)) for entry in [*config.input, *config.output]] == [
        (entry.name, list(entry.shape)[1:]) for entry in [*said.inputs, *said.outputs]
    ]
    names = {pb.TYPE_UINT8: "UINT8", pb.TYPE_STRING: "BYTES", pb.TYPE_BOOL: "BOOL"}
    names |= {pb.TYPE_FP32: "FP32", pb.TYPE_FP64: "FP64"}
    assert [names[entry.data_type] for entry in [*config.input, *config.output]] == [
        entry.datatype for entry in [*said.inputs, *said.outputs]
    ]


def test_images_of_any_size_are_told_and_taken_where_the_bundle_resizes(resizing: Engine) -> None:
    with running(resizing) as server:
        assert list(oip.tell(server.channel, "ModelMetadata", name="advsentry").inputs[0].shape) == [-1, -1, -1, 1]
        large = np.repeat(np.repeat(tiny.images(2), 3, axis=1), 3, axis=2)
        oip.check_same(oip.tensors(oip.infer(server.channel, oip.pixels(large))), native(server, large))


def test_statistics_count_every_image_and_batch_whatever_the_api(server: Running) -> None:
    before = oip.tell(server.channel, "ModelStatistics").model_stats[0]
    stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
    image = detection_pb2.Image(raw=detection_pb2.RawImage(height=8, width=8, channels=1, data=IMAGES[0].tobytes()))
    for _ in range(2):
        stub.Detect(detection_pb2.DetectRequest(image=image))
    stub.BatchDetect(detection_pb2.BatchDetectRequest(images=[image, detection_pb2.Image(), image]))
    for _ in range(3):
        oip.infer(server.channel, oip.pixels(tiny.images(5)))
    oip.fails(server.channel, "ModelInfer", oip.files([b"x"]), CODE.INVALID_ARGUMENT, "got bytes that start")
    after = oip.tell(server.channel, "ModelStatistics", name="advsentry").model_stats[0]
    assert (after.name, after.version) == ("advsentry", "1")
    assert after.inference_count - before.inference_count == 2 + 2 + 15
    assert after.execution_count - before.execution_count == 2 + 1 + 3
    was, now = before.inference_stats, after.inference_stats
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(now, stage).count - getattr(was, stage).count == 19
        assert getattr(now, stage).ns > getattr(was, stage).ns
    assert now.fail.count - was.fail.count == 2
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert abs(now.success.ns - sum(getattr(now, part).ns for part in parts)) < 10
    sizes = [{entry.batch_size: entry.compute_infer.count for entry in one.batch_stats} for one in (before, after)]
    assert {size: count - sizes[0].get(size, 0) for size, count in sizes[1].items()} == {1: 2, 2: 1, 5: 3} | {
        size: 0 for size in sizes[0] if size not in (1, 2, 5)
    }
    ages_ms = 1000 * time.time() - after.last_inference
    assert 0 <= ages_ms + 1 < 60_000


def test_readiness_is_that_of_health(server: Running) -> None:
    health = server.app._health
    check = health_pb2.HealthCheckRequest(service=oip.SERVICE).SerializeToString()
    says = server.channel.unary_unary("/grpc.health.v1.Health/Check")
    for is_ready in (False, True):
        server.loop.call_soon_threadsafe(health.set_ready, is_ready)
        until(lambda ready=is_ready: health.is_ready == ready)
        assert oip.tell(server.channel, "ServerReady").ready == is_ready
        assert oip.tell(server.channel, "ModelReady", name="advsentry").ready == is_ready
        assert health_pb2.HealthCheckResponse.FromString(says(check)).status == (1 if is_ready else 2)
        assert oip.tell(server.channel, "ServerLive").live
    server.loop.call_soon_threadsafe(health.set_live, False)
    until(lambda: not health.is_live)
    assert not oip.tell(server.channel, "ServerLive").live
    server.loop.call_soon_threadsafe(health.set_live, True)


@pytest.mark.parametrize("value", [{"int64_param": 50_000}, {"uint64_param": 50_000}])
def test_a_timeout_in_microseconds_ends_a_request_that_then_never_runs(engine: Engine, value: dict[str, int]) -> None:
    slow = Slow(engine)
    with running(slow, max_batch=1, canary_s=100.0) as server:  # type: ignore[arg-type]
        slow.go.clear()
        ahead = server.channel.unary_unary(f"/{oip.SERVICE}/ModelInfer").future(ONE.SerializeToString())
        until(lambda: server.value("advsentry_inflight") == 1)
        ran = len(slow.sizes)
        late = oip.pixels(IMAGES[:1], parameters={"timeout": pb.InferParameter(**value)})
        oip.fails(server.channel, "ModelInfer", late, CODE.DEADLINE_EXCEEDED, "before all 1 images were")
        slow.go.set()
        assert ahead.result(10)
        assert oip.infer(
            server.channel, oip.pixels(IMAGES[:1], parameters={"timeout": pb.InferParameter(int64_param=0)})
        )
        assert len(slow.sizes) == ran + 2
        dropped = [server.value("advsentry_dropped_total", reason=reason) for reason in ("cancelled", "deadline")]
        assert sum(dropped) == 1


def test_a_full_queue_refuses_with_a_time_to_come_back(engine: Engine) -> None:
    slow = Slow(engine)
    with running(slow, max_batch=1, queue_items=1, canary_s=100.0) as server:  # type: ignore[arg-type]
        slow.go.clear()
        call = server.channel.unary_unary(f"/{oip.SERVICE}/ModelInfer")
        waiting = []
        for in_graph, in_queue in ((1, 0), (1, 1)):
            waiting.append(call.future(ONE.SerializeToString()))
            until(lambda a=in_graph: server.value("advsentry_inflight") == a)
            until(lambda b=in_queue: server.value("advsentry_queue_items") == b)
        trailers = oip.fails(server.channel, "ModelInfer", ONE, CODE.RESOURCE_EXHAUSTED, "queue is full")
        assert int(trailers["grpc-retry-pushback-ms"]) >= 20
        slow.go.set()
        assert all(future.result(10) for future in waiting)


def test_interactive_requests_go_before_bulk_ones_that_came_first(engine: Engine) -> None:
    slow = Slow(engine)
    with running(slow, max_batch=1, canary_s=100.0) as server:  # type: ignore[arg-type]
        call = server.channel.unary_unary(f"/{oip.SERVICE}/ModelInfer")

        def ask(waiting: int, priority: int) -> grpc.Future:
            parameters = {"priority": pb.InferParameter(uint64_param=priority)}
            future = call.future(oip.pixels(IMAGES[:1], parameters=parameters).SerializeToString())
            until(lambda: server.value("advsentry_inflight") == 1)
            until(lambda: server.value("advsentry_queue_items") == waiting)
            return future

        slow.go.clear()
        ended: list[str] = []
        for waiting, (name, priority) in enumerate((("first", 0), ("bulk", 2), ("interactive", 1))):
            ask(waiting, priority).add_done_callback(lambda _, name=name: ended.append(name))
        slow.go.set()
        until(lambda: len(ended) == 3)
        assert ended == ["first", "interactive", "bulk"]
