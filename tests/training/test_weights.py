"""What is done to the weights: averaging, adversarial perturbation, the guard, fine-tuning; and the attack schedule."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from tests.training.test_methods import recipe, same, weights
from training.attack_memory import AttackMemory
from training.attack_schedule import AttackSchedule
from training.attacks import NFgsm, Pgd
from training.averaging import Averager, estimate_statistics
from training.awp import perturbed_weights
from training.checkpoint import load_run, read_checkpoint, starting_model
from training.data import ImageSet
from training.data.batches import ImageSource
from training.fit import fit
from training.guard import Guard
from training.loop import Loop
from training.measure import Accuracies
from training.methods import AttackConfig
from training.models import Classifier, build_model
from training.sections import ModelConfig

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return build_model(ModelConfig(width=4, embedding_dim=8), 1, 8, 8, classes=4)


def images(count: int, seed: int = 0) -> ImageSource:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return ImageSource(ImageSet(images=pixels, labels=np.arange(count, dtype=np.int64) % 4), CPU)


def parameters(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@torch.no_grad()
def move(model: nn.Module, by: float) -> None:
    for parameter in model.parameters():
        parameter.add_(by)


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_the_average_of_equal_weights_is_these_weights(model: Classifier, kind: str) -> None:
    averager = Averager(kind, 0.9, model)  # type: ignore[arg-type]
    for _ in range(3):
        averager.add(model)
    for averaged, own in zip(parameters(averager.model), parameters(model), strict=True):
        torch.testing.assert_close(averaged, own)


def test_swa_is_the_plain_mean_and_not_the_first_weights(model: Classifier) -> None:
    averager = Averager("swa", 0.0, model)
    first = parameters(model)
    for _ in range(3):
        move(model, 1.0)
        averager.add(model)
    for averaged, start in zip(parameters(averager.model), first, strict=True):
        torch.testing.assert_close(averaged, start + 2.0)


def test_statistics_are_cumulative_means_over_batches(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.averaging.BATCH", 16)
    source, seen = images(64), []
    for part in torch.arange(64).split(16):
        one = copy.deepcopy(model)
        estimate_statistics(one, source, part)
        seen.append(one.state_dict()["stages.1.running_mean"])
    estimate_statistics(model, source, torch.arange(64))
    torch.testing.assert_close(model.state_dict()["stages.1.running_mean"], torch.stack(seen).mean(dim=0))


@pytest.mark.parametrize("statistics", ["averaged", "clean"])
def test_statistics_are_averaged_with_the_weights_or_estimated_anew(model: Classifier, statistics: str) -> None:
    averager = Averager("swa", 0.0, model, statistics=statistics)  # type: ignore[arg-type]
    source = images(64)
    for value in (1.0, 3.0):
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.fill_(value)
        averager.add(model)
    averager.estimate(source)
    found = averager.model.state_dict()["stages.1.running_mean"]
    if statistics == "averaged":
        assert found.tolist() == pytest.approx([2.0] * len(found))
    else:
        expected = copy.deepcopy(model)
        estimate_statistics(expected, source, torch.arange(64))
        torch.testing.assert_close(found, expected.state_dict()["stages.1.running_mean"])


def test_ema_forgets_at_its_rate_once_it_has_seen_enough(model: Classifier) -> None:
    averager = Averager("ema", 0.5, model)
    averager.count = 100
    start = parameters(averager.model)
    move(model, 1.0)
    averager.add(model)
    for averaged, before in zip(parameters(averager.model), start, strict=True):
        torch.testing.assert_close(averaged, before + 0.5)


def test_estimated_statistics_are_those_of_one_big_batch(model: Classifier) -> None:
    source = images(64)
    expected = copy.deepcopy(model)
    for module in expected.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    expected.train()(source.take(torch.arange(64)))
    estimate_statistics(model, source, torch.arange(64))
    assert not model.training
    assert all(module.momentum == 0.1 for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_perturbed_weights_come_back_and_raise_the_loss(model: Classifier) -> None:
    source = images(32)
    model.train()
    batch, labels = source.take(torch.arange(32)), source.labels

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(batch), labels)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    lengths = [float(weight.detach().norm()) for weight in model.parameters() if weight.ndim > 1]
    with torch.no_grad():
        plain = loss()
    model.load_state_dict(before)
    with perturbed_weights(model, loss, gamma=0.02):
        moved = [
            float((weight.detach() - before[name]).norm())
            for name, weight in model.named_parameters()
            if weight.ndim > 1
        ]
        assert moved == pytest.approx([0.02 * length for length in lengths], rel=1e-4)
        unmoved = [(name, weight) for name, weight in model.named_parameters() if weight.ndim <= 1]
        assert all(torch.equal(weight, before[name]) for name, weight in unmoved)
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
        with torch.no_grad():
            assert loss() > plain
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def attack(**changed: object) -> AttackConfig:
    return AttackConfig(**{"eps": 0.1, **changed})  # type: ignore[arg-type]


def test_progressive_steps_rise_from_the_first_to_the_last_number() -> None:
    schedule = AttackSchedule(attack(steps=4, first_steps=1, step=0.05), steps_an_epoch=10, steps=40)
    used = [schedule.at(step) for step in range(40)]
    assert all(isinstance(one, Pgd) for one in used)
    pairs = [(one.steps, one.step) for one in used if isinstance(one, Pgd)]
    assert pairs == [(1, 0)] * 10 + [(2, 0)] * 10 + [(3, 0)] * 10 + [(4, 0.05)] * 10


def test_after_the_guard_the_attack_has_several_steps() -> None:
    schedule = AttackSchedule(attack(name="n_fgsm", guard_steps=3, warmup_epochs=1), steps_an_epoch=10, steps=40)
    assert isinstance(schedule.at(20), NFgsm)
    assert schedule.at(20, fell_back=True) == Pgd(eps=0.1, steps=3)


def guard_with(accuracies: list[float], monkeypatch: pytest.MonkeyPatch) -> Guard:
    found = iter(accuracies)
    monkeypatch.setattr("training.guard.measure", lambda *_: Accuracies(clean=1.0, attacked=next(found)))
    return Guard(attack(), images(40), seed=0)


@pytest.mark.parametrize(
    ("accuracies", "states"),
    [
        ([0.3, 0.4, 0.1, 0.1], ["good", "good", "poor", "collapsed"]),
        ([0.3, 0.25], ["good", "good"]),
        ([0.6, 0.3, 0.05, 0.0], ["good", "poor", "poor", "collapsed"]),
        ([0.4, 0.1, 0.35, 0.1, 0.4], ["good", "poor", "good", "poor", "good"]),
        ([0.1, 0.0, 0.0], ["good", "poor", "poor"]),
    ],
    ids=["collapse", "noise", "collapse over two looks", "dips", "nothing learned yet"],
)
def test_the_guard_trips_on_a_collapse_only(
    model: Classifier, monkeypatch: pytest.MonkeyPatch, accuracies: list[float], states: list[str]
) -> None:
    guard, found = guard_with(accuracies, monkeypatch), []
    for number in range(len(accuracies)):
        found.append(guard.look(model, number))
        if found[-1] == "good":
            guard.keep({"good": number})
    assert found == states


@pytest.mark.parametrize("steps", [4, 5, 7, 11, 100, 103])
def test_the_guard_looks_four_times_an_epoch_and_at_its_end(steps: int) -> None:
    due = [batch for batch in range(1, steps + 1) if Guard.is_due(batch, steps)]
    assert len(due) == 4
    assert due[-1] == steps


def test_the_guard_of_a_short_epoch_looks_after_each_step() -> None:
    assert [Guard.is_due(batch, 3) for batch in (1, 2, 3)] == [True, True, True]


def test_there_is_no_guard_of_training_without_attack() -> None:
    with pytest.raises(SetupError, match=r"attack\.guard: expected false for none, got True"):
        attack(name="none", guard=True)


def test_a_tripped_guard_brings_the_last_good_weights_back_and_turns_to_pgd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.6, 0.0, 0.0])  # at steps 1, 2 and 3
    good: list[dict[str, Tensor]] = []
    seen: list[tuple[bool, bool]] = []

    def measured(model: Classifier, *_: object) -> Accuracies:
        good.append({name: value.clone() for name, value in model.state_dict().items()})
        return Accuracies(clean=1.0, attacked=next(accuracies))

    def on_step(loop: Loop) -> None:
        seen.append((loop.has_fallen_back, same(loop.model.state_dict(), good[0])))

    monkeypatch.setattr("training.guard.measure", measured)
    given = recipe(attack={"name": "n_fgsm", "guard": True}, averaging={"kind": "ema"}, train={"epochs": 1})
    fit(given, None, tmp_path, device=CPU, on_step=on_step)
    assert seen == [(False, True), (False, False), (True, True), (True, False)]
    assert read_checkpoint(tmp_path)["loop"]["log"][0]["guard_tripped_at_step"] == 3


def test_a_guard_needs_images_to_watch(tmp_path: Path) -> None:
    given = recipe(attack={"name": "n_fgsm", "guard": True}, data={"selection": 0})
    with pytest.raises(SetupError, match=r"data\.selection: expected images for attack\.guard"):
        fit(given, None, tmp_path / "run", device=CPU)


def test_fine_tuning_starts_from_the_weights_of_a_run(tmp_path: Path) -> None:
    fit(recipe(), None, tmp_path / "at", device=CPU)
    tuned = recipe(train={"start_from": str(tmp_path / "at"), "learning_rate": 1e-12, "epochs": 1})
    fit(tuned, None, tmp_path / "tuned", device=CPU)
    began = {name: value for name, value in load_run(tmp_path / "at").model.state_dict().items() if "weight" in name}
    for name, value in began.items():
        if value.ndim > 1:
            torch.testing.assert_close(weights(tmp_path / "tuned")[name], value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"width": 5, "embedding_dim": 8}},
            r"with the recipe's network, got one with model\.width = 4 \(expected 5\); set \[model\]",
        ),
        (
            {"data": {"set": "npz"}},
            r"this size, got one with height = 8 \(expected 10\), width = 8 \(expected 10\), channels = 1",
        ),
        ({"train": {"start_from": "nowhere"}}, r"^train\.start_from: nowhere: expected a run directory"),
    ],
    ids=["network", "image size", "no run"],
)
def test_fine_tuning_from_another_model_is_refused(
    tmp_path: Path, changes: dict[str, dict[str, object]], message: str
) -> None:
    fit(recipe(train={"epochs": 1}), None, tmp_path / "at", device=CPU)
    pixels = np.zeros((400, 10, 10, 3), np.uint8)
    labels = np.arange(400) % 10
    np.savez(tmp_path / "set.npz", train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels)
    train = {"start_from": str(tmp_path / "at"), **changes.pop("train", {})}
    data = tmp_path / "set.npz" if "data" in changes else None
    with pytest.raises(SetupError, match=message):
        fit(recipe(train=train, **changes), data, tmp_path / "tuned", device=CPU)
    assert not (tmp_path / "tuned").exists()


def test_fine_tuning_from_other_classes_names_those_that_differ(tmp_path: Path) -> None:
    fit(recipe(train={"epochs": 1}), None, tmp_path / "at", device=CPU)
    wanted = recipe(train={"start_from": str(tmp_path / "at")})
    with pytest.raises(
        SetupError, match=r"with these classes, got one with class 1 = \"1\" \(expected \"one\"\); name"
    ):
        starting_model(wanted, ("0", "one", *map(str, range(2, 10))), (8, 8, 1))


def test_an_averaged_run_gives_the_average(tmp_path: Path) -> None:
    fit(recipe(averaging={"kind": "swa", "start_epoch": 1}), None, tmp_path, device=CPU)
    loop = read_checkpoint(tmp_path)["loop"]
    assert loop["averager"]["count"] == 1
    run = load_run(tmp_path)
    assert run.epoch == 2
    assert same(dict(run.model.state_dict()), loop["best_averaged"]["model"])
    assert "averaged_attacked_accuracy" not in loop["log"][0]
    assert 0 <= loop["log"][1]["averaged_attacked_accuracy"] <= 1


def test_without_a_selection_part_the_last_average_is_kept(tmp_path: Path) -> None:
    given = recipe(averaging={"kind": "ema"})
    fit(replace(given, data=replace(given.data, selection=0)), None, tmp_path, device=CPU)
    assert load_run(tmp_path).epoch == 2


def test_perturbations_live_on_from_epoch_to_epoch(tmp_path: Path) -> None:
    """With steps of a quarter of the budget, one step an epoch reaches it only if the epochs add up."""
    given = recipe(train={"shift": 0, "epochs": 5}, attack={"steps": 1, "step": 0.025, "renew_epochs": 10})
    found: list[float] = []

    def on_step(loop: Loop) -> None:
        assert loop.memory is not None
        everything = torch.arange(len(loop.source))
        if loop.epoch_is_over:
            start = loop.memory.start(everything, epoch=1)
            assert start is not None
            found.append(float((start - loop.source.take(everything)).abs().mean()))
            assert float((start - loop.source.take(everything)).abs().max()) <= 0.1 + 1 / 510 + 1e-6

    fit(given, None, tmp_path, device=CPU, on_step=on_step)
    assert found[4] > 1.1 * found[0]


def test_perturbations_begin_anew_when_asked() -> None:
    memory = AttackMemory(images(8), renew_epochs=3)
    positions = torch.tensor([1, 5])
    memory.keep(positions, torch.full((2, 1, 8, 8), 0.5), epoch=0)
    kept = [memory.start(positions, epoch) for epoch in range(4)]
    assert kept[0] is None
    assert kept[3] is None
    assert kept[1] is not None
    assert kept[1].unique().tolist() == pytest.approx([128 / 255])
    later = memory.start(positions, epoch=4)  # nothing was kept since epoch 3
    assert later is not None
    assert torch.equal(later, images(8).take(positions))


def test_remembered_perturbations_resume_exactly(tmp_path: Path) -> None:
    given = recipe(attack={"steps": 1, "renew_epochs": 2})

    def stop(loop: Loop) -> None:
        if loop.steps_done == 6:
            raise KeyboardInterrupt

    fit(given, None, tmp_path / "whole", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path / "stopped", device=CPU, on_step=stop)
    fit(given, None, tmp_path / "stopped", device=CPU)
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))


def test_remembered_perturbations_refuse_augmentation() -> None:
    with pytest.raises(SetupError, match=r"attack\.renew_epochs: expected 0 with train\.zoom, got 2"):
        recipe(attack={"renew_epochs": 2}, train={"zoom": 0.1})


def test_remembered_perturbations_follow_their_image_through_shifts(tmp_path: Path) -> None:
    """Perturbations that did not follow would be cut down by the projection to what fits by chance."""
    given = recipe(attack={"steps": 1, "step": 0.1, "renew_epochs": 9}, train={"epochs": 2, "shift": 2})
    shares: list[float] = []

    def on_step(loop: Loop) -> None:
        assert loop.memory is not None
        if loop.epoch_is_over:
            everything = torch.arange(len(loop.source))
            start = loop.memory.start(everything, epoch=1)
            assert start is not None
            inner = (start - loop.source.take(everything))[:, :, 2:-2, 2:-2].abs()
            shares.append(float((inner <= 0.1 + 1 / 510 + 1e-6).float().mean()))

    fit(given, None, tmp_path, device=CPU, on_step=on_step)
    assert shares == [1.0, 1.0]
