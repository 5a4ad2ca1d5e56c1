"""Attacks on the roles of tuples, and on queries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.attacks import Pgd
from training.attacks.objectives import away, margin, toward
from training.attacks.query import QueryClassifier, own_labels
from training.attacks.roles import RoleAttack, toward_hardness
from training.losses.metric import contrastive, hardness, triplet
from training.models import Classifier, build_model
from training.sections import ModelConfig
from training.tuples import ROLES, Tuples

EPS = 0.1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return build_model(ModelConfig(width=4, embedding_dim=8), 1, 8, 8, classes=4)


TUPLES = Tuples(
    anchors=torch.tensor([0, 1, 2, 3, 0, 1]),
    positives=torch.tensor([1, 0, 3, 2, 1, 5]),
    negatives=torch.tensor([2, 3, 0, 1, 4, 4]),
)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 8, 8, generator=generator())


def embedded(model: Classifier, images: Tensor, attacked: dict[str, Tensor]) -> list[Tensor]:
    """Of the tuples with these images in the place of the clean ones."""
    model.eval()
    parts = []
    with torch.no_grad():
        for role in ROLES:
            places, rows = TUPLES.used(role)
            parts.append(model.embedding(attacked.get(role, images[places]))[rows])
    return parts


def roles(**changed: object) -> RoleAttack:
    given = {"norm": "linf", "eps": EPS, "steps": 5, "loss": triplet(0.2), **changed}
    return RoleAttack(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("role", [*ROLES, "all"])
def test_only_the_role_moves_and_it_keeps_to_the_ball(model: Classifier, images: Tensor, role: str, norm: str) -> None:
    before = images.clone()
    attacked = roles(role=role, norm=norm)(model, images, TUPLES, generator())
    assert torch.equal(before, images)
    assert list(attacked) == (list(ROLES) if role == "all" else [role])
    for name, after in attacked.items():
        change = (after - images[TUPLES.used(name)[0]]).flatten(1)
        sizes = change.abs().amax(dim=1) if norm == "linf" else change.norm(dim=1)
        assert 0 < sizes.min() <= sizes.max() <= EPS + 1e-6
        assert after.min() >= 0
        assert after.max() <= 1


@pytest.mark.parametrize("loss", [triplet(0.2), contrastive(0.5)], ids=["triplet", "contrastive"])
@pytest.mark.parametrize("role", [*ROLES, "all"])
def test_the_attack_raises_the_loss_of_its_tuples(
    model: Classifier, images: Tensor, role: str, loss: Callable[..., Tensor]
) -> None:
    attacked = roles(role=role, loss=loss)(model, images, TUPLES, generator())
    assert loss(*embedded(model, images, attacked)).mean() > loss(*embedded(model, images, {})).mean()


def test_what_is_compared_has_unit_length_and_only_the_role_has_a_gradient(model: Classifier, images: Tensor) -> None:
    seen = []

    def loss(*parts: Tensor) -> Tensor:
        seen.append(parts)
        return triplet(0.2)(*parts)

    roles(role="positive", loss=loss, steps=3)(model, images, TUPLES, generator())
    assert len(seen) == 3
    for parts in seen:
        assert [part.requires_grad for part in parts] == [False, True, False]
        for part in parts:
            torch.testing.assert_close(part.norm(dim=1), torch.ones(6))
    assert torch.equal(seen[0][0], seen[2][0])


def test_the_model_is_left_as_it_was(model: Classifier, images: Tensor) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    roles()(model, images, TUPLES, generator())
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_gradient_of_hardness_is_0_once_it_has_reached_its_destination() -> None:
    unit = torch.eye(3)
    parts = [unit[:1].clone().requires_grad_(True) for _ in range(3)]
    with torch.no_grad():
        parts[1].copy_(torch.tensor([[0.6, 0.8, 0.0]]))
        parts[2].copy_(torch.tensor([[0.0, 0.0, 1.0]]))
    found = float(hardness(*parts).detach())
    for target, moves in ((found - 0.01, False), (found, False), (found + 0.01, True)):
        gradients = torch.autograd.grad(toward_hardness(hardness, target)(*parts).sum(), parts)
        assert any(bool(gradient.any()) for gradient in gradients) is moves


def test_tuples_as_hard_as_asked_stay_at_their_random_start(model: Classifier, images: Tensor) -> None:
    """Signs of a zero gradient are 0: no step is taken, and the result does not depend on their number."""
    easy = toward_hardness(hardness, -2.0)
    one, many = (roles(role="all", loss=easy, steps=steps)(model, images, TUPLES, generator()) for steps in (1, 7))
    assert all(torch.equal(one[role], many[role]) for role in ROLES)
    hard = toward_hardness(hardness, 2.0)
    raised = roles(role="all", loss=hard, steps=7)(model, images, TUPLES, generator())
    assert hardness(*embedded(model, images, raised)).mean() > hardness(*embedded(model, images, many)).mean()


LOGITS = torch.tensor([[1.0, 3.0, -2.0], [0.5, -4.0, 0.0]])
LABELS = torch.tensor([1, 0])


def test_away_lowers_the_own_logit_and_toward_raises_the_largest_other() -> None:
    assert away(LOGITS, LABELS).tolist() == [-3.0, -0.5]
    assert toward(LOGITS, LABELS).tolist() == [1.0, 0.0]
    assert torch.equal(margin(LOGITS, LABELS), away(LOGITS, LABELS) + toward(LOGITS, LABELS))


@pytest.fixture
def queries(model: Classifier) -> tuple[QueryClassifier, Tensor]:
    images = torch.rand(6, 1, 8, 8, generator=generator(5))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    model.eval()
    with torch.no_grad():
        gallery = model.embedding(images)
    same = labels[:, None] == labels[None, :]
    return QueryClassifier(model, gallery, same & ~torch.eye(6, dtype=torch.bool), ~same), images


def test_a_query_is_told_its_two_nearest_distances(queries: tuple[QueryClassifier, Tensor]) -> None:
    classifier, images = queries
    with torch.no_grad():
        found = classifier(images)
        embeddings = classifier.model.embedding(images)
    distances = torch.cdist(embeddings, embeddings)
    for row in range(6):
        own, other = distances[row][classifier.own[row]].min(), distances[row][classifier.other[row]].min()
        assert found[row].tolist() == pytest.approx([-own.item(), -other.item()], abs=1e-3)


@pytest.mark.parametrize("aim", ["away", "toward", "margin"])
def test_each_aim_reaches_what_it_is_after(queries: tuple[QueryClassifier, Tensor], aim: str) -> None:
    classifier, images = queries
    labels = own_labels(len(images), images.device)
    attack = Pgd(eps=EPS, steps=10, loss=aim, keep_worst=True)  # type: ignore[arg-type]
    attacked = attack(classifier, images, labels, generator())
    objective = {"away": away, "toward": toward, "margin": margin}[aim]
    with torch.no_grad():
        assert objective(classifier(attacked), labels).mean() > objective(classifier(images), labels).mean()
    assert (attacked - images).abs().max() <= EPS + 1e-6
