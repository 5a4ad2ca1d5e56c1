"""The results page says what was asked, what was measured, and whether the one reaches the other."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy import results
from deploy.front.tables import bench_table

RESULT = {
    "name": "run",
    "command": "advsentry-train evaluate B",
    "recipe": {
        "data": {"set": "digits", "train": 0},
        "attack": {"eps": 0.3, "guard": False},
        "tla": {"weight": 2.0, "kinds": ["own", "other"]},
    },
    "seed": 0,
    "commit": "abc",
    "machine": {"cores": 2},
    "seconds": 12.0,
    "data": {"set": "digits"},
    "metrics": {"clean_accuracy": 0.95, "fpr_0.01": 0.01, "auroc": 0.9},
}


def test_a_missed_target_is_printed_as_missed() -> None:
    text = results.page([RESULT], {"run": {"clean_accuracy": ">= 0.96", "fpr_0.01": "<= 0.02"}})
    assert "| clean_accuracy | >= 0.96 | 0.95 | **no** |" in text
    assert "| fpr_0.01 | <= 0.02 | 0.01 | yes |" in text
    assert "| auroc |  | 0.9 |  |" in text


def test_a_whole_number_is_printed_in_full() -> None:
    text = results.page([{**RESULT, "metrics": {"user_id": 65532.0, "rate": 65532.5}}], {})
    assert "| user_id |  | 65532 |  |" in text
    assert "| rate |  | 6.553e+04 |  |" in text


def test_a_recipe_is_told_by_what_it_sets_apart_from_the_defaults() -> None:
    assert 'Recipe `data.set="digits" attack.eps=0.3 tla.weight=2.0`; seed 0' in results.page([RESULT], {})
    assert "Recipe seconds 8.0, batch 128; seed 0" in results.page(
        [{**RESULT, "recipe": {"seconds": 8.0, "batch": 128}}], {}
    )


def test_runs_of_an_analysis_stand_side_by_side_and_are_held_against_each_other() -> None:
    metrics = {"robust/energy_8": 0.5, "robust/low_pass_loss": 0.1, "plain/energy_8": 0.25, "plain/low_pass_loss": 0.2}
    analysis = {**RESULT, "metrics": metrics}
    asked = {"robust/energy_8": ">= plain/energy_8", "robust/low_pass_loss": "<= 0.3 plain/low_pass_loss"}
    text = results.page([analysis], {"run": asked})
    assert "| | robust | plain |\n|---|---|---|\n| energy_8 | 0.5 | 0.25 |\n| low_pass_loss | 0.1 | 0.2 |" in text
    assert "| robust/energy_8 | >= plain/energy_8 | 0.5 | yes |" in text
    assert "| robust/low_pass_loss | <= 0.3 plain/low_pass_loss | 0.1 | **no** |" in text
    with pytest.raises(ValueError, match="another metric of the result, got 'other'"):
        results.page([analysis], {"run": {"robust/energy_8": ">= other"}})


def test_runs_that_are_called_by_their_path_stand_side_by_side_too() -> None:
    text = results.page([{**RESULT, "metrics": {"a/run/loss": 0.5, "b/run/loss": 0.25}}], {})
    assert "| | a/run | b/run |\n|---|---|---|\n| loss | 0.5 | 0.25 |" in text


@pytest.mark.parametrize("asked", [">=", "> 0.5", "0.5", ">= 1 2 3", ""])
def test_what_is_asked_without_a_sign_or_a_bound_is_an_error(asked: str) -> None:
    with pytest.raises(ValueError, match=r"asked\.toml: expected one of >=, <=, = and a number"):
        results.page([RESULT], {"run": {"auroc": asked}})


@pytest.mark.parametrize("asked", [{"other": {}}, {"run": {"recall": ">= 1"}}])
def test_a_target_without_a_measurement_is_an_error(asked: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"asked\.toml"):
        results.page([RESULT], asked)


def test_the_committed_page_is_what_the_script_makes() -> None:
    assert results.PAGE.read_text(encoding="utf-8") == results.current_page()


def test_the_commit_of_every_result_can_be_looked_at() -> None:
    """It is in this history, or it is said which commit has it."""
    if git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("not a checkout with its history")
    history = set(git("rev-list", "HEAD").split())
    became = results.squashed()
    assert all(any(one.startswith(into) for one in history) for into in became)
    moved = {name for names in became.values() for name in names}
    named = {commit for result in results.load() for commit in commits_of(result)}
    assert moved <= named, "squashed.toml names commits that no result names"
    missing = [name for name in named - moved if not any(one.startswith(name) for one in history)]
    assert not missing


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", results.ROOT, *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def commits_of(value: object) -> Iterator[str]:
    """Every one that a result names, without the mark of a changed checkout."""
    if isinstance(value, Mapping):
        if isinstance(value.get("commit"), str):
            yield value["commit"].rstrip("+")
        for one in value.values():
            yield from commits_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from commits_of(one)


def test_the_committed_readme_has_the_table_that_the_script_makes() -> None:
    text = results.README.read_text(encoding="utf-8")
    assert text == results.readme(text, results.load())


def test_the_committed_page_on_performance_has_the_table_that_the_script_makes() -> None:
    text = results.PERFORMANCE.read_text(encoding="utf-8")
    assert text == results.performance(text, results.load())


def test_a_readme_without_its_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected <!-- made by"):
        results.readme("# advsentry", [])


def test_only_the_benchmark_fills_its_table_in_the_readme() -> None:
    """That of bulk scoring names the bare graph's images a second as well."""
    other = {"name": "score", "metrics": {"digits_bare_images_per_s": 1.0}}
    assert bench_table([other]) == ""


def test_a_quick_runs_figures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**RESULT, "data": {"set": "digits", "quick": True}}))
    with pytest.raises(ValueError, match=r"run\.json: the figures of a quick run are not kept"):
        results.load()


def test_no_result_names_a_folder_of_the_machine_that_made_it() -> None:
    commands = {result["name"]: result["command"] for result in results.load()}
    assert not {name: command for name, command in commands.items() if re.search(r"(^|[ =])/", command)}
