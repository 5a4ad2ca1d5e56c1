"""The script that waits for a GPU works, shown by the CPU against itself."""

import json
from pathlib import Path

import pytest
import torch

from deploy import cuda_check


def test_the_cpu_agrees_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda_check, "SECONDS", 0.01)
    assert cuda_check.main(["--out", str(tmp_path), "--device", "cpu", "--epochs", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["largest_logit_difference"] == 0
    assert found["cpu_images_per_s_at_64"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_labels_of_the_cpu(tmp_path: Path) -> None:
    assert cuda_check.main(["--out", str(tmp_path)]) == 0
