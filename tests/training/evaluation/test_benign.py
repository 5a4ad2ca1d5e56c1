"""Clean images that arrive changed, and false alarms class by class."""

import dataclasses

import numpy as np
import pytest

from service.detection.engine import Engine
from service.detection.types import Bytes8
from tests.training.evaluation import small
from training.evaluation.benign import judge_classes, judge_shifts
from training.evaluation.bootstrap import draw_weights
from training.evaluation.decisions import FUSED, decide
from training.evaluation.evaluate import Evaluation
from training.evaluation.remarks import remarks
from training.evaluation.report import page
from training.evaluation.results import Report, ShiftResult
from training.evaluation.shifts import Shift, shifts
from training.evaluation.suite import Budgets
from training.evaluation.summary import metrics, shift_sentence

BUDGETS = Budgets(linf=8 / 255, l2=0.5)
EVERY = {shift.name: shift for shift in shifts(BUDGETS)}


def grey(*shape: int) -> Bytes8:
    """Values far enough from black and white that no noise is clipped."""
    return np.random.default_rng(1).integers(100, 156, shape).astype(np.uint8)


def changed(name: str, images: Bytes8, seed: int = 0) -> Bytes8:
    return EVERY[name].change(images, np.random.default_rng(seed))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (2, 32, 24, 3)], ids=["grey", "colour"])
def test_a_shift_changes_values_and_nothing_else(name: str, shape: tuple[int, ...]) -> None:
    images = grey(*shape)
    before = images.copy()
    after = changed(name, images)
    assert (after.shape, after.dtype) == (shape, np.uint8)
    assert np.array_equal(after, before) == (name == "none")
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(after, changed(name, images))  # of one seed


def test_noise_has_the_size_of_the_budgets() -> None:
    images = grey(5, 32, 32, 3)
    change = {name: changed(name, images).astype(int) - images for name in EVERY if name.startswith("noise")}
    assert set(np.abs(change["noise_signs"]).ravel()) == {8}
    assert np.abs(change["noise_uniform"]).max() == 8
    assert np.abs(change["noise_uniform"]).mean() == pytest.approx(4, abs=0.2)
    assert change["noise_1"].std() == pytest.approx((1 + 1 / 12) ** 0.5, rel=0.03)  # rounding adds 1/12
    lengths = np.sqrt((change["noise_l2"] ** 2).sum(axis=(1, 2, 3))) / 255
    assert lengths == pytest.approx(np.full(5, (0.5**2 + 3072 / 12 / 255**2) ** 0.5), rel=0.03)


def test_light_and_contrast_by_hand() -> None:
    images = np.array([0, 100, 200, 255], np.uint8).reshape(1, 2, 2, 1)
    assert changed("brightness_130", images).ravel().tolist() == [0, 130, 255, 255]
    assert changed("brightness_95", images).ravel().tolist() == [0, 95, 190, 242]
    assert changed("contrast_70", images).ravel().tolist() == [38, 108, 178, 217]


def test_turning_fills_corners_with_the_border() -> None:
    images = np.full((1, 16, 16, 3), 200, np.uint8)
    images[0, 6:10, 6:10] = 50
    assert changed("rotation_10", images)[0, 0].tolist() == [[200, 200, 200]] * 16


@pytest.fixture(scope="module")
def results(engine: Engine) -> tuple[ShiftResult, ...]:
    test = small.held_out()
    white = Shift(name="white", title="White", is_mild=True, change=lambda images, _: np.full_like(images, 255))
    return judge_shifts(
        engine,
        test.images,
        test.labels,
        draw_weights(len(test.labels), 0, resamples=50),
        (EVERY["none"], EVERY["noise_signs"], white),
        seed=0,
        progress=lambda line: None,
    )


def test_untouched_images_have_the_plain_rates(engine: Engine, results: tuple[ShiftResult, ...]) -> None:
    test, untouched = small.held_out(), results[0]
    clean = decide(engine, test.images)
    assert untouched.accuracy.value == (clean.labels == test.labels).mean()
    assert [at.alpha for at in untouched.alarms] == [0.005, 0.01, 0.05]
    for at in untouched.alarms:
        assert at.rate.value == clean.rejected(at.alpha).mean()


def test_an_image_like_none_seen_is_an_alarm_and_names_its_detector(
    engine: Engine, results: tuple[ShiftResult, ...]
) -> None:
    white = results[2]
    p_values = decide(engine, np.full((1, 8, 8, 1), 255, np.uint8)).p_values
    assert white.alarms[-1].rate.value == float(p_values[FUSED][0] <= 0.05)
    assert white.loudest == "brightness"


def test_the_alarms_of_the_classes_are_all_alarms(engine: Engine) -> None:
    test = small.held_out()
    clean = decide(engine, test.images)
    names = engine.bundle.manifest.class_names
    rows = judge_classes(clean, test.labels, names, alpha=0.05)
    assert [row.name for row in rows] == list(names)
    assert sum(row.images for row in rows) == len(test.labels)
    assert sum(row.alarms for row in rows) == clean.rejected(0.05).sum()
    assert sum(row.right for row in rows) == (clean.labels == test.labels).sum()
    assert all(row.alarms_when_right <= min(row.right, row.alarms) for row in rows)
    assert judge_classes(clean, test.labels, names, alpha=0.001) == ()


@pytest.fixture(scope="module")
def evaluation(engine: Engine) -> Evaluation:
    return small.run(engine, (small.NOTHING,))


@pytest.fixture(scope="module")
def report(engine: Engine, evaluation: Evaluation) -> Report:
    return small.report(engine, evaluation)


def loud(report: Report, rate: float) -> Report:
    """The same with this rate of false alarms under JPEG 95, at every alpha."""
    rows = [
        dataclasses.replace(
            row,
            alarms=tuple(
                dataclasses.replace(at, rate=dataclasses.replace(at.rate, value=rate if row.name == "jpeg_95" else 0.0))
                for at in row.alarms
            ),
        )
        for row in report.shifts
    ]
    return dataclasses.replace(report, shifts=tuple(rows))


def test_the_page_shows_every_shift_and_marks_loud_ones(report: Report, evaluation: Evaluation) -> None:
    assert all(shift.title.replace(" %", "\N{NO-BREAK SPACE}%") in page(report, evaluation) for shift in report.shifts)
    words = page(loud(report, 0.0), evaluation).count('class="loud"')
    assert page(loud(report, 0.3), evaluation).count('class="loud"') == words + len(report.shifts[0].alarms)


def test_figures_and_card_tell_the_shifts(report: Report) -> None:
    alpha = report.bundle.default_alpha
    found = metrics(loud(report, 0.3))
    assert found[f"jpeg_95_shift_false_positive_rate_at_{alpha:g}"] == 0.3
    assert "JPEG, quality 95), **more than twice what is promised**" in shift_sentence(loud(report, 0.3))
    assert "at most twice what is promised" in shift_sentence(loud(report, 0.0))
    assert shift_sentence(dataclasses.replace(report, shifts=())) == ""


def test_a_mild_shift_that_breaks_the_promise_is_a_warning(report: Report, evaluation: Evaluation) -> None:
    alpha = report.bundle.default_alpha
    for rate, expected in ((2 * alpha + 0.01, 1), (2 * alpha, 0)):
        shown = dataclasses.replace(evaluation, shifts=loud(report, rate).shifts)
        lines = [line for line in remarks(shown, alpha=alpha, publishable=True) if "a mild change" in line]
        assert len(lines) == expected
