"""The script that waits for a GPU works, shown by the CPU against itself."""

import json
from pathlib import Path

import pytest
import torch

from deploy import cuda_check
from tests import tiny


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_check, "SECONDS", 0.01)
    monkeypatch.setattr(cuda_check, "SERVED_SECONDS", 0.05)


def test_the_cpu_agrees_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda_check.main(["--out", str(tmp_path), "--device", "cpu", "--epochs", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["largest_logit_difference"] == found["largest_score_difference"] == 0
    assert found["cpu_images_per_s_at_64"] > 0


def test_a_bundle_that_is_there_is_served_and_held_against_its_bare_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, result = str(tiny.write(tmp_path / "tiny")), tmp_path / "gpu.json"
    arguments = [
        "--bundle",
        bundle,
        "--device",
        "cpu",
        "--max-batch",
        "8",
        "--result",
        str(result),
        "--",
        "--threads",
        "1",
    ]
    assert cuda_check.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads(result.read_text(encoding="utf-8"))["metrics"] == found
    best = max(found[f"tiny_cpu_images_per_s_at_{size}"] for size in cuda_check.BATCHES)
    assert found["tiny_stream_ratio_to_bare"] == found["tiny_stream_images_per_s"] / best
    assert found["tiny_batch_ratio_to_bare"] > 0
    assert found["tiny_start_s"] > 0


def test_without_a_bundle_the_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cuda_check.main([])
    assert caught.value.code == 2
    assert "expected --out DIR, --bundle B, or both" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_gpu_it_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda_check.main(["--bundle", str(tiny.write(tmp_path / "tiny"))]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cuda_check: error: --device cuda: CUDAExecutionProvider does not come up: ")
    assert said.err.count("\n") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_labels_of_the_cpu(tmp_path: Path) -> None:
    assert cuda_check.main(["--out", str(tmp_path)]) == 0
