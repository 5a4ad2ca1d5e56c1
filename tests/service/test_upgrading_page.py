"""docs/upgrading.md: its versions are those of the code, its commands are commands, its promises hold."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from protos import detection_pb2 as pb
from service import cli
from service.detection.manifest import FORMAT_VERSION
from service.rpc.wire import parsed

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")


def test_its_versions_are_those_of_the_code() -> None:
    assert f"`format_version` of `manifest.json`, now {FORMAT_VERSION} |" in PAGE
    assert f"now `{pb.DESCRIPTOR.package}` |" in PAGE


def test_every_command_is_one() -> None:
    commands = [line.strip() for line in PAGE.splitlines() if line.startswith("    advsentry ")]
    assert len(commands) == 3
    for command in commands:
        if "--version" in command:
            with pytest.raises(SystemExit, match="0"):
                cli._parser().parse_args(["--version"])
        else:
            assert isinstance(cli._parser().parse_args(shlex.split(command)[1:]), argparse.Namespace)


def test_fields_of_a_newer_client_are_passed_over() -> None:
    newer = pb.DetectRequest(request_id="7").SerializeToString() + bytes([0xFA, 0x7F, 1, 0])  # field 2047, one byte
    assert parsed(pb.DetectRequest, newer).request_id == "7"


def test_it_is_short() -> None:
    assert len(PAGE.splitlines()) <= 60
    assert re.search(r"Servers, then bundles, then clients", PAGE)
