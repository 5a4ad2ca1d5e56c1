"""Localized training from end to end on digits, and its limits: nothing, everything, and two equal budgets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.detection.engine import Engine
from service.errors import SetupError
from tests.training.test_methods import plain_adversarial_training, recipe, same, weights
from training.__main__ import main
from training.attacks import Pgd
from training.checkpoint import load_parts, load_run, read_checkpoint
from training.config import Recipe, load_recipe
from training.data import load_data
from training.data.augment import moved
from training.data.batches import ImageSource
from training.export import export
from training.fit import Outcome, fit
from training.localizing import attacked_rows, build_localizer
from training.loop import Loop
from training.masks import PixelMasks
from training.models import Classifier, build_model
from training.network_digest import network_digest
from training.precision import deterministic
from training.processes import Processes
from training.shard import Shard

CPU = torch.device("cpu")
LOCAL: dict[str, Any] = {"region": "background", "mask": "pixels", "pixel_level": 0.3}
PART: dict[str, Any] = {
    "region": "foreground",
    "mask": "cam",
    "threshold": "deviation",
    "elsewhere_eps": 0.05,
    "clean_ratio": 0.0,
    "start_epoch": 1,
}


def stop_at(step: int) -> Callable[[Loop], None]:
    def stop(loop: Loop) -> None:
        if loop.steps_done == step:
            raise KeyboardInterrupt

    return stop


class Uniform:
    """The same mask for all."""

    is_stored = False
    network = ""

    def __init__(self, background: bool) -> None:
        self.background = background

    def __call__(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 1, *images.shape[2:]), self.background)


def trained(given: Recipe, masks: Uniform | None = None) -> dict[str, Tensor]:
    dataset, parts = load_parts(given, None)
    with deterministic(1):
        loop = Loop(given, parts, len(dataset.class_names), CPU, masks=masks)
        while not loop.is_finished:
            loop.step()
            if loop.epoch_is_over:
                loop.close_epoch()
    return loop.model.state_dict()


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return plain_adversarial_training(recipe())


@pytest.fixture(scope="module")
def clean() -> dict[str, Tensor]:
    return trained(recipe(attack={"name": "none"}))


def test_off_it_has_no_effect_bit_for_bit(plain: dict[str, Tensor]) -> None:
    assert same(trained(recipe(localized={"region": "none", "mask": "cam", "clean_ratio": 3.0})), plain)


def test_an_empty_mask_is_clean_training_bit_for_bit(clean: dict[str, Tensor]) -> None:
    assert same(trained(recipe(localized={"region": "background"}), Uniform(False)), clean)
    assert same(trained(recipe(localized={"region": "foreground", "clean_ratio": 0.0}), Uniform(True)), clean)


def test_a_full_mask_without_clean_images_is_adversarial_training_bit_for_bit(plain: dict[str, Tensor]) -> None:
    assert same(trained(recipe(localized={"region": "background", "clean_ratio": 0.0}), Uniform(True)), plain)


def test_part_with_equal_budgets_is_adversarial_training_bit_for_bit(plain: dict[str, Tensor]) -> None:
    assert same(trained(recipe(localized={**PART, "elsewhere_eps": 0.1, "start_epoch": 0})), plain)
    assert not same(trained(recipe(localized={**PART, "start_epoch": 0})), plain)


@pytest.mark.parametrize(
    ("section", "warm_up"),
    [(PART, {}), ({**LOCAL, "start_epoch": 1}, {"attack": {"name": "none"}})],
    ids=["part", "local"],
)
def test_the_epochs_before_are_of_clean_images_or_for_part_of_adversarial_training(
    section: dict[str, Any], warm_up: dict[str, Any]
) -> None:
    loops = []
    for given in (recipe(localized=section), recipe(**warm_up)):
        dataset, parts = load_parts(given, None)
        loops.append(Loop(given, parts, len(dataset.class_names), CPU))
    with deterministic(1):
        for loop in loops:
            for _ in range(loop.steps_an_epoch):
                loop.step()
        assert same(loops[0].model.state_dict(), loops[1].model.state_dict())
        for loop in loops:
            loop.close_epoch()
            loop.step()
    assert not same(loops[0].model.state_dict(), loops[1].model.state_dict())


@pytest.mark.parametrize(
    ("count", "ratio", "rows"),
    [
        (6, 1.0, [1, 3, 5]),
        (6, 2.0, [2, 5]),
        (6, 0.5, [1, 2, 4, 5]),
        (3, 0.0, [0, 1, 2]),
        (5, 1.0, [1, 3]),
        (2, 9.0, []),
        (0, 1.0, []),
    ],
)
def test_the_ratio_of_clean_images(count: int, ratio: float, rows: list[int]) -> None:
    assert attacked_rows(count, ratio).tolist() == rows


@pytest.mark.parametrize("ratio", [0.0, 1 / 3, 1.0, 2.0, 3.0, 9.0])
def test_large_batches_have_the_very_share(ratio: float) -> None:
    assert len(attacked_rows(1200, ratio)) == round(1200 / (1 + ratio))


SECTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "background": {"localized": LOCAL},
    "one step in l2": {"localized": LOCAL, "attack": {"name": "fgsm", "norm": "l2", "eps": 1.0}},
    "once": {"localized": {**LOCAL, "fresh": False, "start_epoch": 1}},
    "part": {"localized": PART},
    "with TLA and SAR": {
        "localized": LOCAL,
        "tla": {"weight": 0.5, "pool": 16, "margin": 0.2},
        "sar": {"weight": 0.06},
        "averaging": {"kind": "ema", "decay": 0.5},
    },
}


@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS.keys())
def test_it_trains_another_network_and_resumes_exactly(
    tmp_path: Path, plain: dict[str, Tensor], sections: dict[str, dict[str, Any]]
) -> None:
    given = recipe(**{**sections, "train": {"epochs": 3}, "data": {"train": 100}})

    fit(given, None, tmp_path / "whole", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path / "stopped", device=CPU, on_step=stop_at(5))
    assert read_checkpoint(tmp_path / "stopped")["loop"]["epoch"] == 2
    assert fit(given, None, tmp_path / "stopped", device=CPU) is Outcome.FINISHED
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    assert not same(weights(tmp_path / "whole"), plain)


def small_loop(**localized: Any) -> tuple[Loop, ImageSource]:
    given = recipe(localized={**LOCAL, **localized}, train={"shift": localized.pop("shift", 1)})
    dataset, parts = load_parts(given, None)
    return Loop(given, parts, len(dataset.class_names), CPU), ImageSource(parts.train, CPU)


def test_a_step_attacks_every_second_image_on_its_background_alone() -> None:
    loop, source = small_loop()
    assert loop.memory is not None
    clean, labels = source.take(torch.arange(40)), source.labels[:40]
    made = loop.memory.attacked(
        Pgd(eps=0.1, steps=2),
        loop.model,
        clean,
        labels,
        torch.Generator().manual_seed(0),
        positions=torch.arange(40),
        moves=None,
        epoch=0,
    )
    changed = (made != clean).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True] * 20
    foreground = (clean >= 0.3).expand_as(clean)
    assert torch.equal(made[foreground], clean[foreground])
    assert (made - clean).abs().max() <= 0.1 + 1e-6


def test_once_made_the_attacked_images_stay_as_they_are_also_moved() -> None:
    loop, source = small_loop(fresh=False, start_epoch=1)
    assert loop.memory is not None
    images, labels, generator = source.take(torch.arange(8)), source.labels[:8], torch.Generator().manual_seed(0)

    def made(moves: Tensor | None) -> Tensor:
        assert loop.memory is not None
        return loop.memory.attacked(
            Pgd(eps=0.1, steps=2),
            loop.model,
            moved(images, moves),
            labels,
            generator,
            positions=torch.arange(8),
            moves=moves,
            epoch=1,
        )

    first = made(None)
    drawn = generator.get_state()
    assert torch.equal(made(None), first)
    assert torch.equal(generator.get_state(), drawn)
    moves = torch.ones(2, 8, 1, dtype=torch.long)
    later, seen = made(moves), moved(images, moves)
    assert (later - moved(first, moves)).abs().max() < 1e-6
    assert (later - seen).abs().max() <= 0.1 + 1e-6
    assert torch.equal(later[seen >= 0.3], seen[seen >= 0.3])


def test_the_log_and_the_checkpoint_name_the_network_of_the_masks(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    fit(recipe(train={"epochs": 1}), None, first, device=CPU)
    given = recipe(localized={"region": "background", "mask": "cam", "run": str(first)})
    with pytest.raises(KeyboardInterrupt):
        fit(given, None, second, device=CPU, on_step=stop_at(5))
    named = network_digest(load_run(first).model)
    lines = [json.loads(line) for line in (second / "log.jsonl").read_text("utf-8").splitlines()]
    assert [line["mask_network"] for line in lines] == [named]
    for path in first.iterdir():
        path.unlink()
    fit(recipe(train={"epochs": 1, "seed": 4}), None, first, device=CPU)
    with pytest.raises(SetupError, match=rf"localized\.run: expected .*cam.* network {named}\), by which"):
        fit(given, None, second, device=CPU)


def test_own_masks_train_and_are_measured(tmp_path: Path) -> None:
    digits = load_data("digits", None).train
    path = tmp_path / "masks.npz"
    np.savez(path, train_masks=digits.images[..., 0] < 255 * 0.3)
    of_pixels, of_file = recipe(localized=LOCAL), recipe(localized={**LOCAL, "mask": "file", "file": str(path)})
    fit(of_pixels, None, tmp_path / "pixels", device=CPU)
    fit(of_file, None, tmp_path / "file", device=CPU)
    assert same(weights(tmp_path / "pixels"), weights(tmp_path / "file"))


def test_a_file_of_other_masks_is_noticed_on_resuming(tmp_path: Path) -> None:
    path, count = tmp_path / "masks.npz", len(load_data("digits", None).train)
    given = recipe(localized={**LOCAL, "mask": "file", "file": str(path)})

    np.savez(path, train_masks=np.ones((count, 8, 8), bool))
    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path / "run", device=CPU, on_step=stop_at(5))
    np.savez(path, train_masks=np.zeros((count, 8, 8), bool))
    with pytest.raises(SetupError, match=r"localized\.file: expected StoredMasks\(.*by which this training began"):
        fit(given, None, tmp_path / "run", device=CPU)


def test_a_bundle_of_it_gives_the_answers_of_torch(tmp_path: Path) -> None:
    given = recipe(
        localized=LOCAL,
        tla={"weight": 0.5, "pool": 16},
        sar={"weight": 0.06},
        train={"epochs": 1},
        export={"detectors": ["gaussian"]},
    )
    fit(given, None, tmp_path / "run", device=CPU)
    export(tmp_path / "run", tmp_path / "bundle", data_root=None)
    run = load_run(tmp_path / "run")
    images = run.parts(None).test.images[:16]
    ours = run.model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()
    theirs = Engine.load(tmp_path / "bundle", threads=1).measure(images).outputs.logits
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["localized.region=background", "attack.name=n_fgsm"], "attack.name: expected pgd or fgsm, which"),
        (["localized.region=background", "attack.name=none"], "attack.name: expected pgd or fgsm, which"),
        (["localized.region=background", "attack.renew_epochs=2"], "attack.renew_epochs: expected 0 with localized"),
        (["localized.region=background", "attack.guard=true"], "attack.guard: expected false with localized.region"),
        (["localized.region=background", "localized.elsewhere_eps=0.5"], "elsewhere_eps: expected at most attack.eps"),
        (
            ["localized.region=background", "localized.elsewhere_eps=0.1", "attack.norm=l2"],
            "localized.elsewhere_eps: expected 0 for norm l2",
        ),
        (
            [
                "localized.region=background",
                "localized.fresh=false",
                "attack.warmup_epochs=2",
                "localized.start_epoch=1",
            ],
            "attack.warmup_epochs: expected at most localized.start_epoch",
        ),
        (["localized.region=background", "localized.fresh=false"], "localized.fresh: expected true, or train.start"),
        (
            ["localized.region=background", "localized.mask=file", "localized.file=x.npz", "train.rotate=5"],
            "train.rotate: expected none with localized.mask = 'file'",
        ),
        (["localized.region=background", "localized.mask=file"], "localized.file: expected an .npz file for mask file"),
        (["localized.region=background", "localized.clean_ratio=-1"], "clean_ratio: expected a number of at least 0"),
        (["localized.region=background", "localized.clean_ratio=inf"], "clean_ratio: expected a number of at least 0"),
        (["localized.region=background", "localized.pixel_level=0"], "pixel_level: expected a number above 0"),
        (["localized.region=background", "localized.dilate=9"], "localized.dilate: expected a number from 0 to 8"),
        (["localized.region=background", "localized.box_share=2", "localized.mask=box"], "box_share: expected"),
        (["localized.region=background", "localized.mask=colour"], "localized.mask: expected one of pixels, box"),
        (["localized.region=background", "localized.start_epoch=99"], "start_epoch: expected less than train.epochs"),
        (["localized.mask=cam"], "localized.mask: expected localized.region to be background or foreground"),
        (
            ["localized.region=background", "localized.threshold=deviation"],
            "localized.threshold: expected localized.mask",
        ),
        (["localized.region=background", "localized.run=x"], "localized.run: expected localized.mask to be cam"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_go_together_is_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(SetupError) as error:
        load_recipe("digits", overrides)
    assert message in str(error.value)


def model_and_source(given: Recipe) -> tuple[Classifier, ImageSource]:
    _, parts = load_parts(given, None)
    return build_model(given.model, 1, 8, 8, 10), ImageSource(parts.train, CPU)


@pytest.mark.parametrize(
    ("section", "batch_size", "message"),
    [
        ({**LOCAL, "fresh": False, "start_epoch": 1}, 48, "localized.fresh: expected true with 2 processes"),
        ({**LOCAL, "clean_ratio": 2.0}, 50, "localized.clean_ratio: expected one that leaves each of 2 processes"),
    ],
)
def test_several_processes_share_what_can_be_shared(section: dict[str, Any], batch_size: int, message: str) -> None:
    two = Processes(shard=Shard(rank=1, world=2))
    given = recipe(localized=section)
    with pytest.raises(SetupError, match=message):
        build_localizer(given, *model_and_source(given), batch_size, two)
    build_localizer(given, *model_and_source(given), batch_size)
    fine = recipe(localized=LOCAL)
    build_localizer(fine, *model_and_source(fine), 48, two)


def test_shipped_recipes_say_what_they_are() -> None:
    local, part = load_recipe("mnist-localized").localized, load_recipe("gtsrb-part")
    assert (local.region, local.clean_ratio) == ("background", 1.0)
    assert part.localized.elsewhere_eps * 255 == pytest.approx(7)
    assert part.attack.eps * 255 == pytest.approx(8)
    assert PixelMasks(level=local.pixel_level, dilate=local.dilate) == PixelMasks()


def test_fit_refuses_what_the_command_line_gets_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["localized.region=background", "localized.mask=cam", f"localized.run={tmp_path / 'none'}"]
    assert main(["fit", "digits", "--out", str(tmp_path / "run"), *words]) == 1
    error = capsys.readouterr().err
    assert "localized.run: " in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
