"""Two reports side by side."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from service.detection.engine import Engine
from tests.training.evaluation import small
from training.__main__ import main
from training.evaluation.bootstrap import Estimate
from training.evaluation.compare import Pair, Side, compare, unlike
from training.evaluation.metrics import Range
from training.evaluation.results import Report
from training.evaluation.suite import chosen, quick_suite


@pytest.fixture(scope="module")
def report(engine: Engine) -> Report:
    suite = chosen(quick_suite(small.BUDGETS), ["fgsm", "pgd_l2"])
    return small.report(engine, small.run(engine, suite))


def read(report: Report) -> dict[str, Any]:
    return dict(json.loads(report.to_json()))


def better(first: tuple[float, float], second: tuple[float, float], *, wanted: str = "more") -> str | None:
    sides = [Side(value=sum(ends) / 2, low=ends[0], high=ends[1]) for ends in (first, second)]
    pair = Pair(section="", name="", wanted=wanted, first=sides[0], second=sides[1])  # type: ignore[arg-type]
    return pair.better


def test_one_is_better_where_the_intervals_lie_apart() -> None:
    assert better((0.5, 0.6), (0.7, 0.8)) == "second"
    assert better((0.7, 0.8), (0.5, 0.6)) == "first"
    assert better((0.7, 0.8), (0.5, 0.6), wanted="less") == "second"
    assert better((0.5, 0.7), (0.6, 0.8)) is None
    unknown = Pair(section="", name="", wanted="more", first=Side(value=0.1), second=Side(value=0.9))
    assert unknown.better is None


def test_a_report_beside_itself_is_alike_and_no_better(report: Report) -> None:
    pairs = compare(read(report), read(report))
    assert unlike(read(report), read(report)) == ()
    assert all(pair.first == pair.second and pair.better is None for pair in pairs)
    sections = [pair.section for pair in pairs]
    assert sections == sorted(sections, key=sections.index)
    assert ("AUROC, all attacked images", "PGD L2") in {(pair.section, pair.name) for pair in pairs}
    assert {pair.wanted for pair in pairs if "alarms" in pair.section} == {"less"}


def test_what_only_one_has_stands_beside_nothing(report: Report) -> None:
    fewer = dataclasses.replace(report, attacks=report.attacks[:1], shifts=())
    for first, second, has in ((report, fewer, "first"), (fewer, report, "second")):
        pairs = {(pair.section, pair.name): pair for pair in compare(read(first), read(second))}
        pair = pairs["AUROC, all attacked images", "PGD L2"]
        assert (getattr(pair, has).value is None, pair.better) == (False, None)
        assert (pair.second if has == "first" else pair.first).value is None


def test_what_was_measured_otherwise_is_said(report: Report) -> None:
    attack = dataclasses.replace(report.attacks[0], settings="Fgsm(eps=0.2)")
    other = dataclasses.replace(
        report,
        publishable=False,
        data=dataclasses.replace(report.data, name="circles"),
        attacks=(attack, *report.attacks[1:]),
    )
    assert unlike(read(report), read(other)) == (
        "data: quadrants and circles",
        "attacks of other strength: fgsm",
        "B is a quick run, too weak to be quoted",
    )


def test_the_bundle_in_an_attacks_words_is_no_difference(report: Report) -> None:
    aimed = [
        dataclasses.replace(report, attacks=(dataclasses.replace(report.attacks[0], settings=f"S() at bundle {name}"),))
        for name in ("aa", "bb")
    ]
    assert unlike(read(aimed[0]), read(aimed[1])) == ()


def test_the_command_prints_and_writes_a_page(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = dataclasses.replace(
        report,
        clean=dataclasses.replace(
            report.clean, accuracy=Estimate(value=0.1, interval=Range(low=0.05, high=0.15), n=60)
        ),
    )
    for name, one in (("a", report), ("b", worse)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(one.to_json(), encoding="utf-8")
    given = ["compare", str(tmp_path / "a"), str(tmp_path / "b" / "report.json"), "--out", str(tmp_path / "out")]
    assert main(given) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  accuracy"))
    assert row.split() == ["accuracy", "1.000", "0.100", "A"]
    html = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert '<span class="good">1.000' in html
    assert "Not measured alike" not in html
    assert main([*given, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures[0]["name"] == "accuracy"
    assert figures[0]["better"] == "first"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a bundle, a folder with report.json or such a file"),
        ('{"evaluated": false}', "the bundle has not been evaluated; `advsentry-train evaluate --publish` does it"),
        ("{", "expected the report of `advsentry-train evaluate`, got "),
        ('{"format": 99}', "expected a report of format 1, got another file"),
        ("[]", "expected a report of format 1, got another file"),
    ],
    ids=["missing", "not-evaluated", "broken", "format", "list"],
)
def test_what_is_no_report_is_one_clear_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert main(["compare", str(path), str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
