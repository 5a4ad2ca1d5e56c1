"""Mean and worst over many attacks, by hand."""

import dataclasses
import json

import pytest

from service.detection.engine import Engine
from tests.training.evaluation import small
from training.evaluation.bootstrap import Estimate
from training.evaluation.compare import compare, unlike
from training.evaluation.overall import overall
from training.evaluation.report_overall import overall_table
from training.evaluation.results import AttackResult
from training.evaluation.summary import headline, words


def result(
    one: AttackResult, name: str, successful: float | None, n: int, every: float, *, is_adaptive: bool = False
) -> AttackResult:
    fused = dataclasses.replace(
        one.aurocs[-1],
        successful=Estimate(value=successful, interval=None, n=n),
        all=Estimate(value=every, interval=None, n=50),
    )
    return dataclasses.replace(one, name=name, is_adaptive=is_adaptive, aurocs=(*one.aurocs[:-1], fused))


@pytest.fixture(scope="module")
def attacks(engine: Engine) -> list[AttackResult]:
    one = small.run(engine, (small.NOTHING,)).attacks[0]
    return [
        result(one, "a", 0.9, 50, 0.6),
        result(one, "b", 0.8, 20, 0.8),
        result(one, "few", 0.1, 19, 0.7),
        result(one, "none", None, 0, 0.5),
        result(one, "knows", 0.2, 50, 0.2, is_adaptive=True),
    ]


def test_few_successes_are_left_out_of_the_first_and_named(attacks: list[AttackResult]) -> None:
    found = overall(attacks)
    assert found.successful.mean == pytest.approx(0.85)
    assert (found.successful.worst, found.successful.worst_attack, found.successful.worst_images) == (0.8, "b", 20)
    assert (found.successful.attacks, found.successful.left_out) == (2, ("few", "none"))
    assert found.all.mean == pytest.approx((0.6 + 0.8 + 0.7 + 0.5) / 4)
    assert (found.all.worst, found.all.worst_attack, found.all.worst_images) == (0.5, "none", 50)
    assert (found.all.attacks, found.all.left_out) == (4, ())
    assert "too few images: few, none" in overall_table(found)


def test_without_any_success_there_is_no_figure(attacks: list[AttackResult]) -> None:
    found = overall(attacks[2:4]).successful
    assert (found.attacks, found.mean, found.worst, found.worst_attack) == (0, None, None, None)
    assert overall_table(overall(())).count(">none<") == 4


def test_the_headline_the_terminal_and_the_comparison_have_them(engine: Engine, attacks: list[AttackResult]) -> None:
    report = small.report(engine, small.run(engine, (small.NOTHING,)))
    report = dataclasses.replace(report, overall=overall(attacks), attacks=tuple(attacks))
    figures = headline(report)
    assert (figures["mean_auroc_successful"], figures["worst_auroc"]) == (pytest.approx(0.85), 0.5)
    assert "AUROC over 2 attacks, successful attacks: mean 0.850, worst 0.800 (b, 20 images)" in words(report)
    fewer = dataclasses.replace(report, overall=overall(attacks[:2]), attacks=tuple(attacks[:2]))
    read, other = json.loads(report.to_json()), json.loads(fewer.to_json())
    rows = {pair.name: pair for pair in compare(read, other) if pair.section.startswith("AUROC over all attacks")}
    assert rows["worst, all attacked images"].first.value == 0.5
    assert rows["worst, all attacked images"].second.value == 0.6
    assert "attacks behind the mean and the worst: only one has few, none" in unlike(read, other)
    del other["overall"]  # of an older report
    assert all(pair.second.value is None for pair in compare(read, other) if pair.name.startswith("worst, "))
