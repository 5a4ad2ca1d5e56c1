"""Attacks that two processes share give the figures of one: under torchrun, one or two of it, on the CPU."""

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.torchrun import PATIENCE_S, started
from tests.training.evaluation.small_batches import BATCH, shrink
from training.__main__ import main
from training.evaluation import attacking, withstanding
from training.evaluation.attack_cache import ATTACKED

MODULE = ("-m", "--", "tests.training.evaluation.small_batches")  # torchrun would take --run for its own option
ROBUSTNESS = ("--images", "40", "--quick", "--attacks", "pgd_20,pgd_100,pgd_l2")


@pytest.fixture(autouse=True)
def small_batches(run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    defaults = attacking.attack_images.__kwdefaults__
    monkeypatch.setitem(defaults, "batch", defaults["batch"])
    monkeypatch.setattr(withstanding, "_BATCH", BATCH)
    shrink()
    shutil.rmtree(run[0] / ATTACKED, ignore_errors=True)
    yield
    shutil.rmtree(run[0] / ATTACKED, ignore_errors=True)


def attacked(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All that is kept, a name for each batch of each file."""
    found = {}
    for path in sorted((run / ATTACKED).iterdir()):
        with np.load(path) as arrays:
            found |= {f"{path.name} {name}": arrays[name] for name in arrays.files if name != "seconds"}
    return found


def metrics(path: Path) -> dict[str, float]:
    return dict(json.loads(path.read_text(encoding="utf-8"))["metrics"])


def test_two_processes_go_on_where_one_stopped_to_the_very_images_of_one(
    run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["robustness", str(run[0]), "--data", str(run[1]), *ROBUSTNESS, "--out"]
    assert main([*words, str(tmp_path / "alone.json")]) == 0
    alone = attacked(run[0])
    assert len(alone) == 3 * 40 // BATCH
    shutil.rmtree(run[0] / ATTACKED)

    calls = 0
    attack = attacking._attack_batch

    def stop_in_the_second_attack(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise KeyboardInterrupt
        return attack(*arguments)

    with monkeypatch.context() as stopping:
        stopping.setattr(attacking, "_KEEP_EVERY_S", 0.0)
        stopping.setattr(attacking, "_attack_batch", stop_in_the_second_attack)
        assert main([*words, str(tmp_path / "stopped.json")]) == 1
    assert len(attacked(run[0])) == 6

    with started(*MODULE, *words, str(tmp_path / "together.json")) as process:
        printed, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    together = attacked(run[0])
    assert together.keys() == alone.keys()
    for name, images in alone.items():
        np.testing.assert_array_equal(together[name], images, err_msg=name)
    assert metrics(tmp_path / "together.json") == metrics(tmp_path / "alone.json")
    assert json.loads((tmp_path / "together.json").read_text(encoding="utf-8"))["machine"].endswith(", 2 processes")
    assert printed.count("result: ") == 1
    assert said.count("pgd_l2 done: ") == 1
    assert "pgd_l2: 0 of 24 of the first of 2 processes" in said  # three batches of five


def test_two_launchers_report_what_one_process_does(run: tuple[Path, Path], exported: Path, tmp_path: Path) -> None:
    attacks = "pgd,adaptive_selective,adaptive_match_embedding"
    words = ["evaluate", str(exported), "--run", str(run[0]), "--data", str(run[1]), "--images", "20"]
    words += ["--budget", "quick", "--attacks", attacks, "--out"]
    assert main([*words, str(tmp_path / "alone")]) == 0
    alone = attacked(run[0])
    shutil.rmtree(run[0] / ATTACKED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port]
    with ExitStack() as stack:
        machines = [
            stack.enter_context(
                started(*MODULE, *words, str(tmp_path / "together"), options=[*options, "--node-rank", str(rank)])
            )
            for rank in range(2)
        ]
        said = [machine.communicate(timeout=PATIENCE_S) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert ["report: " in printed for printed, _ in said] == [True, False]
    together = attacked(run[0])
    assert together.keys() == alone.keys()
    for name, images in alone.items():
        np.testing.assert_array_equal(together[name], images, err_msg=name)
    reports = [json.loads((tmp_path / name / "report.json").read_text("utf-8")) for name in ("alone", "together")]
    for report in reports:
        for attack in report["attacks"]:
            del attack["seconds"]
    assert [attack["name"] for attack in reports[0]["attacks"]] == attacks.split(",")
    for part in ("attacks", "unions", "false_positives", "clean"):
        assert reports[1][part] == reports[0][part], part


def test_what_one_process_alone_lacks_is_told_once(run: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["robustness", str(run[0]), "--data", str(run[1]), *ROBUSTNESS, "--out", str(tmp_path / "x.json")]
    with started(*MODULE, *words, environment={"ADVSENTRY_TEST_FAILS": "1"}) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert said.count("advsentry-train: error: nothing here") == 1
    assert not (tmp_path / "x.json").exists()
