"""Dictionaries: the linear maps B_j by which one layer's activations explain the layer below.

    codes w --synthesise--> B w        signals r --analyse--> B^T r

Each has a threshold lam >= 0 for each channel of its codes, and ||B||^2 for the size of proximal steps.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvDictionary", "DenseDictionary", "Dictionary"]

Shape = tuple[int, ...]

ITERATIONS = 500
"""At most, of the power iteration; each refresh goes on from where the last one ended."""
TOLERANCE = 1e-5
"""Gain of an iteration, relative, at which it ends."""
MARGIN = 1.02
"""Over what it finds, which lies below ||B||^2: longer steps than 1 / ||B||^2 could raise the objective. Where gains
of 1e-5 shrink by 1 in 1,000 an iteration, 1 % is still lacking."""
LEAST = 1e-12
"""Of ||B||^2, so that steps are finite where B is 0."""


class Dictionary(nn.Module, ABC):
    """B with its thresholds; `weight` is that of B^T.

    Attributes:
        signal_shape: of r for one image.
        code_shape: of w for one image.
        squared_norm: ||B||_2^2, a buffer: constant in the backward pass, and frozen in what is exported.
    """

    weight: nn.Parameter
    squared_norm: Tensor
    direction: Tensor

    def __init__(self, signal_shape: Shape, code_shape: Shape, threshold: float) -> None:
        super().__init__()
        self.signal_shape = signal_shape
        self.code_shape = code_shape
        self.raw_threshold = nn.Parameter(torch.full(code_shape[:1], threshold))
        self.register_buffer("squared_norm", torch.ones(()))
        self.register_buffer("direction", torch.randn(1, *code_shape))  # the power iteration's

    def extra_repr(self) -> str:
        """Shapes, which tell the stride too."""
        return f"signals={self.signal_shape}, codes={self.code_shape}"

    @abstractmethod
    def analyse(self, signals: Tensor) -> Tensor:
        """B^T r, (N, *code_shape), of signals (N, *signal_shape)."""

    @abstractmethod
    def synthesise(self, codes: Tensor) -> Tensor:
        """B w, (N, *signal_shape), of codes (N, *code_shape)."""

    @property
    def threshold(self) -> Tensor:
        """Of each channel, lam >= 0, shaped to be taken from codes (N, *code_shape).

        The gradient passes where the parameter is below 0 too, so that a threshold that has reached 0 can leave it.
        """
        raw = self.raw_threshold
        held = raw + (raw.clamp_min(0) - raw).detach()
        return held.view(-1, *(1 for _ in self.code_shape[1:]))

    @torch.no_grad()
    def refresh(self) -> None:
        """Puts the parameters of thresholds back to 0 where they are below, and finds ||B||^2 anew."""
        self.raw_threshold.clamp_min_(0)
        before = torch.zeros_like(self.squared_norm)
        for _ in range(ITERATIONS):
            length = torch.linalg.vector_norm(self.direction)
            if not bool(length > 0):  # B was 0, and nothing is left of any direction
                self.direction.fill_(1)
                length = torch.linalg.vector_norm(self.direction)
            explained = self.synthesise(self.direction / length)
            found = explained.square().sum()
            self.direction.copy_(self.analyse(explained))
            if bool(found - before <= TOLERANCE * found):
                break
            before = found
        self.squared_norm.copy_((MARGIN * found).clamp_min(LEAST))


class DenseDictionary(Dictionary):
    """A matrix of columns for vectors; signals of another shape are flattened."""

    def __init__(self, signal_shape: Shape, codes: int, threshold: float) -> None:
        super().__init__(signal_shape, (codes,), threshold)
        values = 1
        for length in signal_shape:
            values *= length
        self.weight = nn.Parameter(torch.empty(codes, values))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def analyse(self, signals: Tensor) -> Tensor:
        """See Dictionary."""
        return F.linear(signals.flatten(1), self.weight)

    def synthesise(self, codes: Tensor) -> Tensor:
        """See Dictionary."""
        return F.linear(codes, self.weight.t()).view(-1, *self.signal_shape)


class ConvDictionary(Dictionary):
    """Filters of 3 x 3 with padding 1: B^T is a convolution, and B its transpose with the same kernel."""

    def __init__(self, signal_shape: tuple[int, int, int], channels: int, threshold: float, *, stride: int = 1) -> None:
        inputs, height, width = signal_shape
        super().__init__(signal_shape, (channels, -(-height // stride), -(-width // stride)), threshold)
        self.stride = stride
        # What the convolution's rounding of sizes leaves out, so that the transpose has the signal's size again.
        self.output_padding = ((height - 1) % stride, (width - 1) % stride)
        self.weight = nn.Parameter(torch.empty(channels, inputs, 3, 3))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def analyse(self, signals: Tensor) -> Tensor:
        """See Dictionary."""
        return F.conv2d(signals, self.weight, stride=self.stride, padding=1)

    def synthesise(self, codes: Tensor) -> Tensor:
        """See Dictionary."""
        return F.conv_transpose2d(codes, self.weight, stride=self.stride, padding=1, output_padding=self.output_padding)
