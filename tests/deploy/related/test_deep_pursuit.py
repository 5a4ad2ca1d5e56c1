"""deploy/related/deep-pursuit.sh, with a program in the place of advsentry-train that only notes how it was called."""

import shutil
import subprocess
from pathlib import Path

from training.config import Recipe, load_recipe

ROOT = Path(__file__).parent.parent.parent.parent
NOTES = """#!/usr/bin/env bash
echo "$@" >> "{notes}"
exit {status}
"""


def run(tmp_path: Path, *arguments: str, status: int = 0) -> tuple[int, list[str]]:
    """Status, and the calls of advsentry-train, in a copy of the folders that the script uses."""
    for folder in (".venv/bin", "docs/results", "deploy"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "deploy" / "related", tmp_path / "deploy" / "related", dirs_exist_ok=True)
    shutil.copy(ROOT / "deploy" / "robustness.sh", tmp_path / "deploy")
    program, notes = tmp_path / ".venv" / "bin" / "advsentry-train", tmp_path / "notes"
    program.write_text(NOTES.format(notes=notes, status=status), encoding="utf-8")
    program.chmod(0o755)
    notes.write_text("", encoding="utf-8")
    script = tmp_path / "deploy" / "related" / "deep-pursuit.sh"
    ended = subprocess.run([script, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, notes.read_text(encoding="utf-8").splitlines()


def trained(calls: list[str]) -> dict[str, Recipe]:
    """By run, the recipe as its call has it, which is refused where it is wrong."""
    found = {}
    for call in calls:
        words = call.split()
        if words[0] == "fit":
            found[words[3].removeprefix("runs/")] = load_recipe(words[1], words[4:])
    return found


def test_it_trains_every_network_of_the_comparison(tmp_path: Path) -> None:
    status, calls = run(tmp_path, "data", "0 1")
    assert status == 0
    recipes = trained(calls)
    assert len(recipes) == 2 * (8 + 2)
    for seed in (0, 1):
        for name, skips, all_sweeps in (("skips", True, (0, 1, 2, 5, 10)), ("plain", False, (0, 5))):
            for sweeps in all_sweeps:
                recipe = recipes[f"mnist-pursuit-{name}-t{sweeps}-s{seed}"]
                assert (recipe.model.sweeps, recipe.model.skips, recipe.model.inference) == (sweeps, skips, "deep")
                assert (recipe.train.seed, recipe.attack.name) == (seed, "none")
        assert recipes[f"mnist-pursuit-layered-t5-s{seed}"].model.inference == "layered"
        for inference in ("deep", "feed_forward"):
            recipe = recipes[f"mnist-pursuit-tla-sar-{inference}-s{seed}"]
            assert recipe.model.inference == inference
            assert recipe.tla.weight
            assert recipe.sar.weight


def test_all_networks_are_attacked_by_way_of_the_feed_forward_ones(tmp_path: Path) -> None:
    _, calls = run(tmp_path, "data", "0 1")
    curves = {words[words.index("--out") + 1]: words for words in map(str.split, calls) if words[0] == "curves"}
    assert set(curves) == {
        "runs/mnist-pursuit-s0.json",
        "runs/mnist-pursuit-s1.json",
        "docs/results/mnist-pursuit.json",
    }
    words = curves["docs/results/mnist-pursuit.json"]
    assert sum(word.startswith("runs/") for word in words) == 2 * 8 + 4
    twins = {words[place + 1] for place, word in enumerate(words) if word == "--transfer"}
    assert twins == {f"runs/mnist-pursuit-{name}-t0-s{seed}" for name in ("skips", "plain") for seed in (0, 1)}


def test_a_result_that_is_there_is_left_alone_and_a_failure_keeps_its_status(tmp_path: Path) -> None:
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results" / "mnist-pursuit.json").write_text("{}", encoding="utf-8")
    _, calls = run(tmp_path, "data", "0")
    assert not [call for call in calls if "docs/results/mnist-pursuit.json" in call]
    status, calls = run(tmp_path, "data", "0", status=1)
    assert status != 0
    assert len(calls) == 1
