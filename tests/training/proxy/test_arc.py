"""Ranking and choosing: the area on a hand-made curve, the theorem on points, and sets whose order is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.errors import SetupError
from tests.training.test_methods import recipe as plain_recipe
from training.__main__ import main
from training.checkpoint import load_parts
from training.config import recipe_to_toml
from training.data import ImageSet
from training.data.generated import read_generated, write_generated
from training.proxy.arc import Curve, area, curve, halves, paired
from training.proxy.discriminator import GENERATED, REAL, Discriminating, both, scores, trained_discriminator
from training.proxy.loading import check_generated
from training.proxy.selecting import kept_of_each_class, realness
from training.proxy.wasserstein import conditional_distance, paired_distance

CPU = torch.device("cpu")
RECIPE = plain_recipe(train={"epochs": 1, "precision": "float32"}, attack={"eps": 0.2})
BRIEF = Discriminating(epochs=12, steps=2)
EPS = (0.0, 0.1, 0.2)


def images(count: int, level: float, seed: int = 0) -> np.ndarray:
    """Noise around a level."""
    pixels = np.random.default_rng(seed).normal(level, 10, (count, 8, 8, 1))
    return np.rint(pixels.clip(0, 255)).astype(np.uint8)


def test_the_area_is_that_of_trapezoids_above_one_half() -> None:
    # 0.1 (0.5 + 0.3) / 2 + 0.2 (0.3 + 0.1) / 2 + 0.1 (0.1 + 0) / 2, what lies below one half counting as nothing
    assert Curve(eps=(0.0, 0.1, 0.3, 0.4), accuracies=(1.0, 0.8, 0.6, 0.3)).arc == pytest.approx(0.04 + 0.04 + 0.005)
    assert area([0, 0.5], [0.5, 0.5]) == 0
    assert area([0, 0.5], [1, 1]) == 0.25
    assert area([0, 1], [0.2, 0.4]) == 0


@pytest.mark.parametrize("eps", [(), (0.0,), (0.1, 0.2), (0.0, 0.0), (0.0, 0.2, 0.1)])
def test_sizes_that_do_not_rise_from_0_are_refused_before_anything_is_trained(eps: tuple[float, ...]) -> None:
    with pytest.raises(SetupError, match="--eps: expected two sizes or more, rising from 0"):
        curve(images(40, 50), images(40, 200), eps, RECIPE, Discriminating(epochs=10**6), CPU)


def test_robustness_differs_by_no_more_than_the_distance_of_each_class_on_points() -> None:
    """A class's images at 2 and the generated ones at 1.5, the boundary at 0: |2 - 1.5| <= 0.5."""
    assert paired_distance(np.array([[2.0]]), np.array([[1.5]])) == 0.5
    assert abs(2 - 1.5) <= 0.5


def test_robustness_differs_by_no_more_than_the_distance_for_any_half_plane() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        real, generated = (random.normal(random.normal(size=2), 1, (12, 2)) for _ in range(2))
        normal = random.normal(size=2)
        normal, offset = normal / np.linalg.norm(normal), random.normal()

        def robustness(points: np.ndarray, normal: np.ndarray = normal, offset: float = offset) -> float:
            """Mean distance to the other side; 0 where a point is there already."""
            return float(np.maximum(0, points @ normal + offset).mean())

        assert abs(robustness(real) - robustness(generated)) <= paired_distance(real, generated) + 1e-12


def test_the_distance_is_of_each_class_by_itself() -> None:
    """As a whole both sets are alike; class by class they are not."""
    pixels = np.array([0, 51, 51, 0], np.uint8)[:, None, None, None]
    real = ImageSet(images=pixels, labels=np.array([0, 1, 0, 1]))
    same = ImageSet(images=pixels[[2, 3, 0, 1]], labels=np.array([0, 1, 0, 1]))
    swapped = ImageSet(images=np.array([0, 51], np.uint8)[:, None, None, None], labels=np.array([1, 0]))
    fixed = ImageSet(images=np.array([0, 51], np.uint8)[:, None, None, None], labels=np.array([0, 1]))
    assert conditional_distance(real, same) == 0
    assert conditional_distance(swapped, fixed) == pytest.approx(0.2)
    assert conditional_distance(real, ImageSet(images=pixels, labels=np.array([5, 6, 5, 6]))) is None


def test_halves_have_equally_many_of_both_and_no_image_twice() -> None:
    real, generated = images(60, 50), images(90, 200)
    first, second = halves(real, generated, seed=0)
    assert [np.bincount(half.labels).tolist() for half in (first, second)] == [[30, 30], [30, 30]]
    seen = [image.tobytes() for half in (first, second) for image in half.images]
    assert len(set(seen)) == len(seen)
    for half in (first, second):
        assert (half.images[half.labels == REAL].mean(axis=(1, 2, 3)) < 100).all()
        assert (half.images[half.labels == GENERATED].mean(axis=(1, 2, 3)) > 150).all()
    with pytest.raises(SetupError, match=r"expected 40 images or more of each kind, got 60 real and 39 generated"):
        paired(60, 39, 0)


def test_far_sets_have_a_larger_area_than_near_ones_and_alike_ones_none() -> None:
    real = images(160, 60)
    found = [curve(real, images(160, level, 1), EPS, RECIPE, BRIEF, CPU) for level in (60, 85, 200)]
    arcs = [one.arc for one in found]
    assert arcs[0] < 0.05 * EPS[-1] < arcs[1] < arcs[2]
    assert arcs[2] > 0.9 * 0.5 * EPS[-1]  # 140 levels stay apart under 51
    assert found[1].accuracies[0] > 0.95  # 25 levels are seen without an attack
    assert found[1].accuracies[2] < 0.7  # and not under 51


def test_attacked_images_look_less_real() -> None:
    model = trained_discriminator(both(images(60, 60), images(60, 120, 1)), 0.05, RECIPE, BRIEF, CPU)
    made = images(30, 90, 2)
    plain, attacked = (scores(model, made, eps, "linf", CPU, 0) for eps in (0.0, 0.05))
    assert bool((attacked <= plain + 1e-5).all())
    assert float(attacked.mean()) < float(plain.mean()) - 0.1


def test_the_nearer_half_is_chosen() -> None:
    """Half of the set is of the real images' level."""
    real, made = images(120, 60), np.concatenate([images(60, 65, 1), images(60, 130, 2)])
    values = realness(real, made, 0.05, RECIPE, BRIEF, CPU)
    kept = kept_of_each_class(values, np.zeros(120, dtype=np.int64), 0.5)
    assert len(kept) == 60
    assert (kept < 60).mean() > 0.85


def test_of_each_class_the_same_share_is_kept() -> None:
    values = np.array([5.0, 1, 3, 4, 2, 9])
    labels = np.array([0, 0, 0, 0, 1, 2])
    assert kept_of_each_class(values, labels, 0.5).tolist() == [0, 3, 4, 5]
    assert kept_of_each_class(values, labels, 1.0).tolist() == list(range(6))
    assert kept_of_each_class(values, None, 0.5).tolist() == [0, 3, 5]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and two sets that the command made by it."""
    place = tmp_path_factory.mktemp("proxy")
    (place / "recipe.toml").write_text(recipe_to_toml(RECIPE), encoding="utf-8")
    for name in ("pca-gaussian", "pixel-gaussian"):
        options = ["--out", str(place / f"{name}.npz"), "--images", "205", "--seed", "1"]
        assert main(["proxy", "generate", name, str(place / "recipe.toml"), *options]) == 0
    return place


def test_generate_writes_equally_many_of_each_class_in_random_order_with_their_origin(place: Path) -> None:
    made = read_generated(place / "pca-gaussian.npz")
    assert made.labels is not None
    assert sorted(set(np.bincount(made.labels).tolist())) == [20, 21]
    assert (np.diff(made.labels) != 1).any()
    assert made.origin["generator"] == "pca-gaussian"
    assert made.origin["data"]["set"] == "digits"


def test_arc_ranks_the_sets_and_writes_a_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [str(place / f"{name}.npz") for name in ("pixel-gaussian", "pca-gaussian")]
    options = [
        "--out",
        str(place / "arc.json"),
        "--epochs",
        "12",
        "--pgd-steps",
        "1",
        "--eps",
        "0,0.1",
        "--images",
        "200",
    ]
    assert main(["proxy", "arc", str(place / "recipe.toml"), *sets, *options, "train.learning_rate=0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} == {"real", "pca-gaussian", "pixel-gaussian"}
    areas = [float(line.split()[0]) for line in lines]
    assert areas == sorted(areas)
    result: dict[str, Any] = json.loads((place / "arc.json").read_text(encoding="utf-8"))
    metrics = result["metrics"]
    assert metrics["pixel-gaussian/arc"] > metrics["real/arc"]
    assert metrics["pixel-gaussian/wasserstein"] > 0
    assert set(metrics) >= {"pca-gaussian/accuracy_at_0", "pca-gaussian/accuracy_at_0.1"}
    assert result["recipe"]["train"]["learning_rate"] == 0.05
    assert result["name"] == "arc"


def test_select_keeps_a_share_of_each_class_and_the_origin(place: Path) -> None:
    options = ["--keep", "0.4", "--out", str(place / "kept.npz"), "--epochs", "2", "--pgd-steps", "1"]
    assert main(["proxy", "select", str(place / "recipe.toml"), str(place / "pca-gaussian.npz"), *options]) == 0
    whole, kept = read_generated(place / "pca-gaussian.npz"), read_generated(place / "kept.npz")
    assert kept.labels is not None
    assert np.bincount(kept.labels).tolist() == [9] * 5 + [8] * 5
    assert {image.tobytes() for image in kept.images} <= {image.tobytes() for image in whole.images}
    assert kept.origin["chosen"]["share"] == 0.4
    assert kept.origin["data"] == whole.origin["data"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "gan", "RECIPE", "--out", "a.npz"], "GENERATOR: expected one of diffusion, pca-gaussian, pixel"),
        (["generate", "pca-gaussian", "RECIPE", "--out", "a.json"], "--out: expected a file NAME.npz, got 'a.json'"),
        (
            ["generate", "pca-gaussian", "RECIPE", "--out", "a.npz", "--images", "0"],
            "--images: expected a number of at",
        ),
        (["arc", "RECIPE", "PCA", "PCA"], "expected sets whose files have different names"),
        (["arc", "RECIPE", "nowhere.npz"], "nowhere.npz: expected an .npz file of generated images"),
        (["arc", "RECIPE", "PCA", "data.seed=7"], "data.seed = 0 (expected 7)"),
        (["arc", "RECIPE", "PCA", "--epochs", "0"], "--epochs: expected a number of at least 1, got 0"),
        (["arc", "RECIPE", "PCA", "--pgd-steps", "0"], "--pgd-steps: expected a number of at least 1, got 0"),
        (["arc", "RECIPE", "PCA", "--out", "a.txt"], "--out: expected a file NAME.json"),
        (["select", "RECIPE", "PCA", "--out", "PCA"], "--out: expected another file than the set's"),
        (["select", "RECIPE", "PCA", "--out", "b.npz", "--keep", "0"], "--keep: expected a number above 0, at most 1"),
    ],
)
def test_wrong_use_is_refused(place: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {"RECIPE": str(place / "recipe.toml"), "PCA": str(place / "pca-gaussian.npz")}
    assert main(["proxy", *(known.get(word, word) for word in words)]) == 1
    assert message in capsys.readouterr().err


def test_unlabelled_sets_are_made_and_have_no_distance(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "unlabelled.npz"
    options = ["--out", str(path), "--images", "100", "--unlabelled"]
    assert main(["proxy", "generate", "pixel-gaussian", str(place / "recipe.toml"), *options]) == 0
    assert read_generated(path).labels is None
    options = ["--epochs", "1", "--pgd-steps", "1", "--eps", "0,0.1", "--images", "100", "--json"]
    assert main(["proxy", "arc", str(place / "recipe.toml"), str(path), *options]) == 0
    assert "unlabelled/wasserstein" not in json.loads(capsys.readouterr().out)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write_generated(tmp_path / "set.npz", np.zeros((3, 9, 8, 1), np.uint8), None, {})
    dataset, _ = load_parts(RECIPE, None)
    with pytest.raises(SetupError, match=r"expected images \(8, 8, 1\) as those of digits"):
        check_generated(tmp_path / "set.npz", read_generated(tmp_path / "set.npz"), RECIPE, dataset)
