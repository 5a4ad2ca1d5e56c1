"""The pages as people open them: on a desk and on a phone, without a word on the console."""

import dataclasses
import json
from pathlib import Path

import pytest

from service.detection.engine import Engine
from tests.training.evaluation import small
from tests.training.evaluation.browser import CHROMIUM, look
from tests.training.evaluation.growing import POINTS, convergence
from training.evaluation.compare import compare, unlike
from training.evaluation.compare_page import page as compare_page
from training.evaluation.report import page

DESK, PHONE = 1280, 390

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on the PATH")


def test_a_page_that_is_too_wide_or_complains_is_caught(tmp_path: Path) -> None:
    wide = '<!doctype html><div style="width:600px">wide</div><script>console.error("broken")</script>'
    found = look([(wide, DESK), (wide, PHONE)], tmp_path)
    assert found.widths == [(DESK, DESK), (PHONE, 608)]  # and 8 px of the body's margin
    assert len(found.complaints) == 2
    assert all("broken" in line for line in found.complaints)


def test_the_pages_fit_a_desk_and_a_phone_and_do_not_complain(engine: Engine, tmp_path: Path) -> None:
    evaluation = dataclasses.replace(small.run(engine), sweep=POINTS, convergence=convergence(0.2, 0.5))
    report = small.report(engine, evaluation)
    read = json.loads(report.to_json())
    first, titles = page(report, evaluation), ("tiny 1", "a-bundle-with-a-rather-long-name-for-a-phone 1")
    second = compare_page(titles, compare(read, read), unlike(read, {**read, "publishable": False}))
    found = look([(text, width) for text in (first, second) for width in (DESK, PHONE)], tmp_path)
    assert found.complaints == []
    for room, taken in found.widths:
        assert taken <= room
