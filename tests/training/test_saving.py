"""A run whose disk fills up, or that is killed while it saves, keeps its last checkpoint and goes on from it."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import SetupError
from tests.training.test_fit import CPU, at_step, interrupt, same, tiny, weights
from training import checkpoint
from training.checkpoint import CHECKPOINT, read_checkpoint, write_atomically
from training.config import recipe_to_toml
from training.fit import Outcome, fit

MAIN = """
import sys
from training import checkpoint
from training.__main__ import main
{before}
sys.exit(main(sys.argv[1:]))
"""
LIMITED = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
KILLED = """
import os, signal
to_disk = checkpoint._to_disk
def killed(descriptor):
    if os.readlink(f"/proc/self/fd/{descriptor}").endswith("checkpoint.pt.new"):
        os.kill(os.getpid(), signal.SIGKILL)
    to_disk(descriptor)
checkpoint._to_disk = killed
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert fit(tiny(), None, run, device=CPU) is Outcome.FINISHED
    return run


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that was stopped after its first epoch."""
    run = tmp_path / "run"
    assert fit(tiny(), None, run, device=CPU, on_step=at_step(4, interrupt)) is Outcome.INTERRUPTED
    return run


def assert_goes_on(run: Path, finished: Path) -> None:
    assert read_checkpoint(run)["loop"]["epoch"] == 1
    assert fit(tiny(), None, run, device=CPU) is Outcome.FINISHED
    assert same(weights(run), weights(finished))
    assert sorted(path.name for path in run.iterdir()) == [CHECKPOINT, "log.jsonl", "recipe.toml"]


def fit_elsewhere(run: Path, before: str) -> "subprocess.CompletedProcess[str]":
    """`advsentry-train fit` in a process of its own, in which something was done before."""
    recipe = run.parent / "recipe.toml"
    recipe.write_text(recipe_to_toml(tiny()), encoding="utf-8")
    program = [sys.executable, "-c", MAIN.format(before=before), "fit", str(recipe), "--out", str(run)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("file", ["log.jsonl", CHECKPOINT])
@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, r"got a full disk \(No space left on device\)"), (errno.EIO, "got Input/output error")],
    ids=["full", "broken"],
)
def test_a_save_that_fails_leaves_what_was_there(
    begun: Path, finished: Path, file: str, number: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (begun / CHECKPOINT).read_bytes()
    whole = checkpoint._replacing

    class Full:
        """A file on a disk without room."""

        def write(self, _content: object) -> int:
            raise OSError(number, os.strerror(number))

        def flush(self) -> None:
            pass

    @contextmanager
    def replacing(path: Path) -> Iterator[object]:
        with whole(path) as written:
            yield Full() if path.name == file else written

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_replacing", replacing)
        with pytest.raises(SetupError, match=rf"{file}: expected to save it, {message}; what stood there .* is whole"):
            fit(tiny(), None, begun, device=CPU)
    assert (begun / CHECKPOINT).read_bytes() == before
    assert not list(begun.glob("*.new"))
    assert_goes_on(begun, finished)


def test_a_file_size_limit_is_one_line_and_the_run_goes_on(begun: Path, finished: Path) -> None:
    before = (begun / CHECKPOINT).read_bytes()
    assert len(before) > 4096
    ended = fit_elsewhere(begun, LIMITED)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"advsentry-train: error: {begun / CHECKPOINT}: expected to save it, got a full disk")
    assert last.endswith("run the same command again")
    assert "Traceback" not in ended.stderr
    assert (begun / CHECKPOINT).read_bytes() == before
    assert not list(begun.glob("*.new"))
    assert_goes_on(begun, finished)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the kill finds its moment by /proc")
def test_a_run_killed_while_it_saves_goes_on(begun: Path, finished: Path) -> None:
    before = (begun / CHECKPOINT).read_bytes()
    assert fit_elsewhere(begun, KILLED).returncode == -signal.SIGKILL
    assert (begun / f"{CHECKPOINT}.new").exists()
    assert (begun / CHECKPOINT).read_bytes() == before
    assert_goes_on(begun, finished)


def test_a_run_killed_while_it_wrote_its_recipe_begins_anew(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml.new").write_text("[data", encoding="utf-8")
    assert fit(tiny(), None, tmp_path, device=CPU) is Outcome.FINISHED
    assert same(weights(tmp_path), weights(finished))


def test_a_defect_while_saving_keeps_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "text", "\ud800")
    with pytest.raises(RuntimeError, match="a defect"), checkpoint._replacing(tmp_path / "text"):
        raise RuntimeError("a defect")
    assert list(tmp_path.iterdir()) == []
