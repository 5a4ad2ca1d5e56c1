"""Mining, the metric losses, and the term of a training step."""

import dataclasses
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from service.errors import SetupError
from training.config import Recipe, recipe_from_dict
from training.data import ImageSet
from training.data.batches import ImageSource
from training.losses import TrainingStep, build_terms, see_together
from training.losses.metric import Metric, contrastive, destination, hardness, triplet
from training.losses.weighted import Weighted
from training.models import Classifier, build_model, unit_length
from training.sections import ModelConfig
from training.tuples import ROLES, mine

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(count: int, seed: int, width: int = 5) -> Tensor:
    return unit_length(torch.randn(count, width, generator=generator(seed)))


def at(*degrees: float) -> Tensor:
    """Points of the unit circle."""
    return torch.tensor([[math.cos(math.radians(one)), math.sin(math.radians(one))] for one in degrees])


@pytest.mark.parametrize("seed", range(3))
def test_the_triplet_loss_is_that_of_euclidean_distances(seed: int) -> None:
    a, p, n = (unit(7, 3 * seed + part) for part in range(3))
    oracle = TripletMarginLoss(margin=0.2, distance=LpDistance(normalize_embeddings=False), reducer=MeanReducer())
    rows = torch.arange(7)
    labels = torch.cat([torch.zeros(14), torch.ones(7)])
    expected = oracle(torch.cat([a, p, n]), labels, (rows, rows + 7, rows + 14))
    assert triplet(0.2)(a, p, n).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_hardness_and_losses_of_points_on_the_circle() -> None:
    a, p, n = at(0), at(60), at(180)  # at distances 1 and 2
    assert hardness(a, p, n).item() == pytest.approx(-1)
    assert triplet(0.2)(a, p, n).item() == 0
    assert triplet(1.5)(a, p, n).item() == pytest.approx(0.5)
    assert contrastive(0.5)(a, p, n).item() == pytest.approx(1)
    assert contrastive(0.5)(a, n, a).item() == pytest.approx(4.25, abs=1e-5)
    assert hardness(*(unit(50, seed) for seed in range(3))).min() >= -2


def test_equal_embeddings_have_finite_gradients() -> None:
    same = at(30, 30, 30).requires_grad_(True)
    for loss in (triplet(0.2), contrastive(0.5)):
        (gradient,) = torch.autograd.grad(loss(same[:1], same[1:2], same[2:]).sum(), same)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("loss", "expected"), [(0.0, 0.0), (0.1, -0.1), (0.2, -0.2), (0.4, -0.2)])
def test_the_gradual_adversary_at_loss_0_half_u_and_2_u(loss: float, expected: float) -> None:
    assert destination(loss, 0.2, 0.2) == pytest.approx(expected)


@pytest.mark.parametrize("mining", ["semi-hard", "hard", "random"])
@pytest.mark.parametrize("seed", range(4))
def test_tuples_are_of_the_right_classes(mining: Any, seed: int) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])  # one image of class 3: an anchor without a positive
    tuples = mine(unit(10, seed), labels, mining, 0.2, generator(seed))
    assert tuples.anchors.tolist() == list(range(9))
    assert (labels[tuples.anchors] == labels[tuples.positives]).all()
    assert (tuples.anchors != tuples.positives).all()
    assert (labels[tuples.anchors] != labels[tuples.negatives]).all()


def test_an_anchor_may_have_several_tuples() -> None:
    labels = torch.arange(12) % 3
    tuples = mine(unit(12, 0), labels, "random", 0.2, generator(), count=5)
    assert tuples.anchors.tolist() == list(range(12)) * 5
    assert (labels[tuples.anchors] == labels[tuples.positives]).all()
    assert (labels[tuples.anchors] != labels[tuples.negatives]).all()
    assert not torch.equal(tuples.positives[:12], tuples.positives[12:24])
    places, rows = tuples.used("positive")
    assert torch.equal(places[rows], tuples.positives)
    assert len(places) == len(set(tuples.positives.tolist()))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["one class", "each its own"])
def test_a_batch_without_partners_gives_no_tuple(labels: list[int]) -> None:
    assert len(mine(unit(4, 0), torch.tensor(labels), "semi-hard", 0.2, generator())) == 0


def test_hard_mining_takes_the_nearest_of_another_class() -> None:
    tuples = mine(at(0, 50, 20, 200), torch.tensor([0, 0, 1, 1]), "hard", 0.2, generator())
    assert tuples.negatives.tolist() == [2, 2, 0, 1]


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        ((0, 20, 10, 25), 3),  # one inside the margin, one nearer than the positive
        ((0, 20, 10, 90), 3),  # none inside: the nearest of those beyond
        ((0, 90, 10, 45), 3),  # none beyond: the farthest
    ],
)
def test_semi_hard_mining_and_its_fallbacks(angles: tuple[float, ...], expected: int) -> None:
    for seed in range(5):
        tuples = mine(at(*angles), torch.tensor([0, 0, 1, 2]), "semi-hard", 0.2, generator(seed))
        assert tuples.anchors[0] == 0
        assert tuples.negatives[0] == expected


def recipe(**sections: dict[str, Any]) -> Recipe:
    sizes = {"set": "digits", "train": 100, "fit": 10, "calibration": 10, "fusion": 10}
    table: dict[str, dict[str, Any]] = {"data": sizes, "train": {"epochs": 6}, "attack": {"eps": 0.1}}
    for name, section in sections.items():
        table[name] = {**table.get(name, {}), **section}
    return recipe_from_dict(table)


def term(**metric: Any) -> Metric:
    built = build_terms(recipe(metric={"weight": 1.0, "steps": 2, "tuples": 3, **metric}))["metric"]
    assert isinstance(built, Metric)
    return built


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return build_model(ModelConfig(width=4, embedding_dim=8), 1, 8, 8, classes=4)


def step(model: Classifier, *, classes: int = 4, epoch: int = 5) -> TrainingStep:
    random = np.random.default_rng(0)
    images = ImageSet(
        images=random.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8), labels=np.arange(12, dtype=np.int64) % classes
    )
    source = ImageSource(images, CPU)
    clean = source.take(torch.arange(12))
    return TrainingStep(
        model=model.train(),
        clean=clean,
        attacked=clean,
        labels=source.labels,
        positions=torch.arange(12),
        source=source,
        epoch=epoch,
        generator=generator(),
    )


def value(metric: Metric, given: TrainingStep) -> Tensor:
    """What the training loop makes of a term."""
    wanted = metric.images(given)
    attacked, *others = see_together(given.model, [given.attacked, *wanted])
    return metric(given, attacked, others)


@pytest.mark.parametrize("attack", ["none", "anchor", "positive", "negative", "all", "hardness"])
def test_tuples_are_mined_on_clean_images_and_the_attack_does_not_change_them(model: Classifier, attack: str) -> None:
    given, metric = step(model), term(attack=attack)
    model.eval()
    with torch.no_grad():
        expected = mine(model.embedding(given.clean), given.labels, "semi-hard", 0.2, generator(), count=3)
    model.train()
    images = metric.images(given)
    found = metric.tuples[given]
    moved = {"none": (), "all": ROLES, "hardness": ROLES}.get(attack, (attack,))
    assert [len(part) for part in images] == [12, *(len(expected.of(role).unique()) for role in moved)]
    assert images[0] is given.clean
    for role in ROLES:
        assert torch.equal(found.of(role), expected.of(role))


@pytest.mark.parametrize(
    ("attack", "loss"),
    [*product(["none", *ROLES, "all"], ["triplet", "contrastive"]), ("hardness", "triplet")],
)
def test_the_term_trains_the_embedding_and_leaves_the_model_in_train_mode(
    model: Classifier, attack: str, loss: str
) -> None:
    found = value(term(attack=attack, loss=loss, margin=1.0), step(model))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.isfinite()
    assert all(module.training for module in model.modules())
    first = next(model.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert model.head.weight.grad is None


def test_without_an_attack_it_is_the_plain_loss_of_the_clean_tuples(model: Classifier) -> None:
    given, metric = step(model), term(attack="none", weight=0.5)
    found = value(metric, given)
    (views,) = see_together(model, [given.clean])
    tuples = metric.tuples[given]
    embeddings = unit_length(views.embeddings)
    parts = (embeddings[places] for places in (tuples.anchors, tuples.positives, tuples.negatives))
    assert found.item() == pytest.approx(0.5 * triplet(0.2)(*parts).mean().item(), rel=1e-4)


def test_shares_and_structure_are_added_as_the_formula_has_it(model: Classifier) -> None:
    given = step(model)
    metric = term(attack="anchor", clean_share=0.25, ics_weight=0.5)
    attacked, *others = see_together(model, [given.attacked, *metric.images(given)])
    found = metric(given, attacked, others)
    tuples = metric.tuples[given]
    clean, anchors = (unit_length(views.embeddings) for views in others)
    p, n = clean[tuples.positives], clean[tuples.negatives]
    anchors = anchors[tuples.anchors]  # all twelve are anchors
    expected = 0.75 * triplet(0.2)(anchors, p, n) + 0.25 * triplet(0.2)(clean[tuples.anchors], p, n)
    drift = (clean[tuples.anchors] - anchors).norm(dim=1) - (clean[tuples.anchors] - p).norm(dim=1)
    assert found.item() == pytest.approx((expected + 0.5 * drift.clamp_min(0)).mean().item(), rel=1e-4)


@pytest.mark.parametrize("classes", [1, 12], ids=["one class", "each its own"])
def test_a_batch_without_tuples_gives_0_and_no_nan(model: Classifier, classes: int) -> None:
    found = value(term(attack="anchor"), step(model, classes=classes))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 0
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


def test_the_loss_before_sets_how_hard_tuples_become(model: Classifier) -> None:
    """After a large loss the attack may stop at an easy tuple, after none it goes on to a hardness of 0."""
    hard = []
    for last in (1.0, 0.0):
        metric = term(attack="hardness", steps=20, gamma=2.0)
        metric.last = last
        given = step(model)
        images = metric.images(given)
        model.eval()
        with torch.no_grad():
            tuples = metric.tuples[given]
            embedded = (
                model.embedding(part)[tuples.used(role)[1]] for role, part in zip(ROLES, images[1:], strict=True)
            )
            hard.append(hardness(*embedded).mean().item())
    assert hard[0] < hard[1]


def test_the_budget_rises_with_the_epochs(model: Classifier) -> None:
    changes = []
    for epoch in (0, 1, 2, 5):
        metric = term(attack="anchor", warmup_epochs=2)
        given = step(model, epoch=epoch)
        clean, moved = metric.images(given)
        changes.append(float((moved - clean).abs().max()))
    assert changes == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1], abs=1e-6)


def test_the_classification_loss_goes_or_counts_by_its_weight() -> None:
    alone = recipe(attack={"name": "none"}, metric={"weight": 1.0, "classification_weight": 0.0})
    assert list(build_terms(alone)) == ["metric"]
    half = build_terms(recipe(metric={"weight": 1.0, "classification_weight": 0.5}))
    assert isinstance(half["classification"], Weighted)
    whole = build_terms(recipe(metric={"weight": 1.0}))
    assert not isinstance(whole["classification"], Weighted)
    assert list(build_terms(recipe(metric={"weight": 0.0, "classification_weight": 0.0}))) == ["classification"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"metric": {"margin": -1}}, r"metric\.margin: expected a number of at least 0"),
        ({"metric": {"margin": 2.5}}, r"metric\.margin: expected at most 2, the largest distance"),
        ({"metric": {"gamma": 3}}, r"metric\.gamma: expected at most 2"),
        ({"metric": {"loss_bound": 0}}, r"metric\.loss_bound: expected a number above 0"),
        ({"metric": {"clean_share": 1}}, r"metric\.clean_share: expected a number in \[0, 1\)"),
        ({"metric": {"attack": "hardness", "loss": "contrastive"}}, r"metric\.loss: expected triplet for hardness"),
        (
            {"metric": {"attack": "negative", "ics_weight": 0.5}},
            r"metric\.ics_weight: expected 0 for metric\.attack negative, which leaves the anchor",
        ),
        (
            {"metric": {"weight": 1, "warmup_epochs": 6}},
            r"metric\.warmup_epochs: expected less than train\.epochs, 6, got 6",
        ),
        (
            {"metric": {"weight": 1, "classification_weight": 0}},
            r'attack\.name: expected "none" with metric\.classification_weight = 0, got \'pgd\'',
        ),
        (
            {
                "metric": {"weight": 1, "classification_weight": 0},
                "attack": {"name": "none"},
                "awp": {"weight": 0.01},
            },
            r"awp\.weight: expected 0 with metric\.classification_weight = 0",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(sections: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        recipe(**sections)


def test_margins_are_those_of_the_loss_unless_set() -> None:
    config = recipe(metric={"weight": 1.0}).metric
    assert config.own_margin == 0.2
    assert dataclasses.replace(config, loss="contrastive").own_margin == 0.5
    assert dataclasses.replace(config, margin=0.3).own_margin == 0.3
