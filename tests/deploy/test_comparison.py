"""Methods over seeds: means, spreads, and differences that were asked for."""

from typing import Any

import pytest

from deploy.comparison import comparison


def result(name: str, seed: int, **metrics: float) -> dict[str, Any]:
    return {
        "name": f"{name}-s{seed}",
        "seed": seed,
        "command": f"advsentry-train robustness runs/{name}-s{seed} --out docs/results/{name}-s{seed}.json --seed 0",
        "recipe": {"attack": {"norm": "linf", "eps": 8 / 255}},
        "data": {"set": "signs", "attacked_images": 500},
        "metrics": metrics,
    }


RESULTS = [
    result("at", 1, clean_accuracy=0.82, worst_accuracy=0.40),
    result("at", 0, clean_accuracy=0.80, worst_accuracy=0.42),
    result("tla", 0, clean_accuracy=0.81, worst_accuracy=0.45),
    result("tla", 1, clean_accuracy=0.79, worst_accuracy=0.44),
    {**result("x", 0), "name": "bench"},
]


def test_a_row_has_mean_and_spread_over_the_seeds() -> None:
    text = comparison(RESULTS, ())
    assert "### signs, linf 8/255" in text
    assert "| at | 2 | 81.0 ± 1.4 | 41.0 ± 1.4 | 500 |" in text
    assert "bench" not in text


def test_seeds_of_different_recipes_are_not_averaged() -> None:
    other = result("at", 2, clean_accuracy=0.8, worst_accuracy=0.4)
    other["recipe"] = {**other["recipe"], "tla": {"weight": 2.0}, "train": {"seed": 2}}
    with pytest.raises(ValueError, match=r"at: expected seeds of one recipe, got one with tla\.weight = 2\.0"):
        comparison([*RESULTS, other], ())


def test_differences_are_taken_seed_by_seed() -> None:
    asked = [{"left": "tla", "right": "at", "metric": "worst_accuracy", "asked": ">= 0.02"}]
    text = comparison(RESULTS, asked)
    assert "| >= 0.02 | 0.0350 ± 0.0071 | 0.0300, 0.0400 | yes |" in text
    missed = comparison(RESULTS, [{**asked[0], "asked": ">= 0.05"}])
    assert "| **no** |" in missed


def test_a_single_method_may_be_asked_too() -> None:
    text = comparison(RESULTS, [{"left": "tla", "metric": "clean_accuracy", "asked": ">= 0.8"}])
    assert "| clean_accuracy of tla | >= 0.8 | 0.8000 ± 0.0141 | 0.8100, 0.7900 | yes |" in text


@pytest.mark.parametrize(
    "asked",
    [
        {"left": "sar", "metric": "clean_accuracy", "asked": ">= 0"},
        {"left": "at", "metric": "recall", "asked": ">= 0"},
        {"left": "at", "metric": "clean_accuracy", "asked": "< 1"},
    ],
    ids=["method", "metric", "sign"],
)
def test_what_cannot_be_answered_is_an_error(asked: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"asked\.toml"):
        comparison(RESULTS, [asked])


def test_runs_measured_over_norms_share_a_table_whatever_they_were_trained_against() -> None:
    norms = {"set": "signs", "attacked_images": 500, "norms": {"linf": 0.2, "l1": 8.0}}
    both = [{**result(name, 0, worst_over_norms_accuracy=0.5), "data": norms} for name in ("many", "one")]
    both[1]["recipe"] = {"attack": {"norm": "l2", "eps": 1.5}}
    text = comparison([*RESULTS, *both], ())
    assert "### signs, over linf 0.2, l1 8\n\n| method | seeds | worst over norms | images |\n" in text
    assert "| many | 1 | 50.0 | 500 |\n| one | 1 | 50.0 | 500 |" in text


def test_seeds_of_an_ensemble_are_one_method_though_their_runs_have_other_names() -> None:
    data = {"set": "signs", "attacked_images": 9, "experiment": "ensemble", "budget": "linf 0.2"}
    several = [
        {
            **result("four", seed, asr_gain=0.1 * (seed + 1)),
            "command": f"minmax ensemble runs/a-s{seed} runs/b-s{seed} --out docs/results/four-s{seed}.json",
            "data": data,
        }
        for seed in (0, 1)
    ]
    asked = [{"left": "four", "metric": "asr_gain", "asked": ">= 0.1"}]
    text = comparison([*RESULTS, *several], asked)
    assert "### signs, min-max ensemble, linf 0.2" in text
    assert "| asr_gain of four | >= 0.1 | 0.1500 ± 0.0707 | 0.1000, 0.2000 | yes |" in text


def test_quick_results_are_refused() -> None:
    quick = result("at", 2, clean_accuracy=0.5)
    quick["data"]["quick"] = True
    with pytest.raises(ValueError, match="at-s2: measured with --quick"):
        comparison([*RESULTS, quick], ())


def test_without_methods_there_is_no_section() -> None:
    assert comparison(RESULTS[-1:], ()) == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 0}, "at-s2: expected seed 2, got 0"),
        ({"command": "advsentry-train robustness runs/at-s2 --out docs/results/at-s2.json --images 9"}, "at: expected"),
        ({"data": {"set": "digits", "attacked_images": 500}}, "at: expected seeds of one data set"),
    ],
    ids=["seed", "command", "data"],
)
def test_results_that_do_not_belong_together_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        comparison([*RESULTS, {**result("at", 2, clean_accuracy=0.5), **changed}], ())


def test_methods_that_were_not_measured_alike_are_refused() -> None:
    other = {**result("sar", 0, clean_accuracy=0.5), "command": "advsentry-train robustness --restarts 1"}
    with pytest.raises(ValueError, match="signs, linf 8/255: expected methods that were measured alike"):
        comparison([*RESULTS, other], ())
