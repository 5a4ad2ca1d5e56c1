"""What goes into an image: the project's own requirements, with the one onnxruntime that fits, and no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.image.requirements import requirements

ROOT = Path(__file__).parent.parent.parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
VERSION = next(line.split("==")[1] for line in CONSTRAINTS.splitlines() if line.startswith("onnxruntime-gpu=="))


def made(target: str, *extras: str) -> list[str]:
    return requirements(target, extras, project=PROJECT, constraints=CONSTRAINTS)


def test_the_cpu_image_has_the_cpu_package_of_the_pinned_version() -> None:
    lines = made("cpu", "uvloop")
    assert [line for line in lines if line.startswith("onnxruntime")] == [f"onnxruntime=={VERSION}"]
    assert any(line.startswith("uvloop") for line in lines)
    assert any(line.startswith("grpcio-health-checking") for line in lines)
    assert not any("torch" in line for line in lines)


def test_the_gpu_image_has_the_one_with_cuda_and_its_libraries() -> None:
    lines = made("gpu")
    assert [line for line in lines if line.startswith("onnxruntime")] == [f"onnxruntime-gpu[cuda,cudnn]=={VERSION}"]


def test_every_requirement_has_its_pin() -> None:
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in CONSTRAINTS.splitlines() if "==" in line}
    for line in made("cpu", "uvloop", "otel")[1:]:
        name = line.split(">")[0].split("=")[0].lower().replace("_", "-")
        assert name in pinned, line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["tpu"], "expected a target of cpu, gpu, got 'tpu'"), (["cpu", "uvlop"], "expected extras of service, ")],
)
def test_a_wrong_target_or_extra_is_one_line(arguments: list[str], message: str) -> None:
    program = ROOT / "deploy" / "image" / "requirements.py"
    done = subprocess.run(
        [sys.executable, "-S", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert message in done.stderr


def test_a_version_that_is_not_pinned_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected a line onnxruntime-gpu==VERSION"):
        requirements("cpu", (), project=PROJECT, constraints="numpy==2\n")
