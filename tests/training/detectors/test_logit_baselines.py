"""Maximum softmax probability and energy, the baselines that read the logits alone."""

import numpy as np
import pytest
import torch

from tests import reference
from tests.training.detectors.made_up import views
from training.detectors.energy import Energy
from training.detectors.softmax import Softmax


def test_softmax_is_the_log_odds_against_the_predicted_class() -> None:
    clean = views()
    fast = Softmax.fit(clean)(clean.images, clean.logits, clean.embedding)
    slow = [reference.log_odds_against(row) for row in clean.logits.tolist()]
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-4, atol=1e-4)


def test_softmax_ranks_and_has_a_gradient_where_the_probability_is_1_in_float32() -> None:
    logits = torch.tensor([[40.0, 0.0, 0.0], [80.0, 0.0, 0.0]], requires_grad=True)
    assert (torch.softmax(logits, dim=1)[:, 0] == 1).all()
    scores = Softmax(3)(torch.zeros(2, 1, 4, 4), logits, torch.zeros(2, 1))
    assert scores[0] > scores[1]
    (gradient,) = torch.autograd.grad(scores.sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[-1.0, 0.5, 0.5]] * 2))


def test_energy_is_minus_the_log_of_the_summed_exponentials() -> None:
    clean = views()
    fast = Energy.fit(clean)(clean.images, clean.logits, clean.embedding)
    slow = -np.log(np.exp(clean.logits.double().numpy()).sum(axis=1))
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_energy_falls_as_all_logits_rise_and_softmax_does_not_see_it(shift: float) -> None:
    clean = views()
    energy, softmax = Energy.fit(clean), Softmax.fit(clean)
    nothing = clean.images, clean.embedding
    fallen = energy(nothing[0], clean.logits, nothing[1]) - energy(nothing[0], clean.logits + shift, nothing[1])
    assert fallen.numpy() == pytest.approx(shift, abs=1e-5)
    seen = softmax(nothing[0], clean.logits, nothing[1]) - softmax(nothing[0], clean.logits + shift, nothing[1])
    assert seen.numpy() == pytest.approx(0, abs=1e-5)
