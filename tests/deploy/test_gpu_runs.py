"""deploy/gpu_runs.sh, with a program in the place of advsentry-train that only notes how it was called."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NAME = "cifar10-at-s1"
NOTES = """#!/usr/bin/env bash
echo "$@" >> "{notes}"
[ "$1" = "{slow}" ] && sleep 30
exit {status}
"""


def run(
    tmp_path: Path, *arguments: str, slow: str = "none", status: int = 0, limit: int = 60
) -> tuple[int, str, list[str]]:
    """Status, standard error, and the calls of advsentry-train and of Python."""
    program, notes = tmp_path / "train", tmp_path / "notes"
    program.write_text(NOTES.format(notes=notes, slow=slow, status=status), encoding="utf-8")
    program.chmod(0o755)
    notes.touch()
    ended = subprocess.run(
        [ROOT / "deploy" / "gpu_runs.sh", *arguments],
        env={
            **os.environ,
            **{"TRAIN": str(program), "PYTHON": str(program)},
            **{"NAME": NAME, "RESULTS": str(tmp_path), "LIMIT": str(limit)},
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr, notes.read_text(encoding="utf-8").splitlines()


def test_a_call_trains_and_measures(tmp_path: Path) -> None:
    given = ("cifar10-at", "data", "train.seed=1", "data.set=cifar10-jpeg75", "--", "--restarts", "2")
    status, _, calls = run(tmp_path, *given)
    assert status == 0
    assert calls == [
        f"fit cifar10-at --out runs/{NAME} --data data train.seed=1 data.set=cifar10-jpeg75",
        f"robustness runs/{NAME} --out {tmp_path}/{NAME}.json --data data --restarts 2",
    ]


def test_a_bundle_in_float16_is_made_and_measured_on_the_gpu(tmp_path: Path) -> None:
    status, _, calls = run(tmp_path, "fp16", "data", "gtsrb", "runs/gtsrb-s0", "--images", "50")
    assert status == 0
    assert calls == [
        f"export runs/gtsrb-s0 --out bundles/{NAME} --fp16 --like gtsrb --data data --force",
        f"-m deploy.int8_check gtsrb bundles/{NAME} --run runs/gtsrb-s0 --data data --device cuda "
        f"--result {tmp_path}/{NAME}.json --images 50",
    ]
    status, error, calls = run(tmp_path, "fp16", "data", "gtsrb")
    assert (status != 0, len(calls)) == (True, 2)
    assert "expected the run that the bundle was exported from" in error


@pytest.mark.parametrize(("slow", "calls"), [("fit", 1), ("robustness", 2)])
def test_a_call_that_takes_too_long_says_so_and_can_be_repeated(tmp_path: Path, slow: str, calls: int) -> None:
    status, error, made = run(tmp_path, "cifar10-at", "data", slow=slow, limit=1)
    assert status == 75
    assert "1 seconds are over; the same call again goes on" in error
    assert len(made) == calls


def test_a_failure_keeps_its_status_and_measures_nothing(tmp_path: Path) -> None:
    status, _, calls = run(tmp_path, "cifar10-at", "data", status=1)
    assert (status, len(calls)) == (1, 1)


def test_a_result_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.json").write_text("{}", encoding="utf-8")
    status, error, calls = run(tmp_path, "cifar10-at", "data")
    assert (status, calls) == (0, [])
    assert "is there already" in error


def test_the_data_must_be_named(tmp_path: Path) -> None:
    status, error, calls = run(tmp_path, "cifar10-at")
    assert status != 0
    assert "expected the folder of the data" in error
    assert calls == []
