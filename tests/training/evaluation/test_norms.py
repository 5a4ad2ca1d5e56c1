"""The worst case over norms: its attacks, its figures by hand, and through the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from service.errors import SetupError
from tests.training.evaluation.small import Twin, held_out
from tests.training.evaluation.test_robustness import TINY, seen
from training.__main__ import main
from training.attacks import FirstFooling
from training.attacks.ball import BALL_NORMS, Ball
from training.attacks.ball_pgd import BallPgd
from training.attacks.rounding import from_8_bit
from training.evaluation.attacking import attack_images
from training.evaluation.norms import norm_battery, over_norms, parse_balls
from training.evaluation.strength import FULL, QUICK

BALLS = parse_balls("l0=5, linf=0.1, l2=0.8,l1=3")


def test_the_option_names_each_norm_with_its_budget() -> None:
    assert BALLS[:2] == (Ball(norm="l0", eps=5), Ball(norm="linf", eps=0.1))
    assert [entry.name for entry in norm_battery(BALLS, QUICK)] == [f"norms_{norm}" for norm in BALL_NORMS]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linf", "--norms: expected NORM=EPS,NORM=EPS such as linf=0.3,l2=2,l1=10, got 'linf'"),
        ("", "--norms: expected NORM=EPS,NORM=EPS such as .*, got ''"),
        ("l2=many", "got 'l2=many' .*could not convert"),
        ("l3=1", r"got 'l3=1' \(norm: expected one of linf, l2, l1, l0, got 'l3'\)"),
        ("l0=1.5", r"got 'l0=1\.5' \(eps: expected a whole number of values"),
        ("l2=1,l2=2", "--norms: expected each norm once, got l2=1,l2=2"),
    ],
)
def test_other_words_are_refused(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        parse_balls(text)


def test_a_budget_below_a_level_is_refused() -> None:
    with pytest.raises(SetupError, match=r"--norms: expected at least 1/255 for linf, .* got 0\.003"):
        norm_battery(parse_balls("linf=0.003"), QUICK)


def test_attacked_images_of_8_bits_keep_to_each_budget_and_some_fool() -> None:
    test, model = held_out(30), Twin().eval()
    for entry in norm_battery(parse_balls("linf=0.3,l2=2,l1=12,l0=24"), QUICK):
        attacked = attack_images(model, test.images, test.labels, entry, seed=0, progress=lambda line: None).images
        ball = Ball(norm=entry.norm, eps=entry.eps or 0)  # type: ignore[arg-type]
        sizes = ball.size(from_8_bit(attacked) - from_8_bit(test.images))
        assert sizes.max() <= ball.eps * (1 + 1e-5)
        with torch.no_grad():
            said = model(from_8_bit(attacked)).argmax(dim=1).numpy()
        assert (said != test.labels).any()


def test_l1_is_tried_with_several_spreads_on_both_losses_at_each_start() -> None:
    (entry,) = norm_battery(parse_balls("l1=3"), FULL)
    assert isinstance(entry.attack, FirstFooling)
    tried = [(one.loss, one.spread) for one in entry.attack.attacks if isinstance(one, BallPgd)]
    assert len(tried) == 6 * FULL.restarts
    assert len(set(tried)) == 6


def test_the_worst_case_is_that_of_each_image() -> None:
    untouched = seen("", [10, 10, 10, 10], [0, 0, 0, 1])  # the last one is wrong unattacked
    first = seen("norms_linf", [90, 10, 10, 10], [1, 0, 0, 0])
    second = seen("norms_l1", [10, 90, 10, 10], [0, 1, 0, 0])
    other = seen("pgd_20", [10, 10, 90, 10], [0, 0, 1, 0])
    assert over_norms(untouched, [first, second, other]) == {"worst_over_norms_accuracy": 0.25}
    assert over_norms(untouched, [other]) == {}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run") / "norms"
    several = ("minmax.combine=learned", 'minmax.norms=["linf","l1"]', "minmax.eps=[0.1,3]")
    assert main(["fit", "digits", "--out", str(made), *TINY, *several]) == 0
    return made


def metrics_of(run: Path, out: Path, *words: str) -> dict[str, float]:
    assert main(["robustness", str(run), "--out", str(out), "--images", "20", "--quick", *words]) == 0
    found: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    return found


def test_a_run_against_several_norms_is_measured_in_them(run: Path, tmp_path: Path) -> None:
    metrics = metrics_of(run, tmp_path / "own.json", "--attacks", "fgsm,norms_linf,norms_l1")
    own = [metrics["norms_linf_accuracy"], metrics["norms_l1_accuracy"]]
    assert metrics["worst_over_norms_accuracy"] <= min(own)
    assert "norms_l2_accuracy" not in metrics


def test_any_run_is_measured_in_the_norms_of_the_option(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "other.json"
    metrics = metrics_of(run, out, "--norms", "l0=4,l2=0.5", "--attacks", "norms_l2,norms_l0")
    assert {"norms_l2_accuracy", "norms_l0_accuracy", "worst_over_norms_accuracy"} <= metrics.keys()
    command = json.loads(out.read_text(encoding="utf-8"))["command"]
    assert "--norms l0=4.0,l2=0.5 --attacks norms_l2,norms_l0" in command
    with np.load(next((run / "attacked").glob("norms_l0-*.npz"))) as kept:
        assert kept["batch0"].shape == (20, 8, 8, 1)
