"""R-23 tells what `make test-image` found, and does not pass an image that nobody built."""

import json
import tomllib
from pathlib import Path

import pytest

from deploy.reliability import interop_checks
from deploy.reliability.__main__ import run_check
from deploy.reliability.check import Judged, Verdict
from deploy.reliability.rig import Rig, Size
from deploy.reliability.sheet import SHEET
from deploy.results import ASKED, RESULTS

CHECK = next(check for check in SHEET if check.number == "R-23")
GOOD = json.loads((RESULTS / "image.json").read_text("utf-8"))["metrics"]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Judged:
    """The row at full size, where the script that tries an image does as the parameter says."""
    script = tmp_path / "test_image.sh"
    script.write_text(f"#!/bin/sh\n{request.param}\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(interop_checks, "TEST_IMAGE", script)
    return run_check(CHECK, Rig(size=Size.FULL, folder=tmp_path))


def told(figures: dict[str, float], status: int = 0) -> str:
    return f"echo '{json.dumps(figures)}'; exit {status}"


@pytest.mark.parametrize("judged", [told(GOOD)], indirect=True)
def test_a_good_image_passes_with_the_figures_that_are_asked(judged: Judged) -> None:
    assert judged.verdict is Verdict.PASS
    assert judged.figures.keys() == CHECK.asked.keys()


@pytest.mark.parametrize(
    "judged",
    [told({**GOOD, "runs_as": 0.0}, 1), told(GOOD, 1), "echo 'test-image: error: no base' >&2; exit 1"],
    ids=["root", "something-else", "not-built"],
    indirect=True,
)
def test_any_other_image_fails(judged: Judged) -> None:
    assert judged.verdict is Verdict.FAIL


@pytest.mark.parametrize("judged", ["echo 'test-image: skipped: there is no buildah here' >&2"], indirect=True)
def test_without_tools_it_does_not_run_and_says_what_lacks(judged: Judged) -> None:
    assert (judged.verdict, judged.why) == (Verdict.NOT_RUN, "test-image: skipped: there is no buildah here")


def test_at_quick_size_it_says_where_the_figures_are(tmp_path: Path) -> None:
    judged = run_check(CHECK, Rig(folder=tmp_path))
    assert judged.verdict is Verdict.NOT_RUN
    assert "results.md, image" in judged.why


def test_the_sheet_asks_what_is_asked_of_an_image() -> None:
    asked = tomllib.loads(ASKED.read_text("utf-8"))["image"]
    assert {name: asked[name] for name in interop_checks.IMAGE} == interop_checks.IMAGE
