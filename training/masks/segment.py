"""Foreground and background by their colours, from a box in the middle: after GrabCut, without its graph cut.

Two mixtures of Gaussians, one of the foreground's colours and one of the background's, are fitted in turns with the
probability of each pixel to belong to the foreground, which neighbours of like colour share:

    q_i  = sigmoid( log p_fore(x_i) - log p_back(x_i) + sum_j w_ij (2 q_j - 1) )
    w_ij = strength exp(-|x_i - x_j|^2 / 2 s^2)

j are the four neighbours, s^2 the image's mean squared difference of neighbours. Outside of the box q stays 0.

Source: Rother et al. 2004 (GrabCut). We differ: probabilities instead of the exact minimum of a graph cut (mean field,
as in Krähenbühl and Koltun 2011, arXiv 1210.5644), diagonal covariances, three Gaussians instead of five, four
neighbours instead of eight, no strokes of a user; what the foreground encloses belongs to it, as the figures on a sign
do, and a box is what is left where the foreground would vanish.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.masks.plain import centre_box

__all__ = ["SegmentMasks", "foreground_probability"]

_COMPONENTS = 3
_ROUNDS = 4
_SWEEPS = 4
_STRENGTH = 2.0
_LEAST_VARIANCE = (8 / 255) ** 2
"""Of a Gaussian: flat areas of 8-bit images would have none."""
_LARGEST_ODDS = 10.0
"""Of the colours, as a logarithm: a pixel never seen elsewhere may still follow its neighbours."""


@dataclass(frozen=True, kw_only=True)
class SegmentMasks:
    """Background is where the foreground has probability 1/2 or less and does not enclose it.

    Outside of a box in the middle, all is background.
    """

    share: float = 0.75
    """Height and width of the box, beside the image's."""
    is_stored = False
    network = ""

    def __call__(self, images: Tensor) -> Tensor:
        """See Masks."""
        box = centre_box(images.shape[2], images.shape[3], self.share).to(images.device)
        fore = foreground_probability(images, box) > 0.5
        is_lost = ~fore.any(dim=(1, 2), keepdim=True)
        return _reached(~torch.where(is_lost, box, fore), ~box)[:, None]


def _reached(background: Tensor, outside: Tensor) -> Tensor:
    """The background (N, H, W) that neighbours lead to from outside (H, W) or from the edge, (N, H, W)."""
    start = outside.clone()
    start[[0, -1]] = True
    start[:, [0, -1]] = True
    reached = background & start
    while True:
        grown = reached.clone()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        grown &= background
        if torch.equal(grown, reached):
            return reached
        reached = grown


def foreground_probability(images: Tensor, box: Tensor) -> Tensor:
    """Of each pixel of images (N, C, H, W) in [0, 1], (N, H, W); 0 outside of the box (H, W)."""
    with torch.autocast(images.device.type, enabled=False):
        pixels = images.detach().float()
        colours = pixels.flatten(2).transpose(1, 2)  # (N, P, C)
        across, down = _likeness(pixels)
        fore = box.float().expand(len(pixels), *box.shape)  # (N, H, W)
        members = _by_brightness(colours)  # (N, P, K), of both mixtures at first
        inside, outside = members, members
        for _ in range(_ROUNDS):
            q = fore.flatten(1)
            ours, inside = _fitted(colours, q, inside)
            theirs, outside = _fitted(colours, 1 - q, outside)
            odds = (ours - theirs).clamp(-_LARGEST_ODDS, _LARGEST_ODDS).view_as(fore)
            for _ in range(_SWEEPS):
                fore = torch.sigmoid(odds + _pull(2 * fore - 1, across, down)) * box
    return fore


def _likeness(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Weights between neighbours, (N, H, W - 1) and (N, H - 1, W)."""
    across = (pixels[:, :, :, 1:] - pixels[:, :, :, :-1]).square().sum(dim=1)
    down = (pixels[:, :, 1:] - pixels[:, :, :-1]).square().sum(dim=1)
    every = torch.cat([across.flatten(1), down.flatten(1)], dim=1)
    scale = 2 * every.mean(dim=1).clamp_min(1e-8)[:, None, None]
    return _STRENGTH * (-across / scale).exp(), _STRENGTH * (-down / scale).exp()


def _pull(signs: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The weighted sum of the neighbours' values, (N, H, W)."""
    total = torch.zeros_like(signs)
    total[:, :, 1:] += across * signs[:, :, :-1]
    total[:, :, :-1] += across * signs[:, :, 1:]
    total[:, 1:] += down * signs[:, :-1]
    total[:, :-1] += down * signs[:, 1:]
    return total


def _by_brightness(colours: Tensor) -> Tensor:
    """Membership in as many groups of pixels as a mixture has components, darkest first, (N, P, K); draws nothing."""
    order = colours.mean(dim=2).argsort(dim=1, stable=True)
    ranks = order.argsort(dim=1)
    group = ranks * _COMPONENTS // colours.shape[1]
    return torch.nn.functional.one_hot(group, _COMPONENTS).to(colours)


def _fitted(colours: Tensor, weights: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Log density of each pixel by the mixture fitted to weighted pixels, (N, P), and the new memberships (N, P, K)."""
    shares = (weights[:, :, None] * members).transpose(1, 2)  # (N, K, P)
    sums = shares.sum(dim=2, keepdim=True).clamp_min(1e-6)  # (N, K, 1)
    means = shares @ colours / sums  # (N, K, C)
    variances = (shares @ colours.square() / sums - means.square()).clamp_min(_LEAST_VARIANCE)
    # |x - m|^2 / v, one component after the other: all at once would be K times the images.
    each = [
        ((colours - means[:, k, None]).square() / variances[:, k, None]).sum(dim=2)
        + (2 * math.pi * variances[:, k, None]).log().sum(dim=2)
        for k in range(_COMPONENTS)
    ]
    parts = (sums / sums.sum(dim=1, keepdim=True)).log().transpose(1, 2) - torch.stack(each, dim=2) / 2
    return parts.logsumexp(dim=2), parts.softmax(dim=2)
