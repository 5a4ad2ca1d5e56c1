"""The pages on serving: their tables are those of the code, their commands are commands, their examples run."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from protos import detection_pb2 as pb
from service import cli
from service.config import Effective
from service.detection.engine import Engine
from service.errors import ErrorReason
from service.metrics import Metrics
from service.rpc.status import CODES
from service.setting_words import shown
from service.settings import env_name, flag_name, setting_fields
from tests.service.running import running

ROOT = Path(__file__).parent.parent.parent
SERVING, SETTINGS, CALLING, METRICS = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("serving", "settings", "calling", "metrics")
)


def section(page: str, title: str) -> str:
    titles = re.findall(r"^## (.*)$", page, flags=re.MULTILINE)
    return re.split(r"^## ", page, flags=re.MULTILINE)[1:][titles.index(title)]


def rows(text: str, first: str = "`") -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {first}")]


def test_every_setting_is_there_as_it_is() -> None:
    expected = [
        f"| `{flag_name(name)}` | `{env_name(name)}` | {shown(default)} | {text} |"
        for name, (text, default) in setting_fields().items()
    ]
    assert rows(section(SETTINGS, "All of them")) == expected


def test_every_metric_is_there_as_it_is() -> None:
    registry = Metrics(CollectorRegistry()).registry
    expected = []
    for collector in registry._collector_to_names:
        family = next(iter(collector.collect()))
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(collector._labelnames) or "-"  # type: ignore[attr-defined]
        expected.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    assert rows(section(METRICS, "What is counted")) == expected


def test_every_status_and_every_reason_is_there() -> None:
    found = re.findall(r"^\| `([A-Z_]+)`", section(CALLING, "Statuses"), flags=re.MULTILINE)
    assert set(found[:9]) == {code.name for code in CODES.values()} | {"CANCELLED"}
    assert found[9:] == [reason.value for reason in ErrorReason]


def test_every_command_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    lines = (SERVING + SETTINGS).splitlines()
    commands = [line.strip() for line in lines if line.startswith("    advsentry ")]
    assert len(commands) == 7
    for command in commands:
        assert isinstance(cli._parser().parse_args(shlex.split(command)[1:]), argparse.Namespace)


def test_the_call_by_hand_is_a_request() -> None:
    found = re.search(r"-d '(.*)' 127", CALLING)
    assert found is not None
    request = json_format.Parse(found[1], pb.DetectRequest())
    assert request.image.encoded.data.startswith(b"\x89PNG")


def test_the_example_runs(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```", CALLING, flags=re.DOTALL)
    assert found is not None
    with running(engine) as server:
        exec(found[1].replace("127.0.0.1:50051", server.ports.grpc), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "FORMAT_UNSUPPORTED expected PNG" in lines[-1]


def test_the_file_is_one(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", SETTINGS, flags=re.DOTALL)
    assert found is not None
    (tmp_path / "file").write_text(found[1])
    assert Effective.of({}, {}, str(tmp_path / "file")).settings.workers == 2


@pytest.mark.parametrize(
    "page", sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "results.md")
)
def test_links_into_a_page_lead_to_its_sections(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    for target, part in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", text):
        there = (ROOT / "docs" / (target or page)).read_text("utf-8")
        titles = re.findall(r"^##+ (.*)$", there, flags=re.MULTILINE)
        found = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert part in found, f"{target}#{part}"


def test_the_readme_leads_to_every_page_of_a_server() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for page in re.findall(r"\]\((\w+\.md)\)", SERVING):
        assert f"docs/{page}" in readme, page


def test_no_page_of_a_server_is_long() -> None:
    for page in ("serving.md", *re.findall(r"\]\((\w+\.md)\)", SERVING)):
        lines = (ROOT / "docs" / page).read_text("utf-8").count("\n")
        assert lines <= 170, page
