from typing import Any

import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from tests.training.attacks.adaptive.toys import Digits, generator, two_logits
from training.attacks.adaptive import Loop, Matching, choose_exemplars, clean_deviations


def pixels(images: Tensor) -> Tensor:
    return images.flatten(1)


def right_half(images: Tensor) -> tuple[Tensor, Tensor]:
    """Class 1 where the first pixel is above 0.5; the second pixel is suspicious."""
    flat = images.flatten(1)
    return two_logits(0.5 - flat[:, 0]), flat[:, 1]


LABELS = torch.zeros(2, dtype=torch.long)
CLEAN = torch.full((2, 1, 1, 2), 0.4)
EXEMPLARS = torch.tensor([[0.7, 0.1], [0.8, 0.6]]).view(1, 2, 1, 1, 2).repeat(2, 1, 1, 1, 1)


def matching(**changes: Any) -> Matching:
    loop = Loop(norm="l2", eps=1.0, step=0.01, steps=80, rounds=False)
    settings = {"loop": loop, "descriptor": pixels, "deviations": torch.ones(2), "exemplars": EXEMPLARS, **changes}
    return Matching(**settings)


def test_an_exemplar_within_reach_is_copied_and_the_best_counts() -> None:
    found = matching()(right_half, CLEAN, LABELS, generator())
    assert found.found.all()
    assert found.images.flatten(1).tolist() == [pytest.approx([0.7, 0.1], abs=0.02)] * 2
    single = matching(exemplars=EXEMPLARS[:, 1:])(right_half, CLEAN, LABELS, generator())
    assert (single.scores > found.scores).all()


def test_at_the_whole_range_the_exemplar_itself_is_found_at_once() -> None:
    loop = Loop(eps=1.0, steps=1, step=1e-6, rounds=False)
    found = matching(loop=loop, starts_there=True)(right_half, CLEAN, LABELS, generator())
    assert found.found.all()
    assert found.best_scores(steps=0).tolist() == pytest.approx([0.1, 0.1])


def test_columns_are_divided_by_their_deviations() -> None:
    loop = Loop(norm="l2", eps=0.05, step=0.01, steps=20, rounds=False)
    places = []

    def watched(images: Tensor) -> tuple[Tensor, Tensor]:
        places.append(images.detach().flatten(1))
        return right_half(images)

    matching(loop=loop, deviations=torch.tensor([1.0, 1e-3]))(watched, CLEAN, LABELS, generator())
    change = (places[20] - 0.4)[0]
    assert abs(change[1]) > 100 * abs(change[0])


def test_deviations_of_clean_images() -> None:
    images = torch.rand(30, 1, 1, 2, generator=generator())
    images[..., 1] = 0.5
    assert clean_deviations(pixels, images).tolist() == pytest.approx([float(images[..., 0].std()), 1.0])
    with pytest.raises(SetupError, match="clean images: expected 2 or more for standard deviations, got 1"):
        clean_deviations(pixels, images[:1])


def test_logits_of_another_class_are_matched_on_a_network(digits: Digits) -> None:
    def logits(images: Tensor) -> Tensor:
        answer: Tensor = digits.target(images)[0]
        return answer

    exemplars = digits.images.roll(1, 0)[:, None]
    attack = Matching(
        loop=Loop(eps=0.3, steps=15, step=0.04),
        descriptor=logits,
        deviations=clean_deviations(logits, digits.images),
        exemplars=exemplars,
    )
    found = attack(digits.target, digits.images, digits.labels, generator())
    others = digits.labels.roll(1, 0) != digits.labels
    assert found.found[others].float().mean() > 0.5


@pytest.mark.parametrize("shape", [(2, 1, 1, 2), (3, 1, 1, 1, 2), (2, 1, 1, 2, 2)])
def test_exemplars_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SetupError, match=r"exemplars: expected \(2, E, 1, 1, 2\), got .*; choose some for each"):
        matching(exemplars=torch.zeros(shape))(right_half, CLEAN, LABELS, generator())


POOL = torch.arange(40.0)[:, None]
"""Embeddings on a line: distances are known."""
POOL_LABELS = torch.arange(40) % 4
POOL_P = torch.where(torch.arange(40) < 36, 0.5, 0.4)
OWN = torch.tensor([[0.2], [20.1]])
OWN_LABELS = torch.tensor([0, 3])


def chosen(**changes: Any) -> Tensor:
    return choose_exemplars(OWN, OWN_LABELS, POOL, POOL_LABELS, POOL_P, generator(), **changes)


def test_the_nearest_of_another_class_come_first() -> None:
    places = chosen(nearest=4, others=3)
    assert places.shape == (2, 7)
    assert places[0, :4].tolist() == [1, 2, 3, 5]
    assert places[1, :4].tolist() == [20, 21, 22, 18]
    for row, label in zip(places, OWN_LABELS, strict=True):
        assert len(row.unique()) == 7
        assert (POOL_LABELS[row] != label).all()
        assert (POOL_P[row] >= 0.5).all()


def test_exemplars_of_a_target_have_its_class_and_class_0_is_one() -> None:
    labels = torch.tensor([1, 3])
    places = choose_exemplars(
        OWN, labels, POOL, POOL_LABELS, POOL_P, generator(), targets=torch.tensor([0, 2]), nearest=2, others=2
    )
    assert POOL_LABELS[places].tolist() == [[0] * 4, [2] * 4]


def test_the_generator_draws_the_random_ones() -> None:
    assert torch.equal(chosen(nearest=1, others=5), chosen(nearest=1, others=5))
    other = choose_exemplars(OWN, OWN_LABELS, POOL, POOL_LABELS, POOL_P, generator(1), nearest=1, others=5)
    assert not torch.equal(chosen(nearest=1, others=5), other)


def test_too_few_clean_images_are_refused() -> None:
    with pytest.raises(SetupError, match=r"expected 28 clean images of another class with p of at least 0.5 .* got 27"):
        chosen(nearest=20, others=8)
    assert chosen(nearest=20, others=7).shape == (2, 27)


@pytest.mark.parametrize("name", ["nearest", "others"])
def test_fewer_than_no_exemplars_are_refused(name: str) -> None:
    with pytest.raises(SetupError, match=f"{name}: expected a number of at least 0, got -1"):
        chosen(**{name: -1})
