import dataclasses

import numpy as np
import pytest

from service.detection.engine import Engine
from tests.training.evaluation import small
from training.evaluation.bootstrap import draw_weights
from training.evaluation.decisions import FUSED, decide
from training.evaluation.evaluate import Evaluation
from training.evaluation.held_out import choose_images
from training.evaluation.judging import (
    Attacked,
    Subject,
    balanced_accuracy,
    judge_attack,
    judge_false_positives,
    judge_union,
    norms,
)
from training.evaluation.suite import chosen, quick_suite


@pytest.fixture(scope="module")
def evaluation(engine: Engine) -> Evaluation:
    return small.run(engine)


def test_an_attack_that_changes_nothing_gives_an_auroc_of_exactly_one_half(engine: Engine) -> None:
    attack = small.run(engine, (small.NOTHING,)).attacks[0]
    assert [score.all.value for score in attack.aurocs] == [0.5, 0.5, 0.5]
    assert (attack.successful, attack.failed, attack.wrong_before) == (0, 60, 0)
    assert attack.success_rate.value == 0.0
    assert attack.accuracy.value == 1.0
    assert attack.aurocs[0].successful.value is None
    assert attack.median_l2 is None


def test_an_undefended_classifier_is_broken(engine: Engine) -> None:
    budgets = small.budgets_for("linf", 0.5, 64)
    suite = chosen(quick_suite(budgets), ["pgd", "ddn", "deepfool"])
    for attack in small.run(engine, suite).attacks:
        assert attack.success_rate.value >= 0.95, attack.name  # a level more may end in an exact tie


def test_images_keep_their_budget_after_rounding(evaluation: Evaluation) -> None:
    for attack, plot in zip(evaluation.attacks, evaluation.plots, strict=True):
        l2, linf = norms(plot.example.attacked[None], plot.example.clean[None])
        if attack.eps is not None:
            assert (linf if attack.norm == "linf" else l2)[0] <= attack.eps * (1 + 1e-6)


def test_the_three_counts_are_all_images(evaluation: Evaluation) -> None:
    for attack in evaluation.attacks:
        assert attack.successful + attack.failed + attack.wrong_before == attack.images
        assert attack.images == (50 if attack.name in {"cw_l2", "patch"} else 60)


def test_the_worst_case_is_at_least_as_bad_as_each_attack_within_its_budget(evaluation: Evaluation) -> None:
    for union in evaluation.unions:
        for attack in evaluation.attacks:
            if attack.norm == union.norm:
                assert union.success_rate.value >= attack.success_within_budget.value


def test_torch_and_the_bundle_agree(evaluation: Evaluation) -> None:
    assert evaluation.clean.disagreements <= 6  # quadrants of equal sums, where the order of adding decides
    assert evaluation.clean.compared == 60 * 9 + 50 * 2


def test_an_attack_does_not_depend_on_which_others_run(engine: Engine, evaluation: Evaluation) -> None:
    alone = small.run(engine, chosen(quick_suite(small.BUDGETS), ["pgd_l2"])).attacks[0]
    among = next(attack for attack in evaluation.attacks if attack.name == "pgd_l2")
    assert dataclasses.replace(alone, seconds=0) == dataclasses.replace(among, seconds=0)


def test_an_alpha_that_the_calibration_cannot_keep_is_refused_and_not_computed(engine: Engine) -> None:
    clean = decide(engine, small.held_out().images)
    refused = judge_false_positives(clean, 0.001)
    assert (refused.images_needed, refused.count, refused.rate) == (999, None, None)
    kept = judge_false_positives(clean, 0.05)
    assert (kept.images_needed, kept.count) == (None, int(clean.rejected(0.05).sum()))


def subject_and_attacks(engine: Engine) -> tuple[Subject, list[Attacked]]:
    """Ten images; the first attack breaks 0 to 3, the second 2 to 5, and both change Linf by 10 levels."""
    test = small.held_out(10)
    clean = decide(engine, test.images)
    subject = Subject(images=test.images, truth=test.labels, clean=clean, weights=draw_weights(10, 0, resamples=20))
    attacks = []
    for number, broken in enumerate((slice(0, 4), slice(2, 6))):
        labels = clean.labels.copy()
        labels[broken] = (labels[broken] + 1) % 4
        # p 1 is never rejected, p 1/300 always: the second attack's image 5 is seen, everything else is not
        p = np.ones(10)
        if number == 1:
            p[5] = 1 / 300
        decisions = dataclasses.replace(clean, labels=labels, p_values={**clean.p_values, FUSED: p})
        attacks.append(
            Attacked(
                entry=dataclasses.replace(small.NOTHING, name=f"a{number}"),
                images=np.where(test.images > 128, test.images - 10, test.images + 10).astype(np.uint8),
                decisions=decisions,
                disagreements=0,
                seconds=0.0,
            )
        )
    return subject, attacks


def test_the_worst_case_counts_each_image_once(engine: Engine) -> None:
    subject, attacks = subject_and_attacks(engine)
    union = judge_union(subject, attacks, "linf", 0.1)
    assert union.success_rate.value == 0.6
    assert union.only_by == {"a0": 2, "a1": 2}
    at_five = next(row for row in union.rejection if row.alpha == 0.05)
    assert at_five.robust_accuracy.value == pytest.approx(0.5)  # image 5 was wrong but rejected
    assert at_five.strict.value <= at_five.robust_accuracy.value


def test_an_image_outside_the_budget_breaks_nothing(engine: Engine) -> None:
    subject, attacks = subject_and_attacks(engine)
    union = judge_union(subject, attacks, "linf", 9 / 255)
    assert union.success_rate.value == 0.0
    assert union.attacks == ()


def test_detection_is_counted_for_successful_failed_and_all(engine: Engine) -> None:
    subject, attacks = subject_and_attacks(engine)
    result = judge_attack(subject, attacks[1], small.BUDGETS)
    row = next(row for row in result.detected if row.alpha == 0.05)
    assert (row.successful.value, row.successful.n) == (0.25, 4)
    assert (row.failed.value, row.failed.n) == (0.0, 6)
    assert (row.all.value, row.all.n) == (0.1, 10)
    lost = next(row for row in result.accepted_and_wrong if row.alpha == 0.05)
    assert lost.all.value == pytest.approx(0.3)


def test_chosen_images_keep_the_classes_in_proportion() -> None:
    labels = np.repeat(np.arange(4), [400, 300, 200, 100])
    found = choose_images(labels, 50, seed=1)
    assert np.bincount(labels[found]) == pytest.approx([20, 15, 10, 5], abs=1)
    assert (np.diff(found) > 0).all()
    assert np.array_equal(found, choose_images(labels, 50, seed=1))
    assert not np.array_equal(found, choose_images(labels, 50, seed=2))


def test_balanced_accuracy_is_scikit_learns() -> None:
    from sklearn.metrics import balanced_accuracy_score

    generator = np.random.default_rng(0)
    truth, found = generator.integers(0, 5, 80), generator.integers(0, 5, 80)
    assert balanced_accuracy(truth == found, truth) == pytest.approx(balanced_accuracy_score(truth, found))
