"""What `make test-image` asks of a server in an image, asked of one outside of any."""

import os
import sys
from pathlib import Path

import pytest

from deploy.image.__main__ import _of_content, _of_settings
from deploy.image.layers import Content, Image
from deploy.image.running import _running, ask
from service.detection.bundle import SHIPPED
from service.errors import SetupError

SERVE = [sys.executable, "-m", "service", "serve", "--port", "0", "--metrics-port", "0", "--health-port", "0"]
GOOD = {
    "User": "65532:65532",
    "Entrypoint": ["advsentry"],
    "Cmd": ["serve"],
    "Env": ["PATH=/usr/bin"],
}


def test_a_server_is_asked_and_ended() -> None:
    with _running(["env", *SERVE, "--bundle", "digits", "--lame-duck-s", "0"]) as container:
        answers = ask(container, SHIPPED / "digits")
        assert (answers.asked, answers.wrong, answers.is_ready) == (2, 0, True)
        assert answers.series > 100
        assert container.status("Uid") == str(os.getuid())
        assert container.end() == 0


def test_wrong_answers_are_counted() -> None:
    with _running([*SERVE, "--bundle", "mnist"]) as container:  # which stretches images of other sizes
        answers = ask(container, SHIPPED / "digits")
    assert answers.wrong > 0


def test_a_server_that_does_not_start_is_an_error() -> None:
    with pytest.raises(SetupError, match="did not start"), _running([*SERVE, "--bundle", "nope"]):
        pass


@pytest.mark.parametrize(
    ("changed", "figure"),
    [
        ({"User": "0"}, {"user_id": 0}),
        ({"Entrypoint": ["/bin/sh", "-c", "advsentry serve"]}, {"is_exec_form": 0}),
        ({"Env": ["PIP_INDEX_URL=x"]}, {"index_settings": 1}),
        ({}, {"user_id": 65532, "is_exec_form": 1, "index_settings": 0}),
    ],
)
def test_wrong_settings_are_seen(changed: dict[str, object], figure: dict[str, float]) -> None:
    found = _of_settings(Image(config={**GOOD, **changed}, history=("COPY",), layers=()))
    assert {**found, **figure} == found


def test_versions_are_held_against_the_pins(capsys: pytest.CaptureFixture[str]) -> None:
    pins = Path(__file__).parent.parent.parent.parent / "constraints.txt"
    version = next(line.split("==")[1] for line in pins.read_text("utf-8").splitlines() if "onnxruntime-gpu==" in line)
    packages = {"onnxruntime": version, "advsentry": "0", "numpy": "1.0", "torch": "2.13.0"}
    found = _of_content(
        Content(size_mb=1, compressed_mb=1, files=1, secrets=(), tests=(), writable=(), packages=packages)
    )
    assert (found["packages_not_pinned"], found["has_torch"]) == (1, 1)
    assert "numpy 1.0 is not as constraints.txt has it" in capsys.readouterr().err
