"""Exact projections, each row by itself: onto a ball around 0 cut by a box that holds 0, and onto the simplex.

With v the values, d the nearest point and |.| taken value by value:

    linf    d = clip(v)                                   to the box and to [-eps, eps]
    l2      d = clip(v / (1 + l))                         l >= 0 the least that keeps the length
    l1      d = clip(sign(v) max(0, |v| - l))             the same
    l0      d = clip(v) at the eps values that gain most, v^2 - (v - clip(v))^2, else 0

Clipping a projection onto the bare ball keeps the budget too, but is not the nearest point: it leaves budget unspent.

Source: for l1 Croce and Hein 2021 (arXiv 2103.01208); the others follow from the Lagrangian in the same way.
"""

import torch
from torch import Tensor

__all__ = ["into_ball", "onto_simplex"]

_HALVINGS = 50
"""Of the interval of l, at most; in float32 about 25 leave nothing to halve."""


def into_ball(deltas: Tensor, low: Tensor, high: Tensor, norm: str, eps: float) -> Tensor:
    """The nearest deltas within the ball and the box.

    Args:
        deltas: (N, ...).
        low: of the box, at most 0; broadcasts to the deltas.
        high: of the box, at least 0.
        norm: linf, l2, l1, or l0, which counts values that are not 0.
        eps: of the ball; l0 takes the whole part.
    """
    flat = deltas.flatten(1)
    low, high = (side.expand_as(deltas).flatten(1) for side in (low, high))
    clipped = torch.minimum(torch.maximum(flat, low), high)
    if norm == "linf":
        found = clipped.clamp(-eps, eps)
    elif norm == "l0":
        found = _largest_gains(flat, clipped, int(eps))
    else:
        found = clipped.clone()
        rows = torch.nonzero(_length(clipped.abs(), norm) > eps)[:, 0]
        if len(rows):
            room = torch.where(flat > 0, high, -low)[rows]
            found[rows] = flat[rows].sign() * _nearest_sizes(flat[rows].abs(), room, norm, eps)
    return found.view_as(deltas)


def onto_simplex(values: Tensor) -> Tensor:
    """The nearest weights of sum 1, none below 0, to each row of (..., K).

    Source: Duchi et al. 2008, by sorting.
    """
    values = values - values.amax(dim=-1, keepdim=True)  # changes nothing but rounding, of large values
    ordered = values.sort(dim=-1, descending=True).values
    first = torch.ones(values.shape[-1], values.shape[-1], device=values.device).tril()  # row k: the k largest
    sums = (ordered.unsqueeze(-2) * first).sum(dim=-1)  # cumsum is not deterministic on CUDA
    surplus = (sums - 1) / first.sum(dim=-1)
    kept = (ordered > surplus).sum(dim=-1, keepdim=True)  # at least 1: the largest value exceeds itself less 1
    return (values - surplus.gather(-1, kept - 1)).clamp_min(0)


def _length(sizes: Tensor, norm: str) -> Tensor:
    """(N,) of absolute values (N, D)."""
    return sizes.sum(dim=1) if norm == "l1" else sizes.square().sum(dim=1).sqrt()


def _nearest_sizes(sizes: Tensor, room: Tensor, norm: str, eps: float) -> Tensor:
    """Sizes of the projection for rows (M, D) whose clipped length is above eps; `room` is that of the box."""
    enough = sizes.amax(dim=1, keepdim=True) if norm == "l1" else _length(sizes, norm)[:, None] / eps
    least = torch.zeros_like(enough)
    for _ in range(_HALVINGS):
        middle = (least + enough) / 2
        if ((middle == least) | (middle == enough)).all():
            break  # nothing lies between them any more
        keeps = _length(_shrunk(sizes, middle, room, norm), norm)[:, None] <= eps
        least, enough = torch.where(keeps, least, middle), torch.where(keeps, middle, enough)
    return _shrunk(sizes, enough, room, norm)


def _shrunk(sizes: Tensor, multiplier: Tensor, room: Tensor, norm: str) -> Tensor:
    less = (sizes - multiplier).clamp_min(0) if norm == "l1" else sizes / (1 + multiplier)
    return torch.minimum(less, room)


def _largest_gains(values: Tensor, clipped: Tensor, count: int) -> Tensor:
    gains = values.square() - (values - clipped).square()
    places = gains.topk(min(count, values.shape[1]), dim=1).indices
    return torch.zeros_like(values).scatter(1, places, clipped.gather(1, places))
