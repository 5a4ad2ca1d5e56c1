"""Machines on which the server must not start: one clear line, exit status 1."""

import os
import re
import subprocess
import urllib.request
from pathlib import Path

import grpc
import pytest

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc as pb_grpc
from service.rpc.read_answers import image_message
from tests import tiny
from tests.service.detection.test_devices import COMES_UP
from tests.service.test_process import ROOT, command, serving


def refused(*arguments: object, path: str = "") -> str:
    """The only line that a server said, on standard error, which did not start."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        command("serve", "--port", 0, "--metrics-port", 0, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"advsentry: error: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


@pytest.mark.skipif(COMES_UP, reason="CUDA comes up here")
def test_cuda_where_there_is_none(bundle_path: Path) -> None:
    line = refused("--bundle", bundle_path, "--device", "cuda")
    assert "--device cuda: CUDAExecutionProvider does not come up: " in line
    assert "or use --device cpu" in line


def test_tensorrt_without_cuda(bundle_path: Path) -> None:
    assert "--tensorrt: expected --device cuda beside it" in refused("--bundle", bundle_path, "--tensorrt", "on")


def test_both_onnxruntime_packages(tmp_path: Path, bundle_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    line = refused("--bundle", bundle_path, path=str(tmp_path))
    assert "both onnxruntime and onnxruntime-gpu are installed; uninstall both, then install one" in line


@pytest.mark.skipif(COMES_UP, reason="CUDA comes up here")
def test_auto_says_on_what_it_runs(bundle_path: Path) -> None:
    with serving(bundle_path, "--device", "auto", "--lame-duck-s", 0) as (process, target, metrics):
        with grpc.insecure_channel(target) as channel:
            request = pb.DetectRequest(image=image_message(tiny.images(1)[0]))
            answer = pb_grpc.DetectorServiceStub(channel).Detect(request, timeout=20)
        assert answer.meta.execution_provider == "CPUExecutionProvider"
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=20) as page:
            ran = 'advsentry_execution_provider_info{device="auto",provider="CPUExecutionProvider"} 1.0'
            assert ran in page.read().decode()
        process.terminate()
        assert process.wait(20) == 0
        assert process.stderr is not None
        told = [line for line in process.stderr.read().splitlines() if "WARNING" in line]
    assert len(told) == 1
    assert "device auto: the graph runs on the processor: CUDAExecutionProvider does not come up: " in told[0]
