"""The README's commands parse and its code runs."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import training.__main__ as training_cli
from service import cli as service_cli
from service.client import DEFAULT_TARGET
from service.detection.engine import Engine
from tests import tiny
from tests.service.running import running

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for line in re.findall(r"^    (advsentry.*|make .*)$", README, re.MULTILINE)]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_one_that_exists(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif program == "advsentry":
        assert service_cli._parser().parse_args(arguments).command
    else:
        assert training_cli._parsed(arguments).command


def test_the_python_example_runs_against_a_server(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    Image.fromarray(tiny.odd_image()[..., 0]).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    with running(engine) as server:
        exec(compile(code.replace(DEFAULT_TARGET, server.ports.grpc), "README.md", "exec"), {})
    assert "adversarial" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_each_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in targets if not ((ROOT / page).parent / link).exists()] == []
