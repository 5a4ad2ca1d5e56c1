"""The README, as a reader tries it: every block of commands and of code runs, from top to bottom."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy import demo
from service.__main__ import main as advsentry
from service.client import DEFAULT_TARGET
from training.__main__ import main as train

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PAGES = ("README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$|((?:^    \S[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
SMALLER = {
    "advsentry tune": ["--seconds", "0.1"],
    "advsentry-train fit": [
        "train.epochs=1",
        "data.train=200",
        "data.fit=100",
        "model.width=4",
        "model.embedding_dim=16",
    ],
    "advsentry-train evaluate": ["--images", "10", "--attacks", "pgd", "--non-adaptive"],
    "advsentry-train export": ["export.history_level=0.1"],
}
"""What the test adds to a command, so that it takes seconds."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of each: those without a fence are of the shell."""
    return [(language if code else "sh", code or indented) for language, code, indented in BLOCK.findall(text)]


class Reader:
    """Who types what the README says into a shell with these files about."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._server: subprocess.Popen[str] | None = None
        self._target = DEFAULT_TARGET
        (folder / "folder").mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        for name in ("image.png", "folder/another.png"):
            Image.fromarray(pixels).save(folder / name)

    def follow(self, text: str) -> None:
        for language, block in blocks(text):
            if language == "python":
                exec(compile(self._aimed(block), "README.md", "exec"), {})
                continue
            assert language == "sh", f"nobody runs a block of {language or 'no language'}:\n{block}"
            for line in block.splitlines():
                self._run(self._aimed(line))

    def _aimed(self, text: str) -> str:
        return text.replace(DEFAULT_TARGET, self._target)

    def _run(self, line: str) -> None:
        program, command, *words = shlex.split(line, comments=True)
        words += SMALLER.get(f"{program} {command}", [])
        if program == "make":
            assert not words
            assert re.search(rf"^{re.escape(command)}:.*##", MAKEFILE, re.MULTILINE), line
            if command == "demo":
                self._demo()
        elif (program, command) == ("advsentry", "serve"):
            self._serve(words)
        elif program == "advsentry":
            assert advsentry([command, *words]) == 0, line
        elif program == "advsentry-train":
            assert train([command, *words]) == 0, line
        else:
            pytest.fail(f"nobody runs {line!r}")

    def _demo(self) -> None:
        """As the Makefile has it, each step made smaller."""
        found = re.search(r"^demo:.*\n\t\S+ -m deploy\.demo (.*)$", MAKEFILE, re.MULTILINE)
        assert found
        programs = {"service": "advsentry", "training": "advsentry-train"}
        self._patch.setenv("PYTHONPATH", str(ROOT))
        self._patch.setattr(demo, "command", lambda package, *words: self._run(shlex.join([programs[package], *words])))
        assert demo.main(shlex.split(found[1])) == 0

    def _serve(self, words: list[str]) -> None:
        self.leave()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "ADVSENTRY_PORT": "0", "ADVSENTRY_METRICS_PORT": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        found = re.match(r"serving grpc=(\S+) ", line)
        assert found, line
        self._target = found[1]
        assert advsentry(["health", "--target", self._target]) == 0

    def leave(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.communicate(timeout=60)
            assert self._server.returncode == 0
            self._server = None


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    for name in (name for name in os.environ if name.startswith("ADVSENTRY_")):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    found = Reader(tmp_path, monkeypatch)
    yield found
    found.leave()


def test_every_block_runs(reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader.follow(README)
    told = capsys.readouterr().out
    assert told.count("SERVING\n") == 2
    for report in ("build/demo/report", "reports/mine"):
        assert (tmp_path / report / "report.html").is_file()
    assert list((tmp_path / "scored").glob("*.parquet"))


def test_a_reader_needs_both_programs_and_python() -> None:
    languages = [language for language, _ in blocks(README)]
    assert languages.count("python") == 1
    commands = [
        line.split()[:2] for language, block in blocks(README) if language == "sh" for line in block.splitlines()
    ]
    programs = [program for program, _ in commands]
    assert set(programs) == {"make", "advsentry", "advsentry-train"}
    assert len(programs) == len(re.findall(r"^    \w", README.replace(python_block(), ""), re.MULTILINE))


def python_block() -> str:
    return next(block for language, block in blocks(README) if language == "python")


@pytest.mark.parametrize(
    "text",
    ["    rm -r build\n", "    make nothing\n", "```ruby\nputs 1\n```\n", "```\nadvsentry info digits\n```\n"],
    ids=["program", "target", "language", "no-language"],
)
def test_a_block_that_nobody_runs_is_told(reader: Reader, text: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        reader.follow(text)


def test_a_command_that_fails_is_told(reader: Reader) -> None:
    with pytest.raises(AssertionError, match="no-such"):
        reader.follow("    advsentry info no-such\n")


@pytest.mark.parametrize("command", re.findall(r"`make (\S+)`", README + (ROOT / "docs/architecture.md").read_text()))
def test_each_target_that_is_named_is_one(command: str) -> None:
    assert re.search(rf"^{re.escape(command)}:", MAKEFILE, re.MULTILINE)


def test_every_target_is_told() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
    assert targets - {"help"} == set(re.findall(r"`make (\S+)`", page.partition("## Commands")[2]))


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, section in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
        if "://" in target:
            continue
        there = (ROOT / page).parent / target if target else ROOT / page
        assert there.exists(), target
        if section and there.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert section in anchors, f"{target}#{section}"


def test_each_yes_of_ours_beside_others_is_proved() -> None:
    table = README.partition("## Beside others")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[-1].rstrip(" |") for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for ours in rows:
        assert ours.startswith("[") or ours == "no", ours
