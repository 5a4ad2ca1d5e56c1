"""docs/operations.md: its commands are commands, its flags are settings."""

import argparse
import re
import shlex
from pathlib import Path

from service import cli
from service.supervisor import START_TRIES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_command_is_one() -> None:
    commands = [line.strip() for line in PAGE.splitlines() if line.startswith("    advsentry ")]
    assert len(commands) == 1
    for command in commands:
        assert isinstance(cli._parser().parse_args(shlex.split(command)[1:]), argparse.Namespace)


def test_every_flag_is_one() -> None:
    known = cli._parser().parse_args(["serve"]).__dict__.keys()
    assert {flag.replace("-", "_") for flag in re.findall(r"`--([a-z-]+)", PAGE)} - {"admin"} <= known


def test_what_it_says_of_starts_is_so() -> None:
    assert f"{START_TRIES} starts in a row" in PAGE
