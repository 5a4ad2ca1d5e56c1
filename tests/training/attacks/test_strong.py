"""APGD, Square, momentum and their union: inside the ball, each image by itself, as strong as another library's."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks import Apgd, Attack, FirstFooling, Mim, NFgsm, Pgd, Square, TargetedApgd, aa_like
from training.attacks.apgd import checkpoints
from training.attacks.dlr import dlr, targeted_dlr
from training.attacks.jsma import Jsma
from training.attacks.square import hill_and_hollow, pyramid
from training.attacks.threat import named_norm
from training.data import load_data
from training.models import build_model
from training.sections import ModelConfig

EVERY = [
    ("apgd ce linf", Apgd(eps=0.15, steps=10)),
    ("apgd dlr l2", Apgd(norm="l2", eps=0.7, steps=10, loss="dlr", restarts=2)),
    ("apgd targeted", TargetedApgd(eps=0.15, steps=5, targets=3)),
    ("square linf", Square(eps=0.15, queries=40)),
    ("square l2", Square(norm="l2", eps=0.7, queries=40)),
    ("mim linf", Mim(eps=0.15, steps=5)),
    ("mim l2", Mim(norm="l2", eps=0.7, steps=5)),
    ("aa_like", aa_like("linf", 0.15, steps=5, queries=20)),
]
ATTACKS = pytest.mark.parametrize("attack", [attack for _, attack in EVERY], ids=[name for name, _ in EVERY])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    every = load_data("digits", None).train
    return torch.from_numpy(every.images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(every.labels)


@pytest.fixture(scope="module")
def model(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """A few epochs of cheap adversarial training: neither lost nor safe within 0.15."""
    images, labels = digits[0][200:], digits[1][200:]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(ModelConfig(width=8, embedding_dim=32), 1, 8, 8, classes=10)
        optimiser = torch.optim.Adam(network.parameters(), 3e-3)
        for epoch in range(6):
            for rows in torch.randperm(len(images), generator=generator(epoch)).split(64):
                attacked = NFgsm(eps=0.1, k=1.0)(network, images[rows], labels[rows], generator(epoch))
                optimiser.zero_grad()
                nn.functional.cross_entropy(network.train()(attacked), labels[rows]).backward()
                optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def batch(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits[0][:100], digits[1][:100]


def right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(dim=1) == labels)


@ATTACKS
def test_attacked_images_keep_to_the_ball_and_the_box(
    model: nn.Module, batch: tuple[Tensor, Tensor], attack: Attack
) -> None:
    images, labels = batch
    before = images.clone()
    attacked = attack(model, images, labels, generator())
    assert torch.equal(images, before)
    assert attacked.shape == images.shape
    assert not attacked.requires_grad
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    parts = attack.attacks if isinstance(attack, FirstFooling) else (attack,)
    norm, eps = parts[0].norm, parts[0].eps  # type: ignore[attr-defined]
    assert named_norm(norm).size(attacked - images).max() <= eps + 1e-6
    assert right(model, attacked, labels).sum() < right(model, images, labels).sum()


@ATTACKS
def test_the_generator_decides(model: nn.Module, batch: tuple[Tensor, Tensor], attack: Attack) -> None:
    images, labels = batch[0][:20], batch[1][:20]
    first, again = (attack(model, images, labels, generator(3)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("attack", [attack for name, attack in EVERY if name != "aa_like"])
def test_an_image_does_not_depend_on_the_others(model: nn.Module, batch: tuple[Tensor, Tensor], attack: Attack) -> None:
    images, labels = batch[0][:12].clone(), batch[1][:12].clone()
    together = attack(model, images, labels, generator())
    images[1::2] = 0.5  # other images, which resist longer or shorter
    labels[1::2] = (labels[1::2] + 1) % 10
    among_others = attack(model, images, labels, generator())
    assert torch.allclose(together[::2], among_others[::2], atol=1e-5)


@ATTACKS
def test_the_model_is_left_as_found(model: nn.Module, batch: tuple[Tensor, Tensor], attack: Attack) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    model.train()
    attack(model, batch[0][:10], batch[1][:10], generator())
    assert model.training
    model.eval()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@ATTACKS
def test_what_is_wrong_already_comes_back_as_it_is(
    model: nn.Module, batch: tuple[Tensor, Tensor], attack: Attack
) -> None:
    images = batch[0][:10]
    with torch.no_grad():
        others = (model(images).argmax(dim=1) + 1) % 10
    assert torch.equal(attack(model, images, others, generator()), images)


def accuracy(model: nn.Module, attack: Attack, batch: tuple[Tensor, Tensor]) -> float:
    return float(right(model, attack(model, *batch, generator()), batch[1]).float().mean())


def library_accuracy(model: nn.Module, batch: tuple[Tensor, Tensor], name: str, **settings: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        attack = getattr(evasion, name)(classifier, verbose=False, **settings)
        before = np.random.get_state()
        np.random.seed(0)
        attacked = attack.generate(batch[0].numpy(), np.eye(10, dtype=np.float32)[batch[1].numpy()])
        np.random.set_state(before)
    return float(right(model, torch.from_numpy(attacked), batch[1]).float().mean())


@pytest.mark.parametrize(
    ("norm", "eps", "loss", "theirs"),
    [
        ("linf", 0.15, "ce", "cross_entropy"),
        ("linf", 0.15, "dlr", "difference_logits_ratio"),
        ("l2", 0.6, "ce", "cross_entropy"),
    ],
)
def test_apgd_is_as_strong_as_the_librarys(
    model: nn.Module, batch: tuple[Tensor, Tensor], norm: Any, eps: float, loss: Any, theirs: str
) -> None:
    ours = accuracy(model, Apgd(norm=norm, eps=eps, steps=20, loss=loss), batch)
    reference = library_accuracy(
        model,
        batch,
        "AutoProjectedGradientDescent",
        norm=np.inf if norm == "linf" else 2,
        eps=eps,
        eps_step=2 * eps,
        max_iter=20,
        nb_random_init=1,
        loss_type=theirs,
        batch_size=100,
    )
    assert 0.05 < ours < 0.9
    assert ours <= reference + 0.02


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.6)])
def test_square_is_as_strong_as_the_librarys(
    model: nn.Module, batch: tuple[Tensor, Tensor], norm: Any, eps: float
) -> None:
    ours = accuracy(model, Square(norm=norm, eps=eps, queries=200), batch)
    reference = library_accuracy(
        model,
        batch,
        "SquareAttack",
        norm=np.inf if norm == "linf" else 2,
        eps=eps,
        max_iter=200,
        p_init=0.8,
        batch_size=100,
    )
    assert 0.05 < ours < 0.9
    assert ours <= reference + 0.02


def test_the_union_is_at_least_as_strong_as_its_parts(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    union = aa_like("linf", 0.15, steps=20, queries=100)
    alone = [accuracy(model, attack, batch) for attack in union.attacks]
    assert accuracy(model, union, batch) <= min(alone)
    assert accuracy(model, union, batch) <= accuracy(model, Pgd(eps=0.15, steps=20), batch)


def test_the_union_gives_what_first_fooled_else_what_came_last() -> None:
    def towards(value: float) -> Attack:
        def attack(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            seen.append(len(images))
            return torch.full_like(images, value)

        return attack

    class Threshold(nn.Module):
        """Class 1 above 0.5, else class 0."""

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([torch.full((len(images),), 0.5), images.flatten(1)[:, 0]], dim=1)

    images, labels = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1), torch.tensor([0, 0])
    seen: list[int] = []
    both = FirstFooling(attacks=(towards(0.3), towards(0.4)))
    assert both(Threshold(), images, labels, generator()).flatten().tolist() == pytest.approx([0.4, 0.9])
    assert seen == [1, 1]
    seen.clear()
    eager = FirstFooling(attacks=(towards(0.7), towards(0.4)), spares_wrong=False)
    assert eager(Threshold(), images, labels, generator()).flatten().tolist() == pytest.approx([0.7, 0.7])
    assert seen == [2]
    settled = FirstFooling(attacks=(towards(0.7), towards(0.6)), settle=lambda attacked, clean: attacked - 0.3)
    assert settled(Threshold(), images, labels, generator()).flatten().tolist() == pytest.approx([0.3, 0.9])


def test_dlr_by_hand() -> None:
    logits, labels = torch.tensor([[4.0, 3.0, 1.0, 0.0], [4.0, 3.0, 1.0, 0.0]]), torch.tensor([0, 1])
    assert dlr(logits, labels).tolist() == pytest.approx([-1 / 3, 1 / 3])
    assert dlr(10 * logits + 5, labels).tolist() == pytest.approx([-1 / 3, 1 / 3])
    assert targeted_dlr(logits, labels, torch.tensor([3, 0])).tolist() == pytest.approx([-4 / 3.5, 1 / 3.5])


def test_too_few_classes_are_named() -> None:
    class Three(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :3]

    images, labels = torch.rand(2, 1, 2, 2, generator=generator()), torch.tensor([0, 1])
    images[0, 0, 0, 0] = images[1, 0, 0, 1] = 1.0  # so that they resist
    with pytest.raises(SetupError, match="targeted dlr: expected at least 4 classes, got 3; attack with the ce"):
        TargetedApgd(eps=0.1)(Three(), images, labels, generator())
    with pytest.raises(SetupError, match="dlr: expected at least 3 classes, got 2"):
        dlr(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))


def test_checkpoints_of_the_paper() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]


def test_the_squares_of_l2_rise_to_their_middle() -> None:
    edge, middle = 1 / 4, 1 + 1 / 4
    assert pyramid(3, 3).flatten().tolist() == pytest.approx([edge] * 4 + [middle] + [edge] * 4)
    pattern = hill_and_hollow(5)
    assert pattern.square().sum().item() == pytest.approx(1.0)
    assert (pattern[:, :2] > 0).all()
    assert (pattern[:, 2:] < 0).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Apgd(eps=0.1, steps=0), ValueError, "apgd: expected steps of at least 1, got 0"),
        (lambda: Apgd(eps=0.1, loss="margin"), SetupError, "loss: expected one of ce, dlr, got 'margin'"),  # type: ignore[arg-type]
        (lambda: TargetedApgd(eps=0.1, targets=0), ValueError, "apgd: expected targets of at least 1"),
        (lambda: Square(eps=0.1, queries=0), ValueError, "square: expected queries of at least 1"),
        (lambda: Square(eps=0.1, p_init=0), ValueError, "square: expected p_init above 0, at most 1"),
        (lambda: Square(eps=0), ValueError, "square: expected eps above 0, got 0"),
        (lambda: Mim(eps=0.1, steps=0), ValueError, "mim: expected steps of at least 1"),
        (lambda: Mim(eps=0.1, momentum=float("nan")), ValueError, "mim: expected a momentum of at least 0"),
        (lambda: FirstFooling(attacks=()), ValueError, "union: expected at least one attack"),
    ],
)
def test_wrong_settings_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_jsma_changes_what_the_librarys_does(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """Of two classes, where ours, which stops at the first wrong label, and theirs, at the target, are one."""

    class Parity(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = model(images)
            return torch.stack([logits[:, ::2].sum(dim=1), logits[:, 1::2].sum(dim=1)], dim=1)

    two, images = Parity().eval(), batch[0][:30]
    with torch.no_grad():
        labels = two(images).argmax(dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.evasion import SaliencyMapMethod
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            two, nn.CrossEntropyLoss(), (1, 8, 8), 2, clip_values=(0.0, 1.0), device_type="cpu"
        )
        theirs = SaliencyMapMethod(classifier, theta=1.0, gamma=0.9, batch_size=30, verbose=False)
        expected = theirs.generate(images.numpy(), np.eye(2, dtype=np.float32)[1 - labels.numpy()])
    found = Jsma(theta=1.0, gamma=0.9)(two, images, labels, generator())
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-6)
    assert not right(two, found, labels).all()
