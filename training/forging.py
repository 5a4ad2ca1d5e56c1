"""Perturbations that no attack made, and harmless changes, of clean images: what to learn an attack's trace from.

Nothing here knows an attack or a trained network, so a detector that learns from it has seen clean images only.
"""

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.data.augment import lit, warped

__all__ = ["benign", "forge"]

SMALLEST, LARGEST = 0.4, 1.4
"""Sizes of forged perturbations, in units of eps."""
PASSES = (1, 3)
"""Steps uphill, least and most."""
_MODES = {1: "L", 3: "RGB"}

Objective = Callable[[Tensor], Tensor]
"""(N, C, H, W) images to (N,) values."""


def forge(images: Tensor, generator: torch.Generator, *, eps: float) -> Tensor:
    """Images under perturbations of random kind, norm and size.

    A kind for each call, a size for each image: steps uphill on a random untrained network, drawn anew, in signs, in
    the direction of the gradient, on few pixels or within a box of the image; or noise of a random spectrum, which is
    shaped the same ways. So the image guides the perturbation, as it does in an attack; its class does not.

    Args:
        images: (N, C, H, W) in [0, 1].
        generator: of all random numbers; it is on the CPU.
        eps: the Linf budget of the attacks that are expected; L2 perturbations have the length of a change by eps of
            one value in sixteen.

    Returns:
        (N, C, H, W), multiples of 1/255.
    """
    size = eps * _uniform(len(images), SMALLEST, LARGEST, generator).to(images)
    reach = size * math.sqrt(images[0].numel()) / 4  # an L2 length
    shape = _SHAPES[_pick(len(_SHAPES), generator)]
    if _pick(4, generator) == 0:
        perturbed = shape(images, _spectral_noise(images.shape, generator).to(images), size, reach, generator)
    else:
        perturbed = _uphill(images, shape, size, reach, generator)
    return _rounded(perturbed)


def benign(images: Tensor, generator: torch.Generator, *, eps: float) -> Tensor:
    """Images as deployments change them: one change for each call, of a strength drawn for each image.

    Noise without aim is among them, up to the size of an attack: what sees perturbations must not take it for one.

    Args:
        images: (N, C, H, W) in [0, 1].
        generator: of all random numbers; it is on the CPU.
        eps: the size of the largest noise.

    Returns:
        (N, C, H, W), multiples of 1/255.
    """
    return _rounded(_CHANGES[_pick(len(_CHANGES), generator)](images, generator, eps))


def _pick(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator)


def _rounded(images: Tensor) -> Tensor:
    return from_8_bit(nearest_8_bit(images)).to(images)


def _each(values: Tensor) -> Tensor:
    """(N,) to (N, 1, 1, 1)."""
    return values[:, None, None, None]


def _length(values: Tensor) -> Tensor:
    """(N, 1, 1, 1) Euclidean lengths."""
    return _each(values.flatten(1).norm(dim=1)).clamp(min=1e-12)


def _signs(images: Tensor, direction: Tensor, size: Tensor, reach: Tensor, generator: torch.Generator) -> Tensor:
    """Every value by the size."""
    return images + _each(size) * direction.sign()


def _clipped(images: Tensor, direction: Tensor, size: Tensor, reach: Tensor, generator: torch.Generator) -> Tensor:
    """Along the direction until most values reach the size, as after many steps within the ball."""
    spread = direction.flatten(1).abs().median(dim=1).values.clamp(min=1e-12)
    steep = _uniform(len(images), 0.5, 3.0, generator).to(images)
    return images + (direction * _each(steep * size / spread)).clamp(-_each(size), _each(size))


def _straight(images: Tensor, direction: Tensor, size: Tensor, reach: Tensor, generator: torch.Generator) -> Tensor:
    """By a Euclidean length."""
    return images + direction * (_each(reach) / _length(direction))


def _sparse(images: Tensor, direction: Tensor, size: Tensor, reach: Tensor, generator: torch.Generator) -> Tensor:
    """By a Euclidean length, on the pixels of the largest values only."""
    pixels = images.shape[2] * images.shape[3]
    kept = max(1, int(pixels * 2 ** float(_uniform(1, -6.0, -1.0, generator))))
    loudness = direction.abs().sum(dim=1).flatten(1)  # (N, H W)
    quietest = loudness.topk(kept, dim=1).values[:, -1]
    chosen = direction * (direction.abs().sum(dim=1, keepdim=True) >= _each(quietest))
    return images + chosen * (_each(reach) / _length(chosen))


def _boxed(images: Tensor, direction: Tensor, size: Tensor, reach: Tensor, generator: torch.Generator) -> Tensor:
    """Within a box, by up to three times the size."""
    height, width = images.shape[2:]
    tall, wide = (max(2, int(side * float(_uniform(1, 0.15, 0.6, generator)))) for side in (height, width))
    top, left = _pick(height - tall + 1, generator), _pick(width - wide + 1, generator)
    inside = torch.zeros_like(images)
    inside[:, :, top : top + tall, left : left + wide] = 1.0
    loud = 1.0 + 2.0 * float(torch.rand((), generator=generator))
    return images + inside * _each(loud * size) * direction.sign()


_SHAPES = (_signs, _clipped, _straight, _straight, _sparse, _boxed)


def _uphill(
    images: Tensor,
    shape: Callable[[Tensor, Tensor, Tensor, Tensor, torch.Generator], Tensor],
    size: Tensor,
    reach: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The shape along the gradient of a random network, looked up again where the steps before led."""
    network = _random_network(images.shape[1], generator)
    perturbed = images
    for _ in range(PASSES[0] + _pick(PASSES[1] - PASSES[0] + 1, generator)):
        with torch.enable_grad():
            places = perturbed.detach().requires_grad_()
            (direction,) = torch.autograd.grad(network(places).sum(), places)
        perturbed = shape(images, direction, size, reach, generator).clamp(0, 1)
    return perturbed


def _random_network(channels: int, generator: torch.Generator) -> Objective:
    """An untrained convolutional network with one output; depth, widths, kernels and strides are drawn."""
    layers, before = [], channels
    for depth in range(1 + _pick(4, generator)):
        after, kernel = 8 * (1 + _pick(4, generator)), (3, 3, 5)[_pick(3, generator)]
        weights = _normal((after, before, kernel, kernel), generator) * math.sqrt(2 / (before * kernel**2))
        layers.append((weights, 1 + _pick(2, generator) if depth < 2 else 1))
        before = after
    is_smooth, head = _pick(2, generator) == 0, _normal((before,), generator)

    def run(images: Tensor) -> Tensor:
        values = 2 * images - 1
        for weights, stride in layers:
            values = F.conv2d(values, weights.to(values), stride=stride, padding=weights.shape[-1] // 2)
            values = F.silu(values) if is_smooth else F.relu(values)
        # Squares besides sums, or the gradient of a shallow network would not depend on where in the image it is.
        return (values + values.square()).mean(dim=(2, 3)) @ head.to(values)

    return run


def _spectral_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Noise whose amplitude falls or rises with frequency by a drawn exponent, as grey or as coloured as drawn."""
    count, channels, height, width = shape
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :]
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1 / max(height, width))
    # Never white: noise without a colour is what `benign` calls harmless.
    falls = torch.rand(count, generator=generator) < 0.6
    falling = _each(torch.where(falls, _uniform(count, 0.5, 2.0, generator), _uniform(count, -2.0, -0.7, generator)))
    grey = _each(torch.rand(count, generator=generator))
    white = grey * _normal((count, 1, height, width), generator)
    white = white + (1 - grey) * _normal((count, channels, height, width), generator)
    shaped: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) * frequency**-falling, s=(height, width))
    return shaped


def _unchanged(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    return images


def _gaussian_noise(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    deviation = _uniform(len(images), 0.0, eps, generator).to(images)
    return images + _each(deviation) * _normal(images.shape, generator).to(images)


def _uniform_noise(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    size = _uniform(len(images), 0.0, eps, generator).to(images)
    return images + _each(size) * (2 * torch.rand(images.shape, generator=generator).to(images) - 1)


def _sign_noise(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    size = _uniform(len(images), 0.0, eps, generator).to(images)
    return images + _each(size) * _normal(images.shape, generator).to(images).sign()


def _light(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    return lit(images, 0.1, 0.3, generator)


def _blur(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    deviation = 0.3 + 0.7 * float(torch.rand((), generator=generator))
    places = torch.arange(-3, 4).to(images)
    taps = torch.softmax(-places.square() / (2 * deviation**2), dim=0)
    kernel = (taps[:, None] * taps)[None, None]
    flat = F.pad(images.flatten(0, 1)[:, None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(flat, kernel).reshape(images.shape)


def _resized(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    """Shrunk or enlarged, and back."""
    factor = 0.7 + 0.8 * float(torch.rand((), generator=generator))
    size = [math.ceil(side * factor) for side in images.shape[2:]]
    there = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return F.interpolate(there, size=list(images.shape[2:]), mode="bilinear", antialias=True)


def _turned(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    return warped(images, 10.0, 0.1, generator)


def _jpeg(images: Tensor, generator: torch.Generator, eps: float) -> Tensor:
    mode = _MODES[images.shape[1]]
    qualities = (50 + 48 * torch.rand(len(images), generator=generator)).int().tolist()
    through = []
    for image, quality in zip(nearest_8_bit(images).cpu().numpy(), qualities, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(2) if mode == "L" else image).save(buffer, "JPEG", quality=quality)
        through.append(np.asarray(Image.open(buffer).convert(mode), dtype=np.uint8).reshape(image.shape))
    return from_8_bit(np.stack(through)).to(images)


_CHANGES = (
    _unchanged,
    _gaussian_noise,
    _uniform_noise,
    _sign_noise,
    _light,
    _blur,
    _resized,
    _turned,
    _jpeg,
)
