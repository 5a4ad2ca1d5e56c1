import json
import re
from html.parser import HTMLParser

import pytest

from service.detection.engine import Engine
from tests.training.evaluation import small
from training.evaluation.evaluate import Evaluation
from training.evaluation.report import page
from training.evaluation.results import Report

EMPTY = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Fails on a tag that is closed out of turn, and gathers every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "xlink:href"}]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def evaluation(engine: Engine) -> Evaluation:
    return small.run(engine)


@pytest.fixture(scope="module")
def report(engine: Engine, evaluation: Evaluation) -> Report:
    return small.report(engine, evaluation)


def test_the_page_needs_nothing_from_anywhere(report: Report, evaluation: Evaluation) -> None:
    html = page(report, evaluation)
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert len(reader.addresses) == 5 * 10
    assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    assert not re.search(r"url\(|@import|https?:", html)
    assert len(html) < 5_000_000


def test_the_page_says_what_is_not_known(report: Report, evaluation: Evaluation) -> None:
    html = page(report, evaluation)
    assert "that test has not been run" in html
    assert "would need 999 calibration images" in html
    assert "Quick run" not in html


def test_names_from_outside_are_escaped(engine: Engine, evaluation: Evaluation) -> None:
    import dataclasses

    report = small.report(engine, evaluation)
    evil = dataclasses.replace(report, bundle=dataclasses.replace(report.bundle, name="<script>alert(1)</script>"))
    assert "<script" not in page(evil, evaluation)


def test_a_quick_page_says_so_first(engine: Engine, evaluation: Evaluation) -> None:
    html = page(small.report(engine, evaluation, publishable=False), evaluation)
    assert html.index("do not quote these figures") < html.index("In short")


def test_a_page_without_any_success_is_whole(engine: Engine) -> None:
    evaluation = small.run(engine, (small.NOTHING,))
    html = page(small.report(engine, evaluation), evaluation)
    assert "No attack succeeded" in html
    assert "this attack did not succeed" in html


def test_the_json_is_small_and_holds_no_nan(report: Report) -> None:
    text = report.to_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert len(text) < 200_000
    read = json.loads(text)
    assert read["format"] == 1
    assert [row["images_needed"] for row in read["false_positives"]] == [999, None, None, None]
    assert {attack["name"] for attack in read["attacks"]} >= {"fgsm", "pgd", "cw_l2"}
