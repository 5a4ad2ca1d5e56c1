"""`advsentry score`, as its users run it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow (the extra `score`) is not installed")

import pyarrow.parquet as pq

from service import score_command
from service.__main__ import main
from service.scoring import job, local
from service.scoring.ledger import MANIFEST
from tests.service import bad_images
from tests.service.scoring import made

PICTURES = made.pictures(50)


def score(*arguments: object, workers: int = 1) -> int:
    return main(["score", *map(str, arguments), "--workers", str(workers)])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> list[dict[str, object]]:
    """What a run says of the pictures."""
    place = tmp_path_factory.mktemp("expected")
    assert score(made.folder(place / "in", PICTURES), "--out", place / "out", "--bundle", bundle_path) == 0
    return made.answers(place / "out")


def test_a_row_is_the_line_of_detect(
    expected: list[dict[str, object]],
    tmp_path: Path,
    bundle_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = made.folder(tmp_path / "in", PICTURES)
    assert main(["detect", str(folder), "--bundle", str(bundle_path), "--reveal", "scores", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(expected) == 50
    for line, row in zip(lines, expected, strict=True):
        by_index = sorted(line["classes"], key=lambda one: one["index"])
        assert row == {
            "label": line["top"]["index"],
            "class_name": line["top"]["label"],
            "probability": line["top"]["probability"],
            "probabilities": [one["probability"] for one in by_index],
            "p_value": line["p_value"],
            **{f"p_value_{one['detector']}": one["p_value"] for one in line["detectors"]},
            "verdict": line["verdict"],
            "flags": [one["detector"] for one in line["detectors"] if one["flagged"]],
            "error": None,
            "reason": None,
        }
    assert {row["verdict"] for row in expected} == {"clean", "adversarial"}


@pytest.mark.parametrize(
    ("name", "make", "form"),
    [
        ("a.zip", made.zipped, "/in/{:05d}.png"),
        ("a.tar", made.tarred, "/{:05d}.png"),
        ("a.tar.gz", lambda path, given: made.tarred(path, given, "w:gz"), "/{:05d}.png"),
        ("a.parquet", made.tabled, "#{}"),
        ("folder", made.folder, ""),
    ],
)
def test_every_kind_of_input_gives_the_same_answers(
    expected: list[dict[str, object]],
    tmp_path: Path,
    bundle_path: Path,
    name: str,
    make: Callable[[Path, list[bytes]], Path],
    form: str,
) -> None:
    path, out = make(tmp_path / name, PICTURES), tmp_path / "out"
    assert score(path, "--out", out, "--bundle", bundle_path, "--batch", 7, "--shard-images", 20) == 0
    assert made.answers(out) == expected
    if form:
        assert [row["path"] for row in made.rows(out)] == [f"{path}{form.format(number)}" for number in range(50)]
    assert len(list(out.glob("*.parquet"))) == 3


def test_a_list_of_relative_paths_and_several_inputs_go_together(
    expected: list[dict[str, object]], tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made.folder(tmp_path / "in", PICTURES[:10])
    made.tarred(tmp_path / "a.tar", PICTURES[20:])
    (tmp_path / "list.txt").write_text("".join(f"in/000/{number:05d}.png\n" for number in range(10)))
    made.zipped(tmp_path / "b.zip", PICTURES[10:20])
    arguments = ("list.txt", "b.zip", "a.tar", "--out", "out", "--bundle", bundle_path)
    assert score(*arguments, workers=2) == 0
    assert made.answers(tmp_path / "out") == expected
    assert made.rows(tmp_path / "out")[0]["path"] == "in/000/00000.png"


def test_what_is_wrong_with_images_is_in_their_rows(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = bad_images.CASES
    (tmp_path / "in").mkdir()
    for number, case in enumerate(cases):
        (tmp_path / "in" / f"{number:03d}.png").write_bytes(case.data)
    (tmp_path / "in" / "999.png").write_bytes(PICTURES[1])
    (tmp_path / "in" / "cut.tar").write_bytes(b"hello")
    status = score(tmp_path / "in", "--out", tmp_path / "out", "--bundle", bundle_path, "--json")
    summary = json.loads(capsys.readouterr().out)
    found = made.rows(tmp_path / "out")
    declared = [case for case in cases if not case.mime_type]  # a file says nothing of its type
    assert status == 1
    assert summary["errors"] == sum(row["error"] is not None for row in found) > len(declared)
    assert summary["images"] == len(found) == len(cases) + 2
    for case, row in zip(cases, found, strict=False):
        if not case.mime_type:
            assert row["reason"] == case.reason, case.name
            assert re.search(case.says, row["error"]), case.name
            assert [row[name] for name in ("label", "class_name", "p_value", "verdict", "flags")] == [None] * 5
    assert found[-2]["error"] is None
    assert "the archive cannot be read on" in found[-1]["error"]


def test_the_file_tells_what_made_it(tmp_path: Path, bundle_path: Path) -> None:
    made.folder(tmp_path / "in", PICTURES[:3])
    arguments = ("--out", tmp_path / "out", "--bundle", bundle_path, "--alpha", "0.05", "--reveal", "p_values")
    assert score(tmp_path / "in", *arguments, "--top-only") == 0
    (path,) = (tmp_path / "out").glob("*.parquet")
    schema = pq.read_schema(path)
    about = json.loads(schema.metadata[b"advsentry"])
    assert about | {"calibration_id": ""} == {
        "bundle": "tiny",
        "version": "1",
        "calibration_id": "",
        "alpha": 0.05,
        "reveal": "p_values",
    }
    assert "probabilities" not in schema.names
    assert "probability" in schema.names


def test_the_same_command_goes_on_and_another_one_is_refused(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made.folder(tmp_path / "in", PICTURES)
    given = [tmp_path / "in", "--out", tmp_path / "out", "--bundle", bundle_path, "--shard-images", 10]
    assert score(*given) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert score(*given, "--batch", 3, "--json") == 0  # which changes no answer
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["images_this_run"], summary["shards"]) == (50, 0, 5)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    for change in (["--alpha", "0.02"], ["--reveal", "decision"], ["--top-only"], ["--shard-images", "20"]):
        assert score(*given, *change) == 1
        assert "was begun with" in capsys.readouterr().err
    (tmp_path / "in" / "new.png").write_bytes(PICTURES[0])
    assert score(*given) == 1
    assert "was begun with inputs of 50 files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{in}", "--out", "{in}/out"], "lies in the input"),
        (["{in}", "--out", "{out}", "--batch", "0"], "--batch: expected a whole number from 1 to 4096, got 0"),
        (["{in}", "--out", "{out}", "--workers", "-1"], "--workers: expected a whole number from 0"),
        (["{in}", "--out", "{out}", "--threads", "-1"], "--threads: expected a whole number from 0"),
        (["{in}", "--out", "{out}", "--bundle", "nope"], "nope: no such bundle directory"),
        (["{in}", "--out", "{out}", "--alpha", "0.001"], "needs 999 calibration images"),
        (["{in}/nope", "--out", "{out}"], "no such file or folder"),
        (["{two}", "--out", "{out}"], "name it with --column"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    tmp_path: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    import pyarrow as pa

    made.folder(tmp_path / "in", PICTURES[:1])
    pq.write_table(pa.table({"a": [b"x"], "b": [b"x"]}), tmp_path / "two.parquet")
    places = {"in": tmp_path / "in", "out": tmp_path / "out", "two": tmp_path / "two.parquet"}
    status = main(["score", "--bundle", str(bundle_path), *(one.format(**places) for one in arguments)])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert err.startswith("advsentry: error: ")
    assert says in err
    assert err.count("\n") == 1


def test_without_a_bundle_or_a_place_is_wrong_usage(tmp_path: Path) -> None:
    for given in ([tmp_path, "--out", tmp_path / "out"], [tmp_path, "--bundle", "digits"]):
        with pytest.raises(SystemExit) as caught:
            score(*given)
        assert caught.value.code == 2


def test_without_pyarrow_the_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_command.importlib.util, "find_spec", lambda _: None)
    assert score(tmp_path, "--out", tmp_path / "out", "--bundle", "digits") == 1
    assert "install advsentry[score]" in capsys.readouterr().err


def test_no_command_needs_pyarrow_but_this_one() -> None:
    code = "import sys, service.cli, service.app; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_process_that_decodes_imports_neither_pyarrow_nor_grpc() -> None:
    code = "import sys, service.scoring.decoding_process; sys.exit('pyarrow' in sys.modules or 'grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_so_many_chunks_are_ahead_of_what_is_written(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constant memory: what was read and not written never grows with the input."""
    made.tarred(tmp_path / "a.tar", made.pictures(400))
    read, most_ahead, written = 0, 0, 0
    real_chunks, real_add = local.chunks, job.Shards.add

    def counted(*arguments: object) -> object:
        nonlocal read
        for chunk in real_chunks(*arguments):  # type: ignore[arg-type]
            read += 1
            yield chunk

    def added(shards: job.Shards, columns: object) -> None:
        nonlocal written, most_ahead
        most_ahead = max(most_ahead, read - written)
        written += 1
        real_add(shards, columns)  # type: ignore[arg-type]

    monkeypatch.setattr(local, "chunks", counted)
    monkeypatch.setattr(job.Shards, "add", added)
    assert score(tmp_path / "a.tar", "--out", tmp_path / "out", "--bundle", bundle_path, "--batch", 4) == 0
    assert read == written == 101
    assert most_ahead <= 2 * 1 + 2 + local.GRAPH_DEPTH


def children(parent: int) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == parent:
            found.add(int(path.parent.name))
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=lambda sent: sent.name)
def test_a_run_that_is_killed_is_completed_by_the_same_command(tmp_path: Path, bundle_path: Path, sent: int) -> None:
    made.tarred(tmp_path / "a.tar", made.pictures(1500))
    given = ["score", tmp_path / "a.tar", "--out", tmp_path / "out", "--bundle", bundle_path]
    given += ["--shard-images", 50, "--workers", 1, "--threads", 1]
    command = [sys.executable, "-m", "service", *map(str, given)]
    manifest = tmp_path / "out" / MANIFEST
    slow = [*command, "--batch", "1"]
    running = subprocess.Popen(
        slow,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    wait_until(lambda: (manifest.exists() and manifest.read_bytes().count(b"\n") >= 3) or running.poll() is not None)
    below = children(running.pid)
    if sent == signal.SIGINT:
        os.killpg(running.pid, sent)  # as a terminal does
    else:
        running.send_signal(sent)
    _, err = running.communicate(timeout=120)
    assert running.returncode == (-sent if sent == signal.SIGKILL else 1), err
    assert b"Traceback" not in err
    assert below
    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in below))
    finished = manifest.read_bytes().count(b'"errors"')
    assert 2 <= finished < 30
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    summary = json.loads(done.stdout)
    assert (summary["images"], summary["images_this_run"]) == (1500, 1500 - 50 * finished)
    found = [row["path"] for row in made.rows(tmp_path / "out")]
    assert found == [f"{tmp_path}/a.tar/{number:05d}.png" for number in range(1500)]
