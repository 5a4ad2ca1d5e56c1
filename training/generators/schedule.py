"""The noise of a diffusion model, and how images are drawn back out of it.

    x_t = a_t x_0 + s_t e,   a_t^2 + s_t^2 = 1,   a_t^2 = cos^2(pi/2 (t/T + 0.008)/1.008) / (its value at t = 0)
    v   = a_t e - s_t x_0    is what the network predicts;   x_0 = a_t x_t - s_t v,   e = s_t x_t + a_t v

A step from t to s < t with noise of deviation d adds up the prediction of x_0, the predicted noise, and fresh noise:

    x_s = a_s x_0 + sqrt(s_s^2 - d^2) e + d z,   d = eta (s_s / s_t) sqrt(1 - a_t^2 / a_s^2)

eta = 0 is DDIM and draws the same image from the same start; eta = 1 is DDPM's posterior.

Source: Ho et al. 2020 (arXiv 2006.11239), Song et al. 2021 (arXiv 2010.02502) for the steps, Nichol and Dhariwal 2021
(arXiv 2102.09672) for the cosine, Salimans and Ho 2022 (arXiv 2202.00512) for v.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["TIMES", "drawn", "noised", "signal"]

TIMES = 1000
OFFSET = 0.008
LEAST = 1e-4
"""Signal left at the last time: with none, x_0 could not be predicted from x_t there."""

Predict = Callable[[Tensor, Tensor], Tensor]
"""x_t (n, C, H, W) and times (n,) to v (n, C, H, W)."""


def signal(times: Tensor) -> Tensor:
    """a_t of times from 0 (no noise) to TIMES, float64."""
    angles = (times.double() / TIMES + OFFSET) / (1 + OFFSET) * math.pi / 2
    start = math.cos(OFFSET / (1 + OFFSET) * math.pi / 2)
    return (angles.cos() / start).clamp(LEAST, 1)


def noised(images: Tensor, times: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """x_t and v of images (n, C, H, W) in [-1, 1] at times (n,)."""
    a, s = (values[:, None, None, None] for values in _both(times, images))
    return a * images + s * noise, a * noise - s * images


def _both(times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    a = signal(times)
    return a.to(like), (1 - a.square()).clamp_min(0).sqrt().to(like)


@torch.no_grad()
def drawn(
    predict: Predict, start: Tensor, *, steps: int, eta: float, generator: torch.Generator, clip: bool = True
) -> Tensor:
    """Images (n, C, H, W) out of noise.

    Args:
        predict: the network.
        start: normal noise (n, C, H, W).
        steps: passes of the network, over evenly spaced times.
        eta: 0 for DDIM, 1 for DDPM.
        generator: of fresh noise, on the CPU; not used for eta 0.
        clip: whether each prediction of x_0 is kept in [-1, 1].
    """
    images = start
    times = torch.linspace(TIMES, 0, steps + 1, dtype=torch.float64)
    for now, following in itertools.pairwise(times):
        every = now.expand(len(images)).to(images)
        a, s = (values.item() for values in _both(now, torch.empty(0, dtype=torch.float64)))
        a_next, s_next = (values.item() for values in _both(following, torch.empty(0, dtype=torch.float64)))
        v = predict(images, every)
        found = a * images - s * v
        found = found.clamp(-1, 1) if clip else found
        noise = (images - a * found) / s
        deviation = eta * s_next / s * math.sqrt(max(0.0, 1 - a**2 / a_next**2))
        images = a_next * found + math.sqrt(max(0.0, s_next**2 - deviation**2)) * noise
        if deviation:
            images = images + deviation * torch.randn(images.shape, generator=generator).to(images)
    return images
