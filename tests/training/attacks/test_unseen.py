"""FMN, JSMA, patches, shifts and HopSkipJump: what they may change, how near they come, and what they leave alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks import Attack
from training.attacks.fmn import Fmn
from training.attacks.hop_skip_jump import HopSkipJump
from training.attacks.jsma import Jsma
from training.attacks.patch import Patch
from training.attacks.spatial import Spatial, moved

ATTACKS: dict[str, Attack] = {
    "fmn_linf": Fmn(norm="linf", steps=40),
    "fmn_l2": Fmn(norm="l2", steps=40),
    "fmn_l0": Fmn(norm="l0", steps=40),
    "jsma": Jsma(gamma=0.5),
    "patch": Patch(side=3, steps=20, places=4),
    "spatial": Spatial(shift=2, turn=15, shifts=3, turns=3),
    "hop_skip_jump_linf": HopSkipJump(norm="linf", turns=2, probes=8),
    "hop_skip_jump_l2": HopSkipJump(norm="l2", turns=2, probes=8),
}
EVERY = pytest.mark.parametrize("name", ATTACKS)
CLASSES, SIDE = 3, 6


class Small(nn.Module):
    """A fixed smooth network with dropout as bait."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(1)
        self.first = nn.Parameter(torch.randn(2 * SIDE * SIDE, 24, generator=draws) / 3)
        self.second = nn.Parameter(torch.randn(24, classes, generator=draws))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.tanh((self.dropout(images).flatten(1) - 0.5) @ self.first)
        return torch.as_tensor(hidden @ self.second)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> Small:
    return Small().eval()


IMAGES = torch.randint(0, 256, (30, 2, SIDE, SIDE), generator=generator(4)) / 255


def read(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(images)).argmax(dim=1)


@EVERY
def test_it_fools_and_stays_in_the_box(model: Small, name: str) -> None:
    labels, before = read(model, IMAGES), IMAGES.clone()
    attacked = ATTACKS[name](model, IMAGES, labels, generator())
    assert torch.equal(IMAGES, before)
    assert attacked.shape == IMAGES.shape
    assert not attacked.requires_grad
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (read(model, attacked) != labels).float().mean() >= 0.6


@EVERY
def test_the_seed_decides_and_nothing_global_is_drawn(model: Small, name: str) -> None:
    labels, state, numpy_state = read(model, IMAGES), torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first, again = (ATTACKS[name](model, IMAGES[:8], labels[:8], generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@EVERY
def test_the_model_is_left_as_found(model: Small, name: str) -> None:
    labels, before = read(model, IMAGES), model.first.detach().clone()
    model.train()
    ATTACKS[name](model, IMAGES[:6], labels[:6], generator())
    assert model.training
    assert model.dropout.training
    assert model.first.requires_grad
    assert model.first.grad is None
    assert torch.equal(model.first, before)


@EVERY
def test_an_image_does_not_depend_on_the_others(model: Small, name: str) -> None:
    labels = read(model, IMAGES[:10])
    together = ATTACKS[name](model, IMAGES[:10], labels, generator())
    others, other_labels = IMAGES[:10].clone(), labels.clone()
    others[1::2], other_labels[1::2] = 1 - others[1::2], (labels[1::2] + 1) % CLASSES
    among_others = ATTACKS[name](model, others, other_labels, generator())
    assert torch.allclose(together[::2], among_others[::2], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "spatial"])
def test_what_is_wrong_already_comes_back_as_it_is(model: Small, name: str) -> None:
    labels = (read(model, IMAGES) + 1) % CLASSES
    assert torch.allclose(ATTACKS[name](model, IMAGES, labels, generator()), IMAGES, atol=1e-7)


def test_fewest_pixels_are_those_of_the_search(model: Small) -> None:
    """On a net that sums one channel, one pixel after the other from the largest weight on is the least there is."""

    class Sum(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            lead = 1.5 - images[:, 0].flatten(1) @ torch.linspace(0.1, 1.0, SIDE * SIDE)
            return torch.stack([lead, -lead], dim=1)

    images = torch.zeros(3, 2, SIDE, SIDE)
    attacked = Fmn(norm="l0", steps=60)(Sum(), images, torch.zeros(3, dtype=torch.long), generator())
    assert ((attacked != 0).any(dim=1).flatten(1).sum(dim=1) == 2).all()  # 1.0 and 0.97 are more than 1.5


def test_jsma_keeps_to_its_share_of_values(model: Small) -> None:
    labels = read(model, IMAGES)
    changed = (Jsma(gamma=0.05)(model, IMAGES, labels, generator()) != IMAGES).flatten(1).sum(dim=1)
    assert changed.max() == 2  # of 72 values 3.6 may change, and they go in pairs


def test_a_patch_is_one_square(model: Small) -> None:
    labels = read(model, IMAGES)
    attacked = ATTACKS["patch"](model, IMAGES, labels, generator())
    places = set()
    for changed in (attacked != IMAGES).any(dim=1):
        rows, columns = (torch.nonzero(changed.any(dim=axis))[:, 0] for axis in (1, 0))
        assert len(rows)
        assert max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) < 3
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 4
    levels = attacked * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)


def test_a_patch_larger_than_the_image_is_the_image(model: Small) -> None:
    labels = read(model, IMAGES)
    assert (read(model, Patch(side=9, steps=30, places=1)(model, IMAGES, labels, generator())) != labels).all()


def test_shifts_and_turns_by_hand() -> None:
    images = torch.randint(0, 256, (1, 1, 4, 6), generator=generator()) / 255
    assert torch.equal(moved(images, down=0, across=0, turn=0), images)
    shifted = moved(images, down=1, across=-2, turn=0)
    assert torch.allclose(shifted[..., 1:, :4], images[..., :3, 2:])
    assert (shifted[..., 0, :] == 0).all()
    assert (shifted[..., 4:] == 0).all()
    square = images[..., :4]
    assert torch.allclose(moved(square, down=0, across=0, turn=90), square.rot90(-1, (2, 3)), atol=1 / 255)
    assert torch.equal(moved(images, down=0, across=0, turn=180), images.flip(2, 3))


def test_of_all_shifts_the_worst_is_kept(model: Small) -> None:
    labels = read(model, IMAGES)
    one, many = (Spatial(shift=2, shifts=count, turns=1)(model, IMAGES, labels, generator()) for count in (1, 5))
    assert torch.equal(one, IMAGES)
    with torch.no_grad():
        leads = [model(images).gather(1, labels[:, None])[:, 0] for images in (one, many)]
    assert (read(model, many) != labels).sum() > 0
    assert (leads[1] < leads[0]).float().mean() > 0.8


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_turns_of_hop_skip_jump_come_nearer(model: Small, norm: Any) -> None:
    labels = read(model, IMAGES)
    changes = [
        (HopSkipJump(norm=norm, turns=turns, probes=10)(model, IMAGES, labels, generator()) - IMAGES).flatten(1)
        for turns in (1, 6)
    ]
    first, last = (torch.linalg.vector_norm(change, ord=2 if norm == "l2" else torch.inf, dim=1) for change in changes)
    assert last.median() < 0.8 * first.median()
    assert (last <= first + 0.05).all()


def test_hop_skip_jump_without_any_start_leaves_the_image() -> None:
    class Stubborn(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images.new_ones(len(images)), images.new_zeros(len(images))], dim=1)

    labels = torch.zeros(4, dtype=torch.long)
    assert torch.equal(HopSkipJump(turns=1, probes=2)(Stubborn(), IMAGES[:4], labels, generator()), IMAGES[:4])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fmn(steps=0), "fmn: steps: expected a number of at least 1, got 0"),
        (lambda: Jsma(gamma=0), "jsma: gamma: expected a number above 0, at most 1, got 0"),
        (lambda: Jsma(theta=-1), "jsma: theta: expected a number above 0, at most 1, got -1"),
        (lambda: Patch(places=0), "patch: places: expected a number of at least 1, got 0"),
        (lambda: Spatial(turns=0), "spatial: turns: expected a number of at least 1, got 0"),
        (lambda: HopSkipJump(turns=0), "hop skip jump: turns: expected a number of at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        make()
