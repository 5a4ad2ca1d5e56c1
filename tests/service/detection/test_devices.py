"""What runs the graph: the providers asked for, a refusal without them, never a silent fall-back."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.detection import sessions
from service.detection.graph import Graph, GraphShape
from service.detection.providers import CPU, CUDA, TENSORRT, CudaOptions, Device, providers
from service.errors import BundleError, SetupError
from tests import tiny

SHAPE = GraphShape(height=8, width=8, channels=1, classes=4, embedding=4, detectors=2)
COMES_UP = sessions._missing(CUDA) is None and any(Path("/dev").glob("nvidia[0-9]*"))


class FakeSession:
    """A session that says it runs on a provider, runs on the processor, and writes down the sizes of its batches."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.sizes: list[int] = []
        self._real = ort.InferenceSession(tiny.graph(), providers=[CPU])
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs

    def get_providers(self) -> list[str]:
        return [self.provider, CPU]

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.sizes.append(len(feeds["images"]))
        return list(self._real.run(names, feeds))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | Exception], list[FakeSession]]:
    """Makes sessions for a GPU come up on a provider, or fail; those for the processor are real."""

    def fake(answer: str | Exception) -> list[FakeSession]:
        real, made = sessions._session, list[FakeSession]()

        def session(model: bytes, options: ort.SessionOptions, wanted: list[tuple[str, dict[str, str]]]) -> object:
            if wanted[0][0] == CPU:
                return real(model, options, wanted)
            if isinstance(answer, Exception):
                raise answer
            made.append(FakeSession(answer))
            return made[-1]

        monkeypatch.setattr(sessions, "_session", session)
        monkeypatch.setattr(sessions.ort, "preload_dlls", lambda directory: print("Failed to load libcudart"))
        return made

    return fake


def test_the_processor_has_no_options() -> None:
    assert providers("cpu", CudaOptions(device_id=3)) == [(CPU, {})]


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_cuda_comes_first_with_its_options(device: Device) -> None:
    (name, options), last = providers(device, CudaOptions(device_id=2, memory_bytes=10**9))
    assert (name, last) == (CUDA, (CPU, {}))
    assert options == {
        "device_id": "2",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "1000000000",
    }
    assert "gpu_mem_limit" not in providers(device, CudaOptions())[0][1]


def test_tensorrt_stands_before_cuda_and_goes_with_the_device_cuda() -> None:
    first, *others = providers("cuda", CudaOptions(tensorrt=True, device_id=1))
    assert first == (TENSORRT, {"device_id": "1"})
    assert others == providers("cuda", CudaOptions(device_id=1))
    for device in ("cpu", "auto"):
        with pytest.raises(SetupError, match=f"expected --device cuda beside it, got --device {device}"):
            providers(device, CudaOptions(tensorrt=True))


def test_on_a_gpu_batches_are_padded_and_each_size_is_warmed(
    asked: Callable[[str | Exception], list[FakeSession]],
) -> None:
    made = asked(CUDA)
    graph = Graph(tiny.graph(), SHAPE, device="cuda")
    assert graph.provider == CUDA
    assert graph.warm_sizes(48) == (1, 2, 4, 8, 16, 32, 64)
    images, plain = tiny.images(9), Graph(tiny.graph(), SHAPE, threads=1)
    for count in (1, 3, 4, 9):
        found, right = graph.run(images[:count]), plain.run(images[:count])
        for field in ("logits", "embedding", "scores"):
            assert np.array_equal(getattr(found, field), getattr(right, field))
    assert made[0].sizes == [1, 4, 4, 16]


def test_on_the_processor_nothing_is_padded() -> None:
    graph = Graph(tiny.graph(), SHAPE, threads=1)
    assert graph.warm_sizes(64) == (1, 2, 64)
    assert graph.warm_sizes(1) == (1,)


@pytest.mark.parametrize(
    ("answer", "missing", "reason"),
    [
        (CPU, "libcudart.so: no such file", "libcudart.so: no such file"),
        (CPU, None, "onnxruntime does not say why"),
        (
            sessions._NoSession("/src/cuda_call.cc:1 CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ;"),
            None,
            "CUDA failure 100: no CUDA-capable device is detected",
        ),
    ],
    ids=["library", "silent", "driver"],
)
def test_cuda_is_refused_and_auto_says_that_it_falls_back(
    asked: Callable[[str | Exception], list[FakeSession]],
    answer: str | Exception,
    missing: str | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked(answer)
    monkeypatch.setattr(sessions, "_missing", lambda provider: missing)
    with pytest.raises(SetupError) as caught:
        Graph(tiny.graph(), SHAPE, device="cuda", threads=1)
    assert str(caught.value) == (
        f"--device cuda: {CUDA} does not come up: {reason}; install advsentry[cuda] and a driver, or use --device cpu"
    )
    with caplog.at_level(logging.WARNING):
        assert Graph(tiny.graph(), SHAPE, device="auto", threads=1).provider == CPU
    assert caplog.messages == [f"device auto: the graph runs on the processor: {CUDA} does not come up: {reason}"]
    assert capfd.readouterr() == ("", "")


def test_tensorrt_is_refused_where_only_cuda_comes_up(
    asked: Callable[[str | Exception], list[FakeSession]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(CUDA)
    monkeypatch.setattr(sessions, "_missing", lambda provider: f"{provider} lacks libnvinfer.so")
    with pytest.raises(SetupError, match=f"{TENSORRT} lacks libnvinfer.so; install TensorRT, or leave --tensorrt out"):
        Graph(tiny.graph(), SHAPE, device="cuda", threads=1, cuda=CudaOptions(tensorrt=True))


def test_what_is_no_graph_is_the_bundles_fault_on_any_device(
    asked: Callable[[str | Exception], list[FakeSession]],
) -> None:
    asked(sessions._NoSession("invalid protobuf"))
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime cannot load it"):
        Graph(b"no graph", SHAPE, device="cuda", threads=1)


def test_a_wheel_without_the_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.ort, "get_available_providers", lambda: [CPU])
    assert sessions._missing(CUDA) == "this onnxruntime has no such provider, the package onnxruntime-gpu has"


@pytest.mark.skipif(COMES_UP, reason="CUDA comes up here")
def test_without_a_gpu_onnxruntime_itself_prints_nothing_beside_our_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SetupError, match=f"--device cuda: {CUDA} does not come up: .+; install advsentry"):
        Graph(tiny.graph(), SHAPE, device="cuda", threads=1)
    assert Graph(tiny.graph(), SHAPE, device="auto", threads=1).provider == CPU
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
@pytest.mark.skipif(not COMES_UP, reason="needs a CUDA device")
def test_cuda_comes_up() -> None:
    assert Graph(tiny.graph(), SHAPE, device="cuda").provider == CUDA
