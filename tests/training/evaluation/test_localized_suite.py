"""The robustness command on background and foreground apart, and where a network looks, by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.__main__ import main
from training.attacks.rounding import from_8_bit
from training.checkpoint import load_run
from training.evaluation.attack_cache import ATTACKED
from training.evaluation.attacking import attack_images
from training.evaluation.eight_bit import EightBit
from training.evaluation.entries import Budgets
from training.evaluation.localized_suite import NAMES, localized_battery, masks_for
from training.evaluation.looking import maps_of, shares_on_background
from training.evaluation.strength import QUICK
from training.masks import PixelMasks
from training.models import Classifier
from training.network_digest import network_digest

TINY = (
    *("train.epochs=2", "train.batch_size=50", "train.threads=1", "data.train=300", "data.fit=60"),
    *("data.calibration=100", "data.fusion=100", "model.width=4", "attack.steps=1", "attack.eps=0.1", "tla.weight=0"),
)
WORDS = ("--images", "40", "--quick")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {"plain": (), "localized": ("localized.region=background",)}
    for name, overrides in made.items():
        assert main(["fit", "digits", "--out", str(folder / name), *TINY, *overrides]) == 0
    return {name: folder / name for name in made}


def measured(run: Path, out: Path, *words: str) -> dict[str, dict[str, float]]:
    assert main(["robustness", str(run), "--out", str(out), *WORDS, *words]) == 0
    kept: dict[str, dict[str, float]] = json.loads(out.read_text(encoding="utf-8"))
    return kept


def test_a_localized_run_is_attacked_by_region_without_being_asked(runs: dict[str, Path], tmp_path: Path) -> None:
    kept = measured(runs["localized"], tmp_path / "one.json")
    assert kept["metrics"].keys() >= {f"{name}_accuracy" for name in NAMES}
    assert kept["data"]["masks"] == "PixelMasks(level=0.1, dilate=0)"
    assert 0.2 < kept["metrics"]["background_share"] < 0.8
    assert 0 < kept["metrics"]["cam_on_background"] < 1
    assert kept["metrics"]["worst_accuracy"] <= min(kept["metrics"][f"{name}_accuracy"] for name in NAMES)


def test_another_run_is_so_with_a_mask_only(runs: dict[str, Path], tmp_path: Path) -> None:
    plain = measured(runs["plain"], tmp_path / "plain.json", "--attacks", "pgd_20")
    assert "masks" not in plain["data"]
    assert not plain["metrics"].keys() & {"cam_on_background", *(f"{name}_accuracy" for name in NAMES)}
    kept = measured(runs["plain"], tmp_path / "box.json", "--attacks", "pgd_20,background_pgd", "--mask", "box")
    assert kept["data"]["masks"] == "BoxMasks(share=0.75)"
    assert " --mask box " in str(kept["command"])
    assert kept["metrics"]["pgd_20_accuracy"] == plain["metrics"]["pgd_20_accuracy"]
    assert kept["metrics"]["background_pgd_accuracy"] >= kept["metrics"]["pgd_20_accuracy"]


def test_maps_of_another_network_are_named(runs: dict[str, Path], tmp_path: Path) -> None:
    words = ("--attacks", "background_fgsm", "--mask", "cam")
    own = measured(runs["plain"], tmp_path / "own.json", *words)
    other = measured(runs["plain"], tmp_path / "other.json", *words, "--mask-run", str(runs["localized"]))
    for kept, run in ((own, "plain"), (other, "localized")):
        assert network_digest(load_run(runs[run]).model) in str(kept["data"]["masks"])
    made = list((runs["plain"] / ATTACKED).glob("background_fgsm-*"))
    assert len(made) == 2  # images that one mask made are not taken for those of another


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attacks", "background_pgd"], "--attacks: expected --mask with background_pgd"),
        (["--mask", "colour"], "--mask: expected one of pixels, box, saliency, cam, segment or an .npz file"),
        (["--mask", "none.npz"], "none.npz: expected an .npz file of masks"),
        (["--mask-run", "x"], "--mask-run: expected --mask cam or saliency beside it"),
        (["--mask", "box", "--mask-run", "x"], "--mask-run: expected masks of kind saliency or cam, got box"),
        (["--mask", "cam", "--mask-run", "x"], "localized.run: x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_line(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["robustness", str(runs["plain"]), "--out", str(tmp_path / "x.json"), *WORDS, *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_images_of_the_battery_keep_to_their_region_in_8_bits(runs: dict[str, Path]) -> None:
    run = load_run(runs["plain"])
    masks = masks_for(run, "pixels", None, None)
    assert isinstance(masks, PixelMasks)
    test = run.parts(None).test
    images, labels = test.images[:30], test.labels[:30]
    background = masks(from_8_bit(images)).permute(0, 2, 3, 1).numpy()
    for entry in localized_battery(Budgets(linf=0.1, l2=1.0), QUICK, masks):
        found = attack_images(EightBit(run.model), images, labels, entry, seed=0, progress=print, batch=7).images
        changed = found != images
        outside = ~background if entry.name.startswith("background") else background
        assert not (changed & outside).any(), entry.name
        assert changed.any(), entry.name
        assert np.abs(found.astype(int) - images).max() <= 25


class Left(Classifier):
    """Looks at the left half of the image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0], [0.0]]))
            self.head.bias.copy_(torch.tensor([1.0, 0.0]))

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        shown = torch.zeros_like(images)
        shown[..., :2] = images[..., :2]
        return (shown,)

    def embed(self, images: Tensor) -> Tensor:
        return self.feature_maps(images)[-1].mean(dim=(2, 3))


def test_the_share_of_what_is_looked_at_by_hand() -> None:
    # A row of four pixels; the left half has 0 (background), 200 and the right one 200, 0 (background).
    images = np.array([0, 200, 200, 0], np.uint8).reshape(1, 1, 4, 1)
    shares = shares_on_background(Left(), images, PixelMasks())
    assert shares.background == 0.5
    assert shares.cam == 0.0
    assert maps_of(Left(), "cam", images)[0, 0].tolist() == pytest.approx([0, 200 / 255 / 4, 0, 0])
    # |gradient| is 1/4, 1/4, 0, 0, averaged over neighbours 1/4, 1/6, 1/12, 0; background are the first and the last.
    assert shares.saliency == pytest.approx((1 / 4) / (1 / 4 + 1 / 6 + 1 / 12))


def test_no_share_without_anything_looked_at() -> None:
    dark = np.zeros((3, 1, 4, 1), np.uint8)
    shares = shares_on_background(Left(), dark, PixelMasks())
    assert (shares.background, shares.cam) == (1.0, None)
