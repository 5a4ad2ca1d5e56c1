import copy

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from service.errors import SetupError
from tests import reference
from training.config import Recipe, recipe_from_dict
from training.data import ImageSet
from training.data.batches import ImageSource
from training.losses import LossTerm, TrainingStep, build_terms, see_together
from training.losses.tla import Tla, distances, hardest_negatives, random_negatives, triplet_term
from training.models import Classifier, build_model
from training.sections import ModelConfig

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gauss(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def recipe(**tla: object) -> Recipe:
    sizes = {"set": "digits", "train": 100, "fit": 10, "calibration": 10, "fusion": 10}
    return recipe_from_dict({"data": sizes, "train": {"epochs": 1}, "attack": {"eps": 0.1}, "tla": tla})


def test_the_triplet_of_the_paper_takes_the_absolute_cosine() -> None:
    anchor, positive, negative = (torch.tensor([values]) for values in ([1.0, 0.0], [0.6, 0.8], [-0.8, 0.6]))
    assert distances(anchor, positive).item() == pytest.approx(0.4)
    assert distances(anchor, negative).item() == pytest.approx(0.2)
    term = triplet_term(anchor, positive, negative, margin=0.03, norm_weight=0.0)
    assert term.item() == pytest.approx(0.23)  # a signed cosine would give 0


def test_distance_ignores_length_and_sign() -> None:
    vectors = gauss(5, 3)
    assert torch.allclose(distances(vectors, -2 * vectors), torch.zeros(5, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_triplet_term_equals_a_plain_loop(seed: int) -> None:
    a, p, n = (gauss(7, 4, seed=3 * seed + part) for part in range(3))
    expected = reference.triplet(a.tolist(), p.tolist(), n.tolist(), 0.3, 0.01)
    assert triplet_term(a, p, n, margin=0.3, norm_weight=0.01).item() == pytest.approx(expected)


def test_on_non_negative_embeddings_it_is_the_usual_cosine_triplet() -> None:
    a, p, n = (gauss(6, 8, seed=seed).abs() for seed in range(3))
    oracle = TripletMarginLoss(margin=0.3, distance=CosineSimilarity(), reducer=MeanReducer())
    labels = torch.cat([torch.zeros(12), torch.ones(6)])
    rows = torch.arange(6)
    expected = oracle(torch.cat([a, p, n]), labels, (rows, rows + 6, rows + 12))
    assert triplet_term(a, p, n, margin=0.3, norm_weight=0.0).item() == pytest.approx(expected.item())


def test_zero_embeddings_have_finite_gradients() -> None:
    zeros = torch.zeros(2, 3, requires_grad=True)
    triplet_term(zeros, torch.ones(2, 3), torch.ones(2, 3), margin=0.1, norm_weight=0.1).backward()  # type: ignore[no-untyped-call]
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


POOL = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-0.6, 0.8]])
POOL_LABELS = torch.tensor([0, 1, 1])


@pytest.mark.parametrize(("mine_by", "expected"), [("cosine", 2), ("distance", 1)])
def test_mining_takes_the_nearest_of_another_class(mine_by: str, expected: int) -> None:
    anchor, label = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    chosen = hardest_negatives(anchor, label, POOL, POOL_LABELS, mine_by=mine_by)  # type: ignore[arg-type]
    assert chosen.tolist() == [expected]


@pytest.mark.parametrize("mine_by", ["cosine", "distance"])
@pytest.mark.parametrize("seed", range(4))
def test_mining_equals_a_plain_loop_and_never_takes_the_own_class(seed: int, mine_by: str) -> None:
    anchors, pool = gauss(6, 3, seed=seed), gauss(20, 3, seed=seed + 50)
    labels, pool_labels = torch.arange(6) % 3, torch.arange(20) % 3
    chosen = hardest_negatives(anchors, labels, pool, pool_labels, mine_by=mine_by)  # type: ignore[arg-type]
    assert (pool_labels[chosen] != labels).all()
    assert chosen.tolist() == [
        reference.hardest_negative(anchor, label, pool.tolist(), pool_labels.tolist(), mine_by=mine_by)
        for anchor, label in zip(anchors.tolist(), labels.tolist(), strict=True)
    ]


def test_mining_computes_in_float32_whatever_surrounds_it() -> None:
    near = torch.randn(1, 64, generator=generator(1))
    anchors, pool = near.repeat(4, 1), near + 0.02 * torch.randn(200, 64, generator=generator(2))
    labels, pool_labels = torch.zeros(4, dtype=torch.long), torch.ones(200, dtype=torch.long)
    plain = hardest_negatives(anchors, labels, pool, pool_labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hardest_negatives(anchors, labels, pool, pool_labels), plain)


def test_a_pool_of_one_class_is_an_error_that_says_so() -> None:
    with pytest.raises(SetupError, match=r"tla\.pool: expected images of another class among 2, got one class"):
        hardest_negatives(POOL[:1], torch.tensor([1]), POOL[1:], POOL_LABELS[1:])


def step(model: Classifier) -> TrainingStep:
    random = np.random.default_rng(0)
    images = ImageSet(
        images=random.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8),
        labels=np.arange(40, dtype=np.int64) % 4,
    )
    source = ImageSource(images, CPU)
    clean, labels = source.take(torch.arange(10)), source.labels[:10]
    attacked = (clean + 0.05).clamp(0, 1)
    return TrainingStep(
        model=model,
        clean=clean,
        attacked=attacked,
        labels=labels,
        positions=torch.arange(10),
        source=source,
        epoch=0,
        generator=generator(),
    )


def value(tla: LossTerm, given: TrainingStep) -> torch.Tensor:
    """What the training loop makes of a term."""
    wanted = tla.images(given)
    attacked, *others = see_together(given.model, [given.attacked, *wanted])
    return tla(given, attacked, others)


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return build_model(ModelConfig(width=4, embedding_dim=8), 1, 8, 8, classes=4)


def term(**changed: object) -> Tla:
    built = build_terms(recipe(**{"weight": 0.5, "pool": 20, **changed}))
    assert list(built) == ["classification", "tla"]
    assert isinstance(built["tla"], Tla)
    return built["tla"]


@pytest.mark.parametrize("kinds", [["own"], ["other"], ["own", "other"]], ids=str)
def test_the_term_trains_the_model_and_leaves_it_in_train_mode(model: Classifier, kinds: list[str]) -> None:
    loss = value(term(kinds=kinds), step(model))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.shape == ()
    assert all(module.training for module in model.modules())
    first = next(model.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_the_weight_multiplies_the_whole_term(model: Classifier) -> None:
    same = copy.deepcopy(model)
    single = value(term(), step(model)).item()
    double = value(term(weight=1.0), step(same)).item()
    assert double == pytest.approx(2 * single)


def test_the_network_that_is_trained_is_the_one_that_is_attacked_and_exported(model: Classifier) -> None:
    """Running statistics of one pass are those of all its images; separate passes would mix several kinds."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the last pass alone
    given = step(model)
    images = [given.attacked, *term().images(given)]
    with torch.no_grad():
        trained = torch.cat([views.embeddings for views in see_together(model, images)])
        exported = model.eval().embed(torch.cat(images))
    # the running variance is the unbiased one, n / (n - 1) of the batch's
    torch.testing.assert_close(exported, trained, rtol=0.05, atol=0.05 * float(trained.abs().max()))


def test_mining_moves_no_batch_statistics(model: Classifier) -> None:
    given = step(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    term()._negatives(given)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize("seed", range(3))
def test_random_negatives_are_of_another_class_and_reach_all_of_it(seed: int) -> None:
    labels, pool_labels = torch.arange(300) % 2, torch.tensor([0, 1, 2, 2])
    chosen = random_negatives(labels, pool_labels, generator(seed))
    assert (pool_labels[chosen] != labels).all()
    assert set(chosen.tolist()) == {0, 1, 2, 3}


def test_random_negatives_refuse_a_pool_of_one_class() -> None:
    with pytest.raises(SetupError, match=r"tla\.pool: expected images of another class among 2, got one class"):
        random_negatives(torch.tensor([1]), torch.tensor([1, 1]), generator())


def test_switched_triplets_have_the_clean_image_as_anchor(model: Classifier) -> None:
    given = step(model)
    switched = term(switched=True, kinds=["own"], own_noise=False)
    attacked, negatives, clean = see_together(model, [given.attacked, *switched.images(given)])
    expected = triplet_term(
        clean.embeddings, attacked.embeddings, negatives.embeddings, margin=switched.margin, norm_weight=1e-3
    )
    assert switched(given, attacked, [negatives, clean]).item() == pytest.approx(0.5 * expected.item())
    other = triplet_term(
        attacked.embeddings, clean.embeddings, negatives.embeddings, margin=switched.margin, norm_weight=1e-3
    )
    assert expected.item() != pytest.approx(other.item())


def test_without_noise_the_own_image_is_the_very_clean_one(model: Classifier) -> None:
    given = step(model)
    images = term(own_noise=False, kinds=["own"]).images(given)
    assert images[1] is given.clean


def test_the_other_positive_is_another_image_of_the_class(model: Classifier) -> None:
    given = step(model)
    for seed in range(5):
        positions = given.source.draw_other_of_class(given.positions, generator(seed))
        assert torch.equal(given.source.labels[positions], given.labels)
        assert (positions != given.positions).all()


def test_noise_on_the_own_image_is_that_of_the_attack(model: Classifier) -> None:
    given = step(model)
    own = term()._own(given)
    assert 0.09 < (own - given.clean).abs().max() <= 0.1 + 1e-6
    assert own.min() >= 0
    assert own.max() <= 1
