"""What is said of an image, and how much of it is shown."""

import dataclasses
import math

import numpy as np
import pytest

from service.detection.bundle import Bundle
from service.detection.engine import MAX_ALPHA, Engine
from service.detection.types import Detection, Verdict
from service.detection.verdict import RevealMode, Wish, alpha_steps, check_wish, judge, reveal, round_up
from service.errors import InvalidRequest, PermissionRefused
from tests import tiny


@pytest.fixture(scope="module")
def bundle(engine: Engine) -> Bundle:
    return engine.bundle


@pytest.fixture(scope="module")
def mixed(engine: Engine) -> np.ndarray:
    """Images from clean to odd."""
    clean = tiny.images(60, seed=5).astype(float)
    share = np.linspace(0, 0.5, 60)[:, None, None, None]
    return (clean * (1 - share) + 255 * share).astype(np.uint8)


def shown_of(engine: Engine, images: np.ndarray, mode: RevealMode, wish: Wish) -> Detection:
    judged = judge(engine.measure(images), engine.bundle, engine.bundle.manifest.default_alpha)
    return reveal(judged, mode, wish).detection(0)


def test_a_shown_p_value_never_contradicts_the_verdict(engine: Engine, mixed: np.ndarray) -> None:
    bundle = engine.bundle
    measured = engine.measure(mixed)
    verdicts = set()
    for alpha in alpha_steps(bundle.calibration, bundle.manifest.default_alpha, MAX_ALPHA):
        for shown in reveal(judge(measured, bundle, alpha), RevealMode.P_VALUES, Wish()).detections():
            assert shown.p_value is not None
            assert (shown.p_value <= alpha) == (shown.verdict is Verdict.ADVERSARIAL)
            assert all((score.p_value or 0) <= alpha for score in shown.detectors if score.flagged)
            assert [flag.detector for flag in shown.flags] == [s.detector for s in shown.detectors if s.flagged]
            verdicts.add(shown.verdict)
    assert verdicts == set(Verdict)


def test_every_calibrated_p_value_agrees_with_its_verdict_at_every_step() -> None:
    for n in (99, 299, 999, 1347):
        for rank in range(1, n + 2):
            p = rank / (n + 1)
            for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1):
                assert (round_up(p) <= step) == (rank <= math.floor(step * (n + 1) + 1e-9)), (p, step)


def test_rounding_up_is_least_and_never_down() -> None:
    steps = sorted({1.0} | {float(f"{digit}e-{k}") for k in range(1, 8) for digit in (1, 2, 5)})
    for p in 10 ** np.random.default_rng(0).uniform(-6, 0, 2000):
        assert round_up(p) == min(step for step in steps if step >= p * (1 - 1e-9))


@pytest.mark.parametrize("default", [0.03, 0.015, 0.01])
def test_nor_where_the_default_alpha_is_no_round_number(engine: Engine, default: float) -> None:
    manifest = dataclasses.replace(engine.bundle.manifest, default_alpha=default)
    bundle = dataclasses.replace(engine.bundle, manifest=manifest)
    measured = engine.measure(tiny.images(1))
    for alpha in alpha_steps(bundle.calibration, default, MAX_ALPHA):
        for rank in range(1, 60):
            p = np.full_like(measured.p_values, rank / 300)
            changed = dataclasses.replace(measured, fused_p_value=np.array([rank / 300]), p_values=p)
            (shown,) = reveal(judge(changed, bundle, alpha), RevealMode.P_VALUES, Wish()).detections()
            assert (shown.verdict is Verdict.ADVERSARIAL) == ((shown.p_value or 0) <= alpha), (rank, alpha)
            assert all(score.flagged == ((score.p_value or 0) <= alpha) for score in shown.detectors)


def test_decision_shows_the_top_label_and_the_verdict_only(engine: Engine) -> None:
    detection = engine.detect(tiny.odd_image()[None])[0]
    shown = shown_of(engine, tiny.odd_image()[None], RevealMode.DECISION, Wish())
    top = dataclasses.replace(detection.top, probability=None)
    assert shown == Detection(
        top=top,
        classes=(top,),
        verdict=detection.verdict,
        p_value=None,
        alpha=detection.alpha,
        detectors=(),
        flags=(),
        embedding=(),
    )


def test_p_values_shows_nothing_exact(engine: Engine) -> None:
    detection = engine.detect(tiny.images(1, seed=9))[0]
    shown = shown_of(engine, tiny.images(1, seed=9), RevealMode.P_VALUES, Wish())
    assert [c.probability for c in shown.classes] == [round(c.probability or 0, 3) for c in detection.classes]
    assert shown.p_value == round_up(detection.p_value or 0)
    assert shown.embedding == ()
    for score, exact in zip(shown.detectors, detection.detectors, strict=True):
        assert (score.score, score.threshold) == (None, None)
        assert score.p_value == round_up(exact.p_value or 0)


def test_scores_shows_everything_that_is_asked_for(engine: Engine) -> None:
    detection = engine.detect(tiny.images(1, seed=9))[0]
    everything = Wish(embedding=True, raw_scores=True)
    assert shown_of(engine, tiny.images(1, seed=9), RevealMode.SCORES, everything) == detection
    plain = shown_of(engine, tiny.images(1, seed=9), RevealMode.SCORES, Wish())
    assert plain.embedding == ()
    assert plain.detectors[0].score is None
    assert plain.p_value == detection.p_value


def test_chosen_rows_and_classes_never_change_the_verdict(engine: Engine) -> None:
    detection = engine.detect(tiny.odd_image()[None])[0]
    shown = shown_of(engine, tiny.odd_image()[None], RevealMode.P_VALUES, Wish(detectors=("contrast",), top_k=2))
    assert [score.detector for score in shown.detectors] == ["contrast"]
    assert [flag.detector for flag in shown.flags] == ["contrast"]
    assert len(shown.classes) == 2
    assert (shown.verdict, shown.p_value) == (detection.verdict, round_up(detection.p_value or 0))


@pytest.mark.parametrize(
    ("wish", "mode", "error", "says"),
    [
        (Wish(detectors=("nope",)), RevealMode.SCORES, InvalidRequest, "unknown detector 'nope'.*brightness, contrast"),
        (Wish(top_k=-1), RevealMode.SCORES, InvalidRequest, "top_k"),
        (Wish(embedding=True), RevealMode.P_VALUES, PermissionRefused, "embedding"),
        (Wish(raw_scores=True), RevealMode.DECISION, PermissionRefused, "raw scores"),
    ],
    ids=["detector", "top_k", "embedding", "scores"],
)
def test_what_is_hidden_or_unknown_is_refused_not_dropped(
    bundle: Bundle, wish: Wish, mode: RevealMode, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        check_wish(wish, bundle, mode)


def test_the_steps_are_those_that_the_calibration_supports(bundle: Bundle) -> None:
    assert alpha_steps(bundle.calibration, 0.01, MAX_ALPHA) == (0.005, 0.01, 0.02, 0.05, 0.1)
    assert alpha_steps(bundle.calibration, 0.03, MAX_ALPHA) == (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
