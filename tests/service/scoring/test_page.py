"""docs/scoring.md: its commands, endings and columns are those of the code."""

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow (the extra `score`) is not installed")

from service import cli
from service.detection.engine import Engine
from service.files import SUFFIXES
from service.scoring.inputs import ENDINGS
from service.scoring.ledger import MANIFEST
from service.scoring.tables import TableMaker

PAGE = (Path(__file__).parents[3] / "docs" / "scoring.md").read_text(encoding="utf-8")


def test_each_command_is_understood() -> None:
    commands = [shlex.split(line) for line in re.findall(r"^    (advsentry .*)$", PAGE, re.MULTILINE)]
    assert [command[1] for command in commands] == ["score", "score"]
    for command in commands:
        assert cli._parser().parse_args(command[1:]).command


def test_each_flag_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli._parser().parse_args(["score", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= known


def test_each_ending_is_there() -> None:
    told = set(re.findall(r"`(\.[a-z0-9.]+)`", PAGE))
    assert told == set(ENDINGS) | set(SUFFIXES)


def test_each_column_is_there(engine: Engine) -> None:
    schema = TableMaker(engine.bundle.manifest, about={}, with_probabilities=True).schema
    first = re.findall(r"^\| (`.*?) \|", PAGE.split("| column |")[1].split("\n\n")[0], re.MULTILINE)
    told = re.findall(r"`([a-z_A-Z]+)`", " ".join(first))
    names = [entry.name for entry in engine.bundle.manifest.detectors]
    assert [name for column in told for name in _columns(column, names)] == schema.names


def _columns(told: str, detectors: list[str]) -> list[str]:
    return [told.replace("DETECTOR", name) for name in detectors] if "DETECTOR" in told else [told]


def test_the_manifest_has_its_name() -> None:
    assert f"`DIR/{MANIFEST}`" in PAGE
