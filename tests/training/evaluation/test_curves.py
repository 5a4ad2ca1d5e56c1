"""The curves command on tiny digits runs: figures, seeds, and signs of masking that can show."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deploy.results import FIELDS
from training.__main__ import main
from training.analysis.subjects import Subject, load_subjects
from training.evaluation.curves import SHARES, Curves, measure_curves
from training.evaluation.curves_command import averaged
from training.evaluation.strength import QUICK
from training.models import Classifier

TINY = (
    *("model.name=pursuit", "model.width=4", "model.depth=1", "model.embedding_dim=16", "attack.name=none"),
    *("train.epochs=3", "train.batch_size=50", "train.threads=1", "train.optimiser=adam", "train.learning_rate=0.005"),
    *("data.train=400", "tla.weight=0", "attack.eps=0.1"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for name, words in {
        "plain-s0": ["model.inference=feed_forward"],
        "deep-s0": ["model.sweeps=2"],
        "deep-s1": ["model.sweeps=2", "train.seed=1"],
    }.items():
        made[name] = folder / name
        assert main(["fit", "digits", "--out", str(made[name]), *TINY, *words]) == 0
    return made


def test_it_writes_a_result_with_every_figure_over_the_seeds(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curves.json"
    words = ["curves", *map(str, runs.values()), "--out", str(out), "--images", "30", "--quick"]
    assert main([*words, "--transfer", str(runs["plain-s0"])]) == 0
    assert capsys.readouterr().out.startswith("quick run: do not quote these figures\n")
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert set(kept) == {*FIELDS, "runs"}
    assert kept["command"].startswith("advsentry-train curves ")
    assert kept["data"] == {"set": "digits", "split": "test", "images": 30, "quick": True}
    assert kept["runs"]["deep-s1"]["train"]["seed"] == 1
    metrics = kept["metrics"]
    assert metrics["plain/seeds"] == 1
    assert metrics["deep/seeds"] == 2
    figures = {name.removeprefix("deep/") for name in metrics if name.startswith("deep/")}
    assert figures >= {f"{attack}_at_{share:g}_accuracy" for attack in ("fgsm", "pgd") for share in SHARES}
    assert figures >= {"clean_accuracy", "pgd_100_accuracy", "margin_pgd_accuracy", "square_accuracy", "worst_accuracy"}
    assert figures >= {"worst_accuracy_spread", "masking_signs", "transfer_accuracy"}
    assert "plain/transfer_accuracy" not in metrics  # it would be its own
    for name in ("deep", "plain"):
        assert metrics[f"{name}/worst_accuracy"] <= metrics[f"{name}/pgd_100_accuracy"]
        assert metrics[f"{name}/objective_deep"] <= metrics[f"{name}/objective_layered"]
        assert metrics[f"{name}/objective_deep"] <= metrics[f"{name}/objective_feed_forward"]
        assert metrics[f"{name}/objective_rises"] == 0
        assert metrics[f"{name}/active_last"] > 0


def test_seeds_are_averaged_with_their_spread_and_signs_are_counted() -> None:
    def _run(accuracy: float, signs: float) -> Curves:
        figures = {"worst_accuracy": accuracy, "pgd_at_1_accuracy": accuracy, "masking_signs": signs}
        return Curves(figures=figures, checks=())

    found = averaged({"a-s0": _run(0.2, 1.0), "b": _run(0.5, 0.0), "a-s1": _run(0.4, 2.0)})
    assert found == pytest.approx(
        {
            "a/seeds": 2,
            "a/worst_accuracy": 0.3,
            "a/worst_accuracy_spread": 0.2 / 2**0.5,
            "a/pgd_at_1_accuracy": 0.3,
            "a/masking_signs": 3,
            "b/seeds": 1,
            "b/worst_accuracy": 0.5,
            "b/pgd_at_1_accuracy": 0.5,
            "b/masking_signs": 0,
        }
    )


class Stepped(Classifier):
    """A network behind a staircase, which hides its gradients and little else."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network
        self.head = network.head

    def embed(self, images: Tensor) -> Tensor:
        return (self.network.embed(images) * 64).round() / 64

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.network.feature_maps(images)


def test_hidden_gradients_leave_signs(runs: dict[str, Path]) -> None:
    subjects, test = load_subjects([runs["plain-s0"]], None, 60, 0, torch.device("cpu"))
    (plain,) = subjects
    strength = dataclasses.replace(QUICK, queries=100)
    hidden = dataclasses.replace(plain, run=dataclasses.replace(plain.run, model=Stepped(plain.run.model).eval()))

    def _measured(subject: Subject) -> Curves:
        return measure_curves(
            subject, test, [plain.run], eps=0.15, strength=strength, seed=0, progress=lambda line: None
        )

    failed = {check.name for check in _measured(hidden).checks if not check.passed}
    assert "Gradients are there" in failed
    assert "Its gradients break no fewer images than transfer1" in failed
    assert _measured(hidden).figures["masking_signs"] == len(failed)
    assert not {check.name for check in _measured(plain).checks if not check.passed} & failed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "0"], "--images: expected at least 1, got 0"),
        (["--eps", "0"], "--eps: expected a number above 0, got 0"),
        (["--eps", "2/255"], "--eps: expected at least 4/255, so that 0.25 of it is a level of 8-bit images, got 0.00"),
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["--out", "figures"], "--out: expected a file NAME.json, got figures"),
        (["--transfer", "nowhere"], "nowhere: "),
    ],
    ids=["images", "eps", "too small", "seed", "out", "transfer"],
)
def test_a_mistake_is_one_clear_line(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["curves", str(runs["plain-s0"]), "--out", str(tmp_path / "x.json"), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_other_data_are_refused(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, "model.inference=feed_forward", "attack.norm=l2", "train.epochs=1"]
    assert main(["fit", "digits", "--out", str(tmp_path / "l2"), *words]) == 0
    capsys.readouterr()
    assert main(["curves", str(tmp_path / "l2"), "--out", str(tmp_path / "x.json")]) == 1
    assert "attack.norm: expected runs of linf, got l2" in capsys.readouterr().err
