"""Weights over norms, their limits, and what the term makes of a step."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses import TrainingStep, Views
from training.losses.domains import DomainCrossEntropy, domain_weights

LABELS = torch.tensor([0, 1, 2, 1])


def views(seed: int) -> Views:
    logits = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    return Views(embeddings=torch.zeros(4, 2), logits=logits.requires_grad_())


def step(*domains: Tensor) -> TrainingStep:
    rest: dict[str, Any] = dict.fromkeys(("model", "clean", "attacked", "positions", "source", "generator"))
    return TrainingStep(labels=LABELS, epoch=0, domains=domains, **rest)


def losses(seed: int) -> Tensor:
    return F.cross_entropy(views(seed).logits, LABELS, reduction="none")


def test_weights_have_their_closed_form() -> None:
    weights = domain_weights(torch.tensor([[1.0, 3.0, 2.5]]), 3.0)
    assert weights.flatten().tolist() == pytest.approx([0, 0.583333, 0.416667], abs=1e-6)


def test_the_limits_of_gamma_are_average_and_max() -> None:
    others, each = [views(1), views(2), views(3)], torch.stack([losses(1), losses(2), losses(3)])
    expected = {math.inf: each.mean(), 1e9: each.mean(), 1e-9: each.amax(dim=0).mean(), 0.0: each.amax(dim=0).mean()}
    for gamma, value in expected.items():
        found = DomainCrossEntropy(gamma=gamma)(step(), views(0), others)
        assert found.item() == pytest.approx(value.item(), rel=1e-6)
    between = DomainCrossEntropy(gamma=2.0)(step(), views(0), others)
    assert each.mean() < between < each.amax(dim=0).mean()


def test_gradients_pass_through_the_losses_and_not_through_the_weights() -> None:
    others, gamma = [views(1), views(2)], 2.0
    DomainCrossEntropy(gamma=gamma)(step(), views(0), others).backward()  # type: ignore[no-untyped-call]
    weights = domain_weights(torch.stack([losses(1), losses(2)], dim=1), gamma)
    for number, seed in enumerate((1, 2)):
        single = views(seed)
        (weights[:, number] * F.cross_entropy(single.logits, LABELS, reduction="none")).mean().backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(others[number].logits.grad, single.logits.grad)


def test_one_domain_is_the_cross_entropy() -> None:
    found = DomainCrossEntropy(gamma=1.0, label_smoothing=0.1)(step(), views(0), [views(1)])
    expected = F.cross_entropy(views(1).logits, LABELS, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


def test_the_term_asks_for_the_images_of_every_domain() -> None:
    domains = torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2)
    assert DomainCrossEntropy(gamma=1.0).images(step(*domains)) == domains


def test_a_wrong_gamma_is_refused() -> None:
    for gamma in (-1.0, math.nan):
        with pytest.raises(ValueError, match="domains: expected gamma of at least 0"):
            DomainCrossEntropy(gamma=gamma)
