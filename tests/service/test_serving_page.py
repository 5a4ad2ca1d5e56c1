"""docs/serving.md: its tables are those of the code, its examples run."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from protos import detection_pb2 as pb
from service import cli
from service.detection.engine import Engine
from service.errors import ErrorReason
from service.metrics import Metrics
from service.rpc.status import CODES
from service.settings import env_name, flag_name, setting_fields
from tests.service.running import running

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:][titles().index(title)]


def titles() -> list[str]:
    return re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)


def rows(text: str, first: str = "`") -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {first}")]


def test_every_setting_is_there_as_it_is() -> None:
    expected = [
        f"| `{flag_name(name)}` | `{env_name(name)}` | {default} | {text} |"
        for name, (text, default) in setting_fields().items()
    ]
    assert rows(section("Settings")) == expected


def test_every_metric_is_there_as_it_is() -> None:
    registry = Metrics(CollectorRegistry()).registry
    expected = []
    for collector in registry._collector_to_names:
        family = next(iter(collector.collect()))
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(collector._labelnames) or "-"  # type: ignore[attr-defined]
        expected.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    assert rows(section("Metrics")) == expected


def test_every_status_and_every_reason_is_there() -> None:
    found = re.findall(r"^\| `([A-Z_]+)`", section("Statuses"), flags=re.MULTILINE)
    assert set(found[:9]) == {code.name for code in CODES.values()} | {"CANCELLED"}
    assert found[9:] == [reason.value for reason in ErrorReason]


def test_every_command_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line.strip() for line in PAGE.splitlines() if line.startswith("    advsentry ")]
    assert len(commands) == 5
    for command in commands:
        assert isinstance(cli._parser().parse_args(shlex.split(command)[1:]), argparse.Namespace)


def test_the_call_by_hand_is_a_request() -> None:
    found = re.search(r"-d '(.*)' 127", PAGE)
    assert found is not None
    request = json_format.Parse(found[1], pb.DetectRequest())
    assert request.image.encoded.data.startswith(b"\x89PNG")


def test_the_example_runs(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    with running(engine) as server:
        exec(found[1].replace("127.0.0.1:50051", server.ports.grpc), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "FORMAT_UNSUPPORTED expected PNG" in lines[-1]


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
