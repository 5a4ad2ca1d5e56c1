import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from tests.training.attacks.adaptive.toys import Digits, generator, two_logits
from training.attacks.adaptive import Confident, Deep, Lagrangian, Orthogonal, Rule, Selective, aim_at
from training.attacks.adaptive.look import Look
from training.attacks.adaptive.rules import without

PLACE = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
TOWARDS = torch.tensor([1.0, 2.0, 0.0, -1.0], dtype=torch.float64)
NOTICE = torch.tensor([3.0, 0.0, 1.0, 1.0], dtype=torch.float64)


def look_at(label: Tensor, notice: Tensor, *, crossed: bool, step: int = 0) -> Look:
    """One image of four pixels whose margin and suspicion are linear with these gradients."""

    def target(images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.flatten(1)
        margins = flat @ label - float(PLACE @ label) + (-1.0 if crossed else 1.0)
        return torch.stack([margins, torch.zeros_like(margins), torch.full_like(margins, -9.0)], dim=1), flat @ notice

    aim = aim_at(torch.tensor([0]))
    return Look.at(PLACE.view(1, 1, 2, 2), target=target, aim=aim, guide=None, kappa=0.05, step=step)


def uphill(rule: Rule, *, crossed: bool, label: Tensor = TOWARDS, notice: Tensor = NOTICE, step: int = 0) -> Tensor:
    return rule.uphill(look_at(label, notice, crossed=crossed, step=step)).flatten()


def test_selective_goes_for_one_at_a_time() -> None:
    assert uphill(Selective(), crossed=False).tolist() == pytest.approx(TOWARDS.tolist())
    assert uphill(Selective(), crossed=True).tolist() == pytest.approx(NOTICE.tolist())


def test_the_label_counts_as_settled_only_beyond_kappa() -> None:
    def target(images: Tensor) -> tuple[Tensor, Tensor]:
        return two_logits(images.flatten(1)[:, 0]), images.flatten(1)[:, 0]

    places = torch.tensor([0.1, 0.0, -0.04, -0.06]).view(4, 1, 1, 1)
    aim = aim_at(torch.zeros(4, dtype=torch.long))
    look = Look.at(places, target=target, aim=aim, guide=None, kappa=0.05, step=0)
    assert look.crossed.tolist() == [False, False, False, True]


@pytest.mark.parametrize("crossed", [False, True])
def test_both_projections_are_orthogonal_to_the_other_gradient(crossed: bool) -> None:
    other, own = (TOWARDS, NOTICE) if crossed else (NOTICE, TOWARDS)
    direction = uphill(Orthogonal(), crossed=crossed)
    assert float(direction @ other) == pytest.approx(0, abs=1e-6)
    assert direction.tolist() == pytest.approx((own - (own @ other) / (other @ other) * other).tolist(), abs=1e-6)
    assert float(direction @ own) > 0


@pytest.mark.parametrize(
    ("projects", "crossed", "orthogonal"),
    [
        ("classifier", False, True),
        ("classifier", True, False),
        ("detector", False, False),
        ("detector", True, True),
    ],
)
def test_one_sided_forms_leave_one_gradient_as_it_is(projects: str, crossed: bool, orthogonal: bool) -> None:
    other, own = (TOWARDS, NOTICE) if crossed else (NOTICE, TOWARDS)
    direction = uphill(Orthogonal(projects=projects), crossed=crossed)  # type: ignore[arg-type]
    if orthogonal:
        assert float(direction @ other) == pytest.approx(0, abs=1e-6)
    else:
        assert direction.tolist() == pytest.approx(own.tolist())


def test_orthogonality_on_a_network(digits: Digits) -> None:
    aim = aim_at(digits.labels)
    look = Look.at(digits.images, target=digits.target, aim=aim, guide=None, kappa=0.05, step=0)
    label, notice = look.gradient(look.margins).flatten(1), look.gradient(look.guide).flatten(1)
    direction = Orthogonal().uphill(look).flatten(1)
    other = torch.where(look.crossed[:, None], label, notice)
    cosines = torch.nn.functional.cosine_similarity(direction, other, dim=1)
    assert cosines.abs().max() < 1e-3


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("factor", [1.0, -2.0, 1e-30])
def test_collinear_gradients_are_descended_as_they_are(crossed: bool, factor: float) -> None:
    direction = uphill(Orthogonal(), crossed=crossed, notice=factor * TOWARDS)
    assert direction.tolist() == pytest.approx((factor * TOWARDS if crossed else TOWARDS).tolist())


@pytest.mark.parametrize("rule", [Selective(), Orthogonal(), Lagrangian(weight=1.0), Deep()])
@pytest.mark.parametrize("crossed", [False, True])
def test_gradients_of_0_give_no_nan(rule: Rule, crossed: bool) -> None:
    nothing = torch.zeros_like(TOWARDS)
    for label, notice in ((TOWARDS, nothing), (nothing, NOTICE), (nothing, nothing)):
        assert torch.isfinite(uphill(rule, crossed=crossed, label=label, notice=notice)).all()


def test_tiny_gradients_are_still_projected() -> None:
    gradients, others = (1e-25 * torch.randn(2, 1, 3, 3, generator=generator(i)) for i in (0, 1))
    freed = without(gradients, others)
    cosines = torch.nn.functional.cosine_similarity(1e25 * freed.flatten(1), 1e25 * others.flatten(1))
    assert cosines.abs().max() < 1e-5


def test_the_lagrangian_weighs_the_suspicion_in_its_unit() -> None:
    rule = Lagrangian(weight=0.5, scale=4.0)
    assert uphill(rule, crossed=False).tolist() == pytest.approx((TOWARDS + 0.125 * NOTICE).tolist())
    assert uphill(rule, crossed=True).tolist() == pytest.approx((0.125 * NOTICE).tolist())
    raw = Lagrangian(weight=torch.tensor([0.5]), scale=4.0, saturates=False)
    assert uphill(raw, crossed=True).tolist() == pytest.approx((TOWARDS + 0.125 * NOTICE).tolist())


def test_deep_takes_lead_and_suspicion_by_turns() -> None:
    assert uphill(Deep(), crossed=False).tolist() == pytest.approx(TOWARDS.tolist())
    assert uphill(Deep(), crossed=True, step=1).tolist() == pytest.approx(NOTICE.tolist())
    # The wrong logit is 0 and leads by 1: raising its lead lowers the true one.
    assert uphill(Deep(), crossed=True, step=0).tolist() == pytest.approx(TOWARDS.tolist())


def test_confident_raises_its_class() -> None:
    direction = uphill(Confident(targets=torch.tensor([0])), crossed=False)
    assert float(direction @ TOWARDS) < 0
    assert torch.nn.functional.cosine_similarity(-direction, TOWARDS, dim=0) == pytest.approx(1)


def test_another_projection_is_refused() -> None:
    with pytest.raises(SetupError, match="projects: expected one of both, classifier, detector, got 'none'"):
        Orthogonal(projects="none")  # type: ignore[arg-type]


def test_a_target_without_gradient_is_refused() -> None:
    def hard(images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(len(images), 2), torch.zeros(len(images))

    look = Look.at(torch.zeros(1, 1, 2, 2), target=hard, aim=aim_at(torch.tensor([0])), guide=None, kappa=0, step=0)
    with pytest.raises(SetupError, match="expected logits and suspicion with a gradient, got one without; attack a"):
        Orthogonal().uphill(look)


def test_a_gradient_that_is_not_finite_counts_as_0() -> None:
    def root(images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.flatten(1)
        return flat[:, :2], flat.clamp_min(0).sqrt().sum(dim=1)

    images = torch.tensor([0.0, 0.25]).view(1, 1, 1, 2)
    look = Look.at(images, target=root, aim=aim_at(torch.tensor([0])), guide=None, kappa=0, step=0)
    assert look.gradient(look.guide).flatten().tolist() == [0.0, 1.0]
