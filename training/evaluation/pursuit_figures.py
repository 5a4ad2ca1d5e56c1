"""How far the inference of a deep pursuit network is from the minimum of its own problem."""

import copy
from itertools import pairwise

import torch

from service.detection.types import Bytes8
from training.attacks.rounding import from_8_bit
from training.models.pursuit import PursuitNet, feed_forward, layered, objective, swept

__all__ = ["pursuit_figures"]

IMAGES = 16
SETTLED = 1e-5
"""Relative gain of a sweep at which the problem counts as solved."""
MOST = 2_000
"""Sweeps."""
LAYERED_STEPS = 1_000
"""Of each layer."""


@torch.no_grad()
def pursuit_figures(model: PursuitNet, images: Bytes8) -> dict[str, float]:
    """Figures of the first 16 images (N, H, W, C), means over them, in float64 and with the network's own steps.

    `objective_feed_forward`, `objective_layered` and `objective_deep` are the sum that deep pursuit minimises: after
    the forward pass, after 1,000 steps of layered basis pursuit in each layer, and after so many sweeps that a further
    one gains less than 1e-5 of it. `objective_rises` is the number of sweeps that raised it for some image by more
    than rounding explains: 0. `active_last` is the share of active units of the last layer as the network infers it.
    """
    own = copy.deepcopy(model).double().cpu().eval()
    signals = from_8_bit(images[:IMAGES].copy()).double()
    stack = own.stack
    codes = feed_forward(stack, signals)
    after = [objective(stack, signals, codes)]
    while len(after) < 2 or (len(after) <= MOST and bool((after[-2] - after[-1] > SETTLED * after[-2]).any())):
        codes = swept(stack, signals, codes)
        after.append(objective(stack, signals, codes))
    in_turn = objective(stack, signals, layered(stack, signals, LAYERED_STEPS))
    rises = sum(bool((now > before * (1 + 1e-9)).any()) for before, now in pairwise(after))
    return {
        "objective_feed_forward": float(after[0].mean()),
        "objective_layered": float(in_turn.mean()),
        "objective_deep": float(after[-1].mean()),
        "objective_rises": float(rises),
        "active_last": float((own.embed(signals) > 0).double().mean()),
    }
