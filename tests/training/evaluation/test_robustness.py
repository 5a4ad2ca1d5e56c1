"""The robustness command from end to end on a tiny digits run, and the figures by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy.results import FIELDS
from service.detection.types import FlagReason
from service.errors import SetupError
from training.__main__ import main
from training.attacks import Fgsm
from training.checkpoint import load_run, read_checkpoint, write_checkpoint
from training.data import load_data
from training.detectors.detector import CleanViews, Detector
from training.evaluation import attacking
from training.evaluation.attack_cache import ATTACKED
from training.evaluation.attacking import attack_images
from training.evaluation.battery import PGD_AT, battery
from training.evaluation.eight_bit import EightBit
from training.evaluation.geometry import class_distances, logit_spectral_gap, margin_satisfied
from training.evaluation.judging import inside
from training.evaluation.robust_figures import Tried, Untouched, detection, robust_accuracies
from training.evaluation.strength import QUICK, Strength
from training.evaluation.suite import Budgets, SuiteEntry, budgets_for
from training.evaluation.views import Views, views_of

TINY = (
    *("train.epochs=2", "train.batch_size=50", "train.threads=1", "train.seed=7", "data.train=300", "data.fit=60"),
    *("data.calibration=100", "data.fusion=100", "model.width=4", "attack.steps=1", "attack.eps=0.1", "tla.weight=0"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run") / "digits"
    assert main(["fit", "digits", "--out", str(made), *TINY]) == 0
    return made


def test_it_writes_a_result_file_with_every_figure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "tiny.json"
    assert main(["robustness", str(run), "--out", str(out), "--images", "40", "--quick"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("quick run: do not quote these figures\n")
    assert "pgd_100 done: " in captured.err
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert tuple(kept) == FIELDS
    assert (kept["name"], kept["seed"]) == ("tiny", 7)
    assert kept["command"] == f"advsentry-train robustness {run} --out {out} --images 40 --seed 0 --quick"
    assert kept["data"]["attacked_images"] == 40
    assert kept["data"]["test_images"] == len(load_run(run).parts(None).test)
    assert kept["data"]["quick"] is True
    metrics = kept["metrics"]
    accuracies = {f"{entry.name}_accuracy" for entry in battery(Budgets(linf=0.1, l2=0.2), 10, QUICK)}
    assert metrics.keys() >= accuracies | {"training_seconds", "epoch", "balanced_accuracy", "worst_accuracy"}
    assert metrics.keys() >= {
        f"auc_{kind}_{at}{density}"
        for kind in ("misclassified", "attacked")
        for at in PGD_AT
        for density in ("", "_gaussian")
    }
    assert metrics.keys() >= {f"{a}_distance_{b}" for a in ("within", "between") for b in ("clean", "attacked")}
    assert metrics.keys() >= {"margin_satisfied_attacked", "logit_spectral_gap"}
    linf = accuracies - {f"{name}_accuracy" for name in ("pgd_l2", "pgd_100_150", "pgd_100_200")}
    assert metrics["worst_accuracy"] <= min(metrics[name] for name in linf)
    assert metrics["pgd_100_accuracy"] < metrics["clean_accuracy"]
    assert metrics["epoch"] == 2


def test_the_same_seed_gives_the_same_figures(run: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        words = ["--images", "30", "--quick", "--attacks", "aa_like,pgd_100", "--seed", "4"]
        shutil.rmtree(run / ATTACKED, ignore_errors=True)
        assert main(["robustness", str(run), "--out", str(tmp_path / f"{name}.json"), *words]) == 0
        found.append(json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["metrics"])
    assert found[0] == found[1]
    assert "pgd_20_accuracy" not in found[0]


def test_a_second_call_takes_the_images_of_the_first(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["robustness", str(run), "--images", "20", "--quick", "--attacks", "pgd_20,mim", "--seed", "2"]
    assert main([*words, "--out", str(tmp_path / "one.json")]) == 0
    monkeypatch.setattr(attacking, "_attack_batch", lambda *_: pytest.fail("made an image again"))
    assert main([*words, "--out", str(tmp_path / "two.json")]) == 0
    found = [json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("one", "two")]
    assert found[0]["metrics"] == found[1]["metrics"]


def test_figures_of_full_strength_are_not_marked_and_may_be_json(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one.json"
    words = ["--images", "10", "--attacks", "pgd_100", "--restarts", "1", "--json"]
    assert main(["robustness", str(run), "--out", str(out), *words]) == 0
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert "quick" not in kept["data"]
    assert kept["command"].endswith("--images 10 --restarts 1 --attacks pgd_100 --seed 0")
    printed = json.loads(capsys.readouterr().out)
    assert printed["result"] == str(out)
    assert printed["metrics"].items() <= kept["metrics"].items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "0"], "--images: expected at least 1, got 0"),
        (["--images", "5000"], "test images of the run, got 5000"),
        (["--attacks", "pdg"], "--attacks: expected some of fgsm, pgd_20, pgd_100, "),
        (["--restarts", "0"], "--restarts: expected at least 1, got 0"),
        (["--l2-eps", "0"], "--l2-eps: expected a number above 0, got 0"),
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["--out", "figures"], "--out: expected a file NAME.json, got figures"),
    ],
    ids=["images", "too-many", "attack", "restarts", "l2-eps", "seed", "out"],
)
def test_a_mistake_is_one_clear_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["robustness", str(run), "--out", str(tmp_path / "x.json"), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_that_is_not_finished_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = read_checkpoint(run)
    write_checkpoint(tmp_path, {**content, "is_finished": False})
    assert main(["robustness", str(tmp_path), "--out", str(tmp_path / "x.json")]) == 1
    assert "expected a finished run, got 2 of 2 epochs" in capsys.readouterr().err


@pytest.mark.parametrize("eps", [0.1, 8 / 255])
def test_attacked_images_keep_to_the_budget_in_8_bits(run: Path, eps: float) -> None:
    loaded, test = load_run(run), load_data("digits", None).train
    budgets = budgets_for("linf", eps, 64)
    for entry in battery(budgets, 10, QUICK):
        model = EightBit(loaded.model) if entry.norm == "linf" else loaded.model
        images, labels = test.images[:20], test.labels[:20]
        attacked = attack_images(model, images, labels, entry, seed=0, progress=lambda line: None, batch=7).images
        assert entry.eps is not None
        assert inside(attacked, images, entry.norm, entry.eps).all()
        assert entry.eps <= budgets.of(entry.norm) * {"pgd_100_150": 1.5, "pgd_100_200": 2}.get(entry.name, 1)


def test_images_that_cannot_be_written_are_seen_without_a_warning(run: Path) -> None:
    images = load_data("digits", None).train.images[:5].copy()
    images.flags.writeable = False
    views = views_of(load_run(run).model, images)
    assert views.logits.shape == (5, 10)
    assert views.embedding.norm(dim=1).tolist() == pytest.approx([1.0] * 5)


def test_aa_like_needs_four_classes_and_budgets_a_level() -> None:
    budgets = Budgets(linf=0.1, l2=0.2)
    assert "aa_like" not in {entry.name for entry in battery(budgets, 3, Strength())}
    assert "aa_like" in {entry.name for entry in battery(budgets, 4, Strength())}
    with pytest.raises(SetupError, match=r"attack\.eps: expected at least 1/255, .* got 0\.003"):
        battery(Budgets(linf=0.003, l2=0.2), 10, Strength())


class First(nn.Module):
    """Logits are the first two pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2]


def test_the_8_bit_model_rounds_and_lets_gradients_through() -> None:
    images = torch.tensor([100.4, 99.6]).view(1, 1, 1, 2).div(255).requires_grad_(True)
    logits = EightBit(First())(images)
    assert torch.equal(logits[0, 0], logits[0, 1])
    assert logits[0, 0].item() == pytest.approx(100 / 255)
    (gradients,) = torch.autograd.grad(logits[:, 1].sum(), images)
    assert gradients.flatten().tolist() == [0, 1]


def test_class_distances_by_hand() -> None:
    clean = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1])
    assert class_distances(clean, clean, labels) == pytest.approx((0.4, (1.0 + 0.2) / 2))
    attacked = torch.tensor([[0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])  # against the clean ones of the other positions
    within, between = class_distances(attacked, clean, labels)
    assert within == pytest.approx((0.2 + 0.4) / 2)
    assert between == pytest.approx((0.0 + 0.2 + 0.0 + 0.4) / 4)
    assert class_distances(clean[1:], clean[1:], labels[1:])[0] is None


def test_the_margin_counts_from_the_own_class_mean() -> None:
    means, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    assert margin_satisfied(embeddings, labels, means, margin=0.03) == pytest.approx(2 / 3)
    assert margin_satisfied(embeddings, labels, means, margin=0.5) == pytest.approx(1 / 3)


def test_the_spectral_gap_is_the_papers_per_image_sum() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    assert logit_spectral_gap(logits, torch.zeros(2, 4)) == pytest.approx(20 / 2)
    assert logit_spectral_gap(logits, logits) == 0


class Brightness(Detector):
    """The first pixel is the score."""

    kind, meaning, reason = "brightness", "it is bright", FlagReason.FEATURE_DENSITY

    @classmethod
    def fit(cls, clean: CleanViews) -> "Brightness":
        return cls()

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        return images.flatten(1)[:, 0]


class Darkness(Brightness):
    """The same, turned."""

    kind = "darkness"

    def forward(self, images: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        return -super().forward(images, logits, embedding)


def seen(name: str, pixels: list[int], labels: list[int], *, eps: float = 0.1) -> Any:
    images = np.array(pixels, dtype=np.uint8).reshape(-1, 1, 1, 1)
    views = Views(logits=nn.functional.one_hot(torch.tensor(labels), 2).float(), embedding=torch.ones(len(labels), 1))
    if not name:
        return Untouched(images=images, truth=np.zeros(len(labels), np.int64), views=views)
    entry = SuiteEntry(name=name, title="", description="", norm="linf", eps=eps, attack=Fgsm(eps=eps))
    return Tried(entry=entry, images=images, views=views)


def test_accuracies_and_the_worst_case_by_hand() -> None:
    untouched = seen("", [10, 10, 10, 10], [0, 0, 0, 1])  # the last one is wrong unattacked
    near = seen("near", [12, 12, 12, 12], [1, 0, 0, 0])
    far = seen("far", [12, 12, 90, 12], [0, 1, 1, 1])  # beyond the budget on the third
    figures = robust_accuracies(untouched, [near, far], 0.1)
    assert figures == {"near_accuracy": 0.5, "far_accuracy": 0.25, "worst_accuracy": 0.25}


def test_detection_takes_fooling_images_against_right_ones() -> None:
    untouched = seen("", [10, 20, 30, 200], [0, 0, 0, 1])
    fooled = seen("pgd_100", [15, 25, 5, 250], [1, 1, 0, 1])  # scores 15 and 25 against 10, 20 and 30
    none = seen("pgd_100_150", [10, 20, 30, 200], [0, 0, 0, 1])
    figures = detection([Brightness(), Darkness()], untouched, [fooled, none])
    assert figures["auc_misclassified_100"] == pytest.approx(3 / 6)
    assert figures["auc_attacked_100"] == pytest.approx((1 + 2 + 0 + 4) / 16)
    assert figures["fooling_images_100"] == 2
    assert figures["auc_misclassified_150"] is None
    assert figures["auc_attacked_150"] == 0.5
    assert "auc_attacked_200" not in figures
    assert figures["auc_misclassified_100_darkness"] == pytest.approx(3 / 6)
    assert figures["auc_attacked_100_darkness"] == pytest.approx(1 - (1 + 2 + 0 + 4) / 16)
