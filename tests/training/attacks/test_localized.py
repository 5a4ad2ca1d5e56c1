"""A confined attack leaves the rest of the image alone, and one that is confined to nothing is the attack itself."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks import Fgsm, FirstFooling, Pgd
from training.attacks.localized import Localized, PartOf, confined, shares_of
from training.attacks.rounding import from_8_bit, levels, to_8_bit
from training.attacks.threat import named_norm
from training.evaluation.eight_bit import EightBit, Settled
from training.masks import BoxMasks, PixelMasks
from training.models import build_model
from training.sections import ModelConfig

ATTACKS: dict[str, Pgd | Fgsm] = {
    "pgd": Pgd(eps=0.1, steps=3),
    "restarts": Pgd(eps=0.1, steps=2, restarts=3, loss="margin"),
    "one step": Pgd(eps=0.1, steps=1, step=0.5),
    "kl": Pgd(eps=0.1, steps=2, loss="kl", random_start=False),
    "l2": Pgd(norm="l2", eps=0.7, steps=3),
    "l2 restarts": Pgd(norm="l2", eps=0.7, steps=2, restarts=2),
    "fgsm": Fgsm(eps=0.1),
    "fgsm l2": Fgsm(norm="l2", eps=0.7),
}
EVERY = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(ModelConfig(width=4), 3, 8, 8, classes=4).eval()


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    images = from_8_bit(torch.randint(0, 256, (count, 8, 8, 3), generator=generator(5), dtype=torch.uint8))
    return images, torch.arange(count) % 4


def masks_of(background: Tensor) -> "Given":
    return Given(background)


class Given:
    """Hands out masks that were made before."""

    def __init__(self, background: Tensor) -> None:
        self.background = background

    def __call__(self, images: Tensor) -> Tensor:
        return self.background.expand(len(images), 1, 8, 8)


HALF = (torch.arange(64).view(1, 1, 8, 8) % 3) == 0


@EVERY
@pytest.mark.parametrize("region", ["background", "foreground"])
def test_outside_of_the_region_nothing_changes_and_inside_the_budget_holds(
    model: nn.Module, attack: Pgd | Fgsm, region: str
) -> None:
    images, labels = batch()
    masks = masks_of(HALF)
    found = Localized(attack=attack, masks=masks, region=region)(model, images, labels, generator())  # type: ignore[arg-type]
    outside = (HALF if region == "foreground" else ~HALF).expand_as(images)
    assert torch.equal(found[outside], images[outside])
    assert not torch.equal(found[~outside], images[~outside])
    assert (named_norm(attack.norm).size(found - images) <= attack.eps + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1
    rounded = to_8_bit(found, images, attack.norm, attack.eps)
    before = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(rounded[outside.permute(0, 2, 3, 1)], before[outside.permute(0, 2, 3, 1)])
    if attack.norm == "linf":
        assert (rounded.int() - before.int()).abs().max() <= levels(attack.eps)


def test_the_random_start_keeps_to_the_region_too() -> None:
    images, _ = batch()
    part = PartOf(norm=named_norm("linf"), shares=shares_of(HALF, "background"))
    start = part.random_start(images, 0.3, generator())
    assert (start * ~HALF).abs().max() == 0
    assert (start * HALF).abs().max() > 0.2


@EVERY
def test_a_full_mask_is_the_attack_itself_bit_for_bit(model: nn.Module, attack: Pgd | Fgsm) -> None:
    images, labels = batch()
    full = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    found = Localized(attack=attack, masks=masks_of(full), region="background")(model, images, labels, generator())
    assert torch.equal(found, attack(model, images, labels, generator()))


@EVERY
def test_an_empty_mask_leaves_the_images_bit_for_bit(model: nn.Module, attack: Pgd | Fgsm) -> None:
    images, labels = batch()
    found = Localized(attack=attack, masks=masks_of(HALF & ~HALF), region="background")(
        model, images, labels, generator()
    )
    assert torch.equal(found, images)


def test_two_budgets_hold_each_in_its_place_and_equal_ones_are_the_attack(model: nn.Module) -> None:
    images, labels = batch()
    attack = Pgd(eps=8 / 255, step=2 / 255, steps=10)
    local = Localized(attack=attack, masks=masks_of(HALF), region="foreground", elsewhere=0.5)
    change = (local(model, images, labels, generator()) - images).abs()
    inside = (~HALF).expand_as(change)
    assert change[inside].max() == pytest.approx(8 / 255, abs=1e-6)
    assert change[~inside].max() == pytest.approx(4 / 255, abs=1e-6)
    equal = replace(local, elsewhere=1.0)(model, images, labels, generator())
    assert torch.equal(equal, attack(model, images, labels, generator()))


def test_l2_has_no_half_budgets() -> None:
    with pytest.raises(SetupError, match=r"attack\.norm: expected linf"):
        confined(Pgd(norm="l2", eps=1.0), torch.full((1, 1, 8, 8), 0.5))


def test_each_image_has_its_own_mask_also_where_some_have_left(model: nn.Module) -> None:
    images, labels = batch(12)
    masks = PixelMasks(level=0.6)
    local = Localized(attack=Pgd(eps=0.1, steps=2), masks=masks, region="background")
    several = FirstFooling(attacks=(local, local, local), settle=Settled("linf", 0.1))
    found = several(EightBit(model), images, labels, generator())
    outside = (~masks(images)).expand_as(images)
    assert torch.equal((found * 255).round()[outside], (images * 255).round()[outside])
    assert not torch.equal(found, images)


def test_words_of_an_attack_say_all_that_it_depends_on() -> None:
    one = Localized(attack=Pgd(eps=0.1), masks=BoxMasks(share=0.5), region="background")
    assert repr(one) == repr(replace(one))
    assert repr(one) != repr(replace(one, masks=BoxMasks(share=0.25)))
    assert "0x" not in repr(one)
