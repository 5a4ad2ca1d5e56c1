"""The non-adaptive attacks as entries: budgets after rounding, subsets, what a model does not allow."""

import dataclasses

import numpy as np
import pytest
import torch

from service.detection.engine import Engine
from service.errors import SetupError
from tests.training.evaluation import small
from training.attacks.library import CarliniWagnerL2
from training.evaluation.attacking import attack_images
from training.evaluation.decisions import FUSED, decide
from training.evaluation.entries import SuiteEntry
from training.evaluation.held_out import choose_images
from training.evaluation.judging import Attacked, inside, judge_attack, judge_union, pixels_changed
from training.evaluation.suite import chosen, fitting, full_suite, quick_suite, standard_suite

SUITE = quick_suite(small.BUDGETS)
BRIEF = {
    **{entry.name: entry for entry in SUITE},
    **{
        name: dataclasses.replace(entry, attack=dataclasses.replace(entry.attack, turns=1, probes=3))  # type: ignore[type-var]
        for name, entry in {entry.name: entry for entry in SUITE}.items()
        if name.startswith("hop_skip_jump")
    },
}


def made(entry: SuiteEntry, *, seed: int = 0, count: int = 4) -> np.ndarray:
    test = small.held_out(count)
    run = attack_images(small.Twin().eval(), test.images, test.labels, entry, seed=seed, progress=lambda line: None)
    return run.images


def test_every_strength_has_the_same_attacks_under_names_of_their_own() -> None:
    names = [entry.name for entry in SUITE]
    assert len(set(names)) == len(names)
    for other in (standard_suite, full_suite):
        assert [entry.name for entry in other(small.BUDGETS)] == names
    assert len({entry.title for entry in SUITE}) == len({repr(entry.attack) for entry in SUITE}) == len(names)


@pytest.mark.parametrize("name", BRIEF)
def test_an_entry_keeps_its_budget_in_8_bits_and_its_seed(name: str) -> None:
    entry, state = BRIEF[name], torch.random.get_rng_state()
    clean, attacked = small.held_out(4).images, made(entry)
    assert np.array_equal(attacked, made(entry))
    assert torch.equal(torch.random.get_rng_state(), state)
    if entry.eps is not None:
        assert inside(attacked, clean, entry.norm, entry.eps).all()
        assert (attacked != clean).any()
    if name == "patch":
        assert pixels_changed(attacked, clean).max() <= 25


@pytest.mark.parametrize(
    ("classes", "widest", "left_out"),
    [
        (10, 100.0, ()),
        (10, 12.0, ("cw_l2_k20", "cw_l2_k40")),
        (10, 10.0, ("cw_l2_k20", "cw_l2_k40")),
        (3, 100.0, ("apgd_t",)),
        (2, 0.0, ("apgd_dlr", "apgd_t", "cw_l2_k5", "cw_l2_k10", "cw_l2_k20", "cw_l2_k40")),
    ],
    ids=str,
)
def test_what_a_model_does_not_allow_is_left_out_and_said(
    classes: int, widest: float, left_out: tuple[str, ...]
) -> None:
    found = fitting(SUITE, (), classes=classes, widest=widest)
    kept = {entry.name for entry in found.entries}
    assert {entry.name for entry in SUITE} - kept == set(left_out)
    assert len(found.remarks) == len(left_out)
    titles = {entry.name: entry.title for entry in SUITE}
    assert all(
        any(remark.startswith(f"{titles[name]} was left out: ") for remark in found.remarks) for name in left_out
    )


def test_a_confidence_beyond_the_model_names_its_widest_lead() -> None:
    found = fitting(SUITE, ("cw_l2", "cw_l2_k40"), classes=4, widest=12.34)
    assert found.remarks == ("C&W L2, κ = 40 was left out: no clean image has a logit that leads by more than 12.3.",)
    with pytest.raises(SetupError, match="--attacks: expected one that fits the model; C&W L2, κ = 40 was left out"):
        fitting(SUITE, ("cw_l2_k40",), classes=4, widest=12.34)


def test_the_strongest_confidences_are_the_published_ones() -> None:
    attacks = [entry.attack for entry in full_suite(small.BUDGETS)]
    assert [one.confidence for one in attacks if isinstance(one, CarliniWagnerL2)] == [0, 5, 10, 20, 40]


def test_a_kind_without_a_budget_takes_none() -> None:
    with pytest.raises(ValueError, match=r"nothing: expected no budget for a change of kind patch, got 0\.1"):
        dataclasses.replace(small.NOTHING, norm="patch", eps=0.1)


def test_a_dear_attack_takes_some_images_and_is_judged_by_those(engine: Engine) -> None:
    test = small.held_out(40)
    entry = chosen(SUITE, ["pgd"])[0]
    some = small.run(engine, (dataclasses.replace(entry, images=15),), test=test)
    rows = choose_images(test.labels, 15, 0)
    fewer = dataclasses.replace(test, images=test.images[rows], labels=test.labels[rows], chosen=np.arange(15))
    alone = small.run(engine, (entry,), test=fewer)
    first, second = some.attacks[0], alone.attacks[0]
    assert first.images == 15
    assert (first.successful, first.failed, first.wrong_before) == (
        second.successful,
        second.failed,
        second.wrong_before,
    )
    assert [score.all.value for score in first.aurocs] == [score.all.value for score in second.aurocs]
    assert first.partial_aurocs == second.partial_aurocs
    assert np.array_equal(some.plots[0].rows, rows)
    assert len(some.clean_scores) == 40


def attacked(engine: Engine, entry: SuiteEntry, rows: list[int], broken: list[int]) -> Attacked:
    """Images of which some are read as the next class; nothing is rejected."""
    test = small.held_out(10)
    clean = decide(engine, test.images[rows])
    labels = clean.labels.copy()
    labels[[rows.index(row) for row in broken]] += 1
    return Attacked(
        entry=entry,
        images=test.images[rows] ^ 1,
        decisions=dataclasses.replace(clean, labels=labels % 4, p_values={**clean.p_values, FUSED: np.ones(len(rows))}),
        disagreements=0,
        seconds=0.0,
        rows=np.array(rows),
    )


def test_an_image_that_an_attack_left_out_is_not_broken_by_it(engine: Engine) -> None:
    subject = small.subject(engine, 10)
    some = attacked(engine, small.NOTHING, [1, 4, 7], [4, 7])
    every = attacked(engine, dataclasses.replace(small.NOTHING, name="every"), list(range(10)), [7, 8])
    union = judge_union(subject, [some, every], "linf", 0.1)
    assert union.success_rate.value == 0.3
    assert union.only_by == {"nothing": 1, "every": 1}
    assert union.rejection[-1].robust_accuracy.value == 0.7
    result = judge_attack(subject, some, small.BUDGETS)
    assert (result.images, result.successful, result.success_within_budget.n) == (3, 2, 3)


@pytest.mark.parametrize(("norm", "breaks_at"), [("l0", 64.0), ("patch", None), ("spatial", None)])
def test_a_kind_without_a_budget_succeeds_within_none(engine: Engine, norm: str, breaks_at: float | None) -> None:
    entry = dataclasses.replace(small.NOTHING, norm=norm, eps=None)
    one = attacked(engine, entry, list(range(10)), list(range(10)))
    result = judge_attack(small.subject(engine, 10), one, small.BUDGETS)
    assert (result.success_rate.value, result.breaks_at) == (1.0, breaks_at)
    assert (result.success_within_budget.value, result.success_within_budget.n) == (None, 0)


def test_kinds_without_a_budget_belong_to_no_worst_case(engine: Engine) -> None:
    patch = chosen(SUITE, ["patch"])
    for union in small.run(engine, patch, test=small.held_out(8)).unions:
        assert (union.attacks, union.success_rate.value, union.is_adaptive) == ((), 0.0, False)
