from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks import ATTACKS, Attack, Fgsm, NFgsm, Pgd, build_attack
from training.attacks.objectives import margin
from training.attacks.threat import NORMS, named_norm
from training.methods import AttackConfig
from training.models import build_model
from training.sections import ModelConfig

TABLE: dict[str, list[tuple[str, Attack, float]]] = {
    # name -> (id, attack, how far it may go in its norm)
    "pgd": [
        ("linf", Pgd(eps=0.1, steps=3), 0.1),
        ("l2", Pgd(norm="l2", eps=0.7, steps=3), 0.7),
        ("margin restarts", Pgd(eps=0.1, steps=2, restarts=3, loss="margin"), 0.1),
    ],
    "fgsm": [("linf", Fgsm(eps=0.1), 0.1), ("l2", Fgsm(norm="l2", eps=0.7), 0.7)],
    "n_fgsm": [("linf", NFgsm(eps=0.1), 0.3)],
}
ROWS = [(f"{name} {label}", attack, reach) for name, rows in TABLE.items() for label, attack, reach in rows]
EVERY = pytest.mark.parametrize(("attack", "reach"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(width=4), 1, 8, 8, classes=4)


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 1, 8, 8, generator=generator(5)), torch.arange(count) % 4


class Linear(nn.Module):
    """Two classes, logits (0, w . x): everything about an attack on it is known."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        second = images.flatten(1) @ self.weights
        return torch.stack([torch.zeros_like(second), second], dim=1)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


FIRST = torch.tensor([0])


def test_every_attack_has_its_row() -> None:
    assert list(TABLE) == list(ATTACKS)


@EVERY
def test_attacked_images_keep_to_the_ball_and_the_box(model: nn.Module, attack: Attack, reach: float) -> None:
    images, labels = batch()
    attacked = attack(model, images, labels, generator())
    norm = named_norm(getattr(attack, "norm", "linf"))
    assert attacked.shape == images.shape
    assert not attacked.requires_grad
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert norm.size(attacked - images).max() <= reach + 1e-6
    assert norm.size(attacked - images).min() > 0


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_found(model: nn.Module, attack: Attack, reach: float, training: bool) -> None:
    model.train(training)
    model.stages[1].eval()  # type: ignore[index, operator, union-attr]
    model.head.bias.requires_grad_(False)  # type: ignore[union-attr, operator]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.random.get_rng_state()
    attack(model, *batch(), generator())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@EVERY
def test_the_generator_decides(model: nn.Module, attack: Attack, reach: float) -> None:
    first, again = (attack(model, *batch(), generator(3)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    "attack",
    [
        Pgd(eps=0.1, steps=3, random_start=False),
        Pgd(norm="l2", eps=0.5, steps=3, random_start=False),
        Fgsm(eps=0.1),
    ],
    ids=["pgd linf", "pgd l2", "fgsm"],
)
def test_a_permuted_batch_gives_permuted_images(model: nn.Module, attack: Attack) -> None:
    images, labels = batch()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    straight = attack(model, images, labels, generator())
    turned = attack(model, images[order], labels[order], generator())
    assert torch.allclose(turned, straight[order], atol=1e-6)


def test_attacks_work_where_gradients_are_off(model: nn.Module) -> None:
    with torch.no_grad():
        attacked = Pgd(eps=0.1, steps=1)(model, *batch(), generator())
    assert not attacked.requires_grad


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (Fgsm(eps=0.25), (0.75, 0.65)),
        (Pgd(eps=0.25, steps=5), (0.75, 0.65)),
        (Fgsm(norm="l2", eps=0.3), (0.5 + 0.3 * 0.6, 0.9 - 0.3 * 0.8)),
        (Pgd(norm="l2", eps=0.3, step=0.3, steps=20), (0.5 + 0.3 * 0.6, 0.9 - 0.3 * 0.8)),
        (Fgsm(eps=0.6), (1.0, 0.3)),
    ],
    ids=["fgsm linf", "pgd linf", "fgsm l2", "pgd l2", "fgsm box"],
)
def test_a_linear_model_is_attacked_along_its_weights(attack: Attack, expected: tuple[float, float]) -> None:
    attacked = attack(Linear(3, -4), pixels(0.5, 0.9), FIRST, generator())
    assert attacked.flatten().tolist() == pytest.approx(expected, abs=1e-4)


def test_n_fgsm_without_noise_is_fgsm() -> None:
    model, images = Linear(3, -4, 1), pixels(0.5, 0.5, 0.9)
    quiet = NFgsm(eps=0.25, k=0)(model, images, FIRST, generator())
    assert torch.equal(quiet, Fgsm(eps=0.25)(model, images, FIRST, generator()))


def test_n_fgsm_may_leave_the_ball() -> None:
    images = torch.full((50, 1, 1, 3), 0.5)
    attacked = NFgsm(eps=0.1)(Linear(3, -4, 1), images, torch.zeros(50, dtype=torch.long), generator())
    assert 0.2 < (attacked - images).abs().max() <= 0.3 + 1e-6


class Hills(nn.Module):
    """One pixel: a fooling hollow near 0.42, and a higher loss that does not fool never exists elsewhere.

    Class 0 wins except for pixels in (0.40, 0.45); a gradient step from there leaves the hollow.
    """

    def forward(self, images: Tensor) -> Tensor:
        pixel = images.flatten(1)[:, 0]
        inside = ((pixel > 0.40) & (pixel < 0.45)).float()
        second = pixel - 1.5 + 2 * inside
        return torch.stack([torch.zeros_like(second), second], dim=1)


def test_the_iterate_that_fools_is_kept_not_the_last() -> None:
    images, labels = torch.full((1, 1, 1, 1), 0.42), torch.tensor([0])
    last = Pgd(eps=0.3, step=0.2, steps=2, random_start=False)(Hills(), images, labels, generator())
    kept = Pgd(eps=0.3, step=0.2, steps=2, random_start=False, keep_worst=True)(Hills(), images, labels, generator())
    assert last.item() == pytest.approx(0.72)
    assert kept.item() == pytest.approx(0.42)


def test_without_a_fooling_iterate_the_highest_loss_is_kept() -> None:
    images, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    kept = Pgd(eps=0.3, step=0.1, steps=5, restarts=4)(Hills(), images, labels, generator())
    assert kept.item() == pytest.approx(0.8)


def test_restarts_are_never_weaker(model: nn.Module) -> None:
    images, labels = batch(40)
    model.eval()
    one = Pgd(eps=0.1, steps=2)(model, images, labels, generator())
    many = Pgd(eps=0.1, steps=2, restarts=5)(model, images, labels, generator())
    fooled = [(model(attacked).argmax(dim=1) != labels).sum() for attacked in (one, many)]
    assert fooled[1] >= fooled[0]


def test_margin_is_the_best_other_logit_minus_the_true_one() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 1.0]])
    assert margin(logits, torch.tensor([0, 0])).tolist() == [2.0, -4.0]


def test_l2_starts_fill_the_ball() -> None:
    images = torch.zeros(4000, 1, 1, 2)
    sizes = NORMS["l2"].size(NORMS["l2"].random_start(images, 2.0, generator()))
    assert sizes.max() <= 2.0 + 1e-6
    assert (sizes < 1.0).float().mean().item() == pytest.approx(0.25, abs=0.03)  # area grows with the square


def test_l2_steps_survive_vanishing_gradients() -> None:
    tiny = torch.tensor([3e-25, 4e-25, 0.0, 0.0]).view(2, 1, 1, 2)
    assert torch.allclose(NORMS["l2"].steepest(tiny).flatten(), torch.tensor([0.6, 0.8, 0.0, 0.0]))


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_idempotent_and_keeps_what_is_inside(norm: str) -> None:
    deltas = torch.randn(20, 1, 2, 2, generator=generator())
    once = NORMS[norm].project(deltas, 0.8)
    assert NORMS[norm].size(once).max() <= 0.8 + 1e-6
    assert torch.allclose(NORMS[norm].project(once, 0.8), once)
    assert torch.equal(NORMS[norm].project(deltas, 100.0), deltas)


def test_a_recipe_builds_its_attack() -> None:
    config = AttackConfig(eps=0.1)
    assert build_attack(config) == Pgd(eps=0.1)
    assert build_attack(replace(config, name="fgsm", norm="l2")) == Fgsm(norm="l2", eps=0.1)
    assert build_attack(replace(config, name="n_fgsm", step=0.2)) == NFgsm(eps=0.1, step=0.2)
    assert build_attack(replace(config, name="none")) is None
    with pytest.raises(SetupError, match=r"attack\.name: expected one of pgd, fgsm, n_fgsm or none, got 'pdg'"):
        build_attack(replace(config, name="pdg"))
    with pytest.raises(SetupError, match=r"attack\.norm: expected linf for n_fgsm, got l2"):
        build_attack(replace(config, name="n_fgsm", norm="l2"))
    with pytest.raises(SetupError, match=r"attack\.step: expected 0 or eps for fgsm, got 0\.02"):
        build_attack(replace(config, name="fgsm", step=0.02))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Pgd(eps=float("nan")), ValueError, "pgd: expected eps above 0, got nan"),
        (lambda: Pgd(eps=0.1, step=-1), ValueError, "pgd: expected a step of at least 0"),
        (lambda: Pgd(eps=0.1, steps=0), ValueError, "pgd: expected steps of at least 1"),
        (lambda: Pgd(eps=0.1, restarts=0), ValueError, "pgd: expected restarts of at least 1"),
        (lambda: Pgd(eps=0.1, norm="l1"), SetupError, "norm: expected one of linf, l2, got 'l1'"),  # type: ignore[arg-type]
        (lambda: Pgd(eps=0.1, loss="dlr"), SetupError, "loss: expected one of ce, margin, away, toward, got 'dlr'"),  # type: ignore[arg-type]
        (lambda: NFgsm(eps=0.1, k=float("nan")), ValueError, "n_fgsm: expected k of at least 0"),
    ],
    ids=["eps", "step", "steps", "restarts", "norm", "loss", "k"],
)
def test_wrong_settings_are_refused(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
