"""Runs on real and generated images: which images they learn from, resuming, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.detection.graph import Graph
from service.errors import SetupError
from tests import tiny
from tests.training.proxy import made
from tests.training.test_methods import recipe as plain_recipe
from tests.training.test_methods import same, weights
from training.checkpoint import load_run, read_checkpoint
from training.config import load_recipe, recipe_to_toml
from training.data.generated import read_generated
from training.export import export
from training.fit import Outcome, fit
from training.loop import Loop

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("sets") / "labelled.npz")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("sets") / "unlabelled.npz", labels=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on real images alone, which may label others."""
    run = tmp_path_factory.mktemp("runs") / "plain"
    fit(plain_recipe(), None, run, device=CPU)
    return run


def test_gamma_1_is_training_on_real_images_alone_bit_for_bit(tmp_path: Path, labelled: Path, plain: Path) -> None:
    fit(made.recipe(labelled, proxy={"gamma": 1.0}), None, tmp_path, device=CPU)
    assert same(weights(tmp_path), weights(plain))


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"trades": {"weight": 6.0}, "attack": {"loss": "kl"}},
        {"tla": {"weight": 0.5, "pool": 16}, "sar": {"weight": 0.06}, "awp": {"weight": 0.005}},
    ],
    ids=["pgd", "trades", "tla-sar-awp"],
)
def test_the_mix_changes_the_weights_and_resumes_exactly(
    tmp_path: Path, labelled: Path, plain: Path, method: dict[str, Any]
) -> None:
    given = made.recipe(labelled, **method, proxy={"gamma": 0.4}, averaging={"kind": "ema"})

    def stop(loop: Loop) -> None:
        if loop.steps_done == 11:
            raise KeyboardInterrupt

    fit(given, None, tmp_path / "whole", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path / "stopped", device=CPU, on_step=stop)
    assert read_checkpoint(tmp_path / "stopped")["loop"]["epoch"] == 1
    assert fit(given, None, tmp_path / "stopped", device=CPU) is Outcome.FINISHED
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    assert not same(weights(tmp_path / "whole"), weights(plain))


def test_a_run_goes_on_with_the_same_generated_images_only(tmp_path: Path) -> None:
    path = made.write(tmp_path / "set.npz")
    given = made.recipe(path)

    def stop(loop: Loop) -> None:
        if loop.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path / "run", device=CPU, on_step=stop)
    made.write(path, 59)
    with pytest.raises(SetupError, match="expected the generated images that the run began with, got others"):
        fit(given, None, tmp_path / "run", device=CPU)


def test_held_out_parts_hold_real_images_alone_and_a_run_needs_its_set_no_more(tmp_path: Path) -> None:
    path = made.write(tmp_path / "set.npz")
    fit(made.recipe(path), None, tmp_path / "run", device=CPU)
    generated = {image.tobytes() for image in read_generated(path).images}
    path.unlink()
    parts = load_run(tmp_path / "run").parts(None)
    for part in vars(parts).values():
        assert generated.isdisjoint(image.tobytes() for image in part.images)


def test_a_set_in_the_data_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    made.write(tmp_path / "data" / "set.npz")
    monkeypatch.chdir(tmp_path)
    fit(made.recipe(Path("set.npz"), train={"epochs": 1}), tmp_path / "data", tmp_path / "run", device=CPU)
    with pytest.raises(SetupError, match=r"proxy\.set: expected a file .* at set\.npz, found none; .*generate"):
        fit(made.recipe(Path("set.npz")), None, tmp_path / "other", device=CPU)


def test_a_part_of_a_set_is_chosen_evenly(tmp_path: Path, labelled: Path) -> None:
    seen: list[torch.Tensor] = []

    def look(loop: Loop) -> None:
        assert loop.mix._generated is not None
        seen.append(loop.mix._generated.take(torch.arange(len(loop.mix._generated))))

    fit(
        made.recipe(labelled, proxy={"images": 20}, train={"epochs": 1}),
        None,
        tmp_path / "run",
        device=CPU,
        on_step=look,
    )
    expected = torch.from_numpy(read_generated(labelled).images[::3]).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(seen[0], expected)
    with pytest.raises(SetupError, match=r"proxy\.images: expected at most the 60 of .*labelled\.npz, got 61"):
        fit(made.recipe(labelled, proxy={"images": 61}), None, tmp_path / "more", device=CPU)


def test_a_run_labels_images_and_keeps_what_it_said(tmp_path: Path, unlabelled: Path, plain: Path) -> None:
    given = made.recipe(unlabelled, proxy={"labeller": str(plain)})

    def stop(loop: Loop) -> None:
        if loop.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path, device=CPU, on_step=stop)
    images = torch.from_numpy(read_generated(unlabelled).images).permute(0, 3, 1, 2).float() / 255
    expected = load_run(plain).model(images).argmax(dim=1).numpy()
    kept = np.load(tmp_path / "proxy_labels.npy")
    assert kept.tolist() == expected.tolist()
    np.save(tmp_path / "proxy_labels.npy", (kept + 1) % 10)
    with pytest.raises(SetupError, match="expected the generated images that the run began with"):
        fit(given, None, tmp_path, device=CPU)
    np.save(tmp_path / "proxy_labels.npy", kept[1:])
    with pytest.raises(SetupError, match=r"proxy_labels\.npy: expected 60 labels, got int64 \(59,\)"):
        fit(given, None, tmp_path, device=CPU)
    (tmp_path / "proxy_labels.npy").unlink()
    with pytest.raises(SetupError, match=r"proxy_labels\.npy: expected the labels of the generated images, got"):
        fit(given, None, tmp_path, device=CPU)


def test_an_unlabelled_set_without_a_labeller_is_an_error(tmp_path: Path, unlabelled: Path) -> None:
    with pytest.raises(
        SetupError, match=r"proxy\.labeller: expected a run or a bundle to label .* no labels, got none"
    ):
        fit(made.recipe(unlabelled), None, tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


def test_a_shipped_bundle_may_label_and_has_learned_from_another_cut(tmp_path: Path, unlabelled: Path) -> None:
    """The bundle digits was trained on other training images, some of which this recipe holds out."""
    with pytest.raises(SetupError, match=r"proxy\.labeller: digits: .* data\.fit = 200 \(expected 20\)"):
        fit(made.recipe(unlabelled, proxy={"labeller": "digits"}), None, tmp_path / "run", device=CPU)


def test_a_bundle_labels_images(tmp_path: Path, unlabelled: Path) -> None:
    shipped = load_recipe("digits")
    table = {"data": {**vars(shipped.data)}, "train": {"epochs": 1}}
    fit(made.recipe(unlabelled, **table, proxy={"labeller": "digits"}), None, tmp_path / "run", device=CPU)
    labels, truth = np.load(tmp_path / "run" / "proxy_labels.npy"), made.training_part().labels[:60]
    assert (labels == truth).mean() > 0.9


@pytest.mark.parametrize(
    ("labeller", "message"),
    [
        ("nobody", r"proxy\.labeller: expected a finished run or a bundle: nobody: no such bundle"),
        ("BUNDLE", r"proxy\.labeller: .*tiny: expected a classifier of images .* into the classes 0, 1, .*north-west"),
    ],
)
def test_other_labellers_are_refused(tmp_path: Path, unlabelled: Path, labeller: str, message: str) -> None:
    if labeller == "BUNDLE":
        labeller = str(tiny.write(tmp_path / "tiny"))
    with pytest.raises(SetupError, match=message):
        fit(made.recipe(unlabelled, proxy={"labeller": labeller}), None, tmp_path / "run", device=CPU)


def test_labels_and_a_labeller_are_one_too_many(tmp_path: Path, labelled: Path, plain: Path) -> None:
    with pytest.raises(SetupError, match=r"proxy\.labeller: expected none for .* whose images have labels, got"):
        fit(made.recipe(labelled, proxy={"labeller": str(plain)}), None, tmp_path / "run", device=CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"seed": 1}}, r"data\.seed = 0 \(expected 1\)"),
        ({"data": {"train": 150}}, r"data\.train = 200 \(expected 150\)"),
    ],
)
def test_a_generator_that_may_have_seen_held_out_images_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    origin = {"data": vars(plain_recipe().data)}
    path = made.write(tmp_path / "set.npz", origin=origin)
    fit(made.recipe(path, train={"epochs": 1}), None, tmp_path / "run", device=CPU)
    with pytest.raises(SetupError, match=rf"set\.npz: expected one that learned from .* alone, got one with {message}"):
        fit(made.recipe(path, **change), None, tmp_path / "other", device=CPU)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 8, 9, 1), np.uint8), [0, 1, 2, 3], r"expected images \(8, 8, 1\) as those of digits, got \(8, 9"),
        (
            np.zeros((4, 8, 8, 1), np.uint8),
            [0, 1, 2, 10],
            r"expected labels from 0 to 9 as those of digits, got 0 to 10",
        ),
        (np.zeros((4, 8, 8, 1), np.uint8), [0, -1, 2, 3], r"expected labels from 0 to 9 .* got -1 to 3"),
    ],
)
def test_images_that_do_not_belong_to_the_set_are_refused(
    tmp_path: Path, images: np.ndarray, labels: list[int], message: str
) -> None:
    np.savez(tmp_path / "set.npz", image=images, label=labels)
    with pytest.raises(SetupError, match=message):
        fit(made.recipe(tmp_path / "set.npz"), None, tmp_path / "run", device=CPU)


def test_the_section_has_no_effect_without_a_set_and_none_with_remembered_attacks(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_to_toml(plain_recipe()), encoding="utf-8")
    with pytest.raises(SetupError, match=r"proxy\.gamma: expected proxy\.set to be a file of generated images"):
        load_recipe(path, ["proxy.gamma=0.3"])
    with pytest.raises(SetupError, match=r"attack\.renew_epochs: expected 0 with proxy\.set, got 2"):
        load_recipe(path, ["proxy.set=some.npz", "attack.renew_epochs=2"])
    assert load_recipe(path, ["proxy.set=some.npz", "proxy.gamma=0.3"]).proxy.is_on


def test_with_other_methods_it_makes_a_bundle_that_answers_as_the_network_does(tmp_path: Path, labelled: Path) -> None:
    methods: dict[str, Any] = {
        "tla": {"weight": 0.5, "pool": 16},
        "sar": {"weight": 0.06},
        "averaging": {"kind": "ema"},
        "data": {"fit": 60, "calibration": 60, "fusion": 60},
        "train": {"epochs": 1},
    }
    fit(made.recipe(labelled, **methods), None, tmp_path / "run", device=CPU)
    bundle = export(tmp_path / "run", tmp_path / "bundle", data_root=None)
    run = load_run(tmp_path / "run")
    images = run.parts(None).test.images[:20]
    outputs = Graph(bundle.graph, bundle.graph_shape).run(images)
    logits, embedding = run.model.views(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(outputs.logits, logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(outputs.embedding, embedding.numpy(), atol=1e-4)
    assert f"`{labelled}`, at 0.5 of the loss" in (tmp_path / "bundle" / "model_card.md").read_text(encoding="utf-8")
