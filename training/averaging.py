"""Weight averaging: a second network that holds the mean of the weights that training went through.

    swa:  once an epoch, w_avg <- w_avg n / (n + 1) + w / (n + 1)
    ema:  at every step, w_avg <- decay w_avg + (1 - decay) w, decay being at most (1 + n) / (10 + n) at the n-th

The statistics of batch normalisation are averaged with the weights, or estimated anew as cumulative means over batches
of clean training images, as the sources do. Averaging is the default, because our networks see clean and attacked
images in one batch, and statistics of clean images alone lose clean accuracy.

Source: Izmailov et al. 2018 (arXiv 1803.05407), used with adversarial training by Huang et al.
(arXiv 2212.12732, 2306.14262), from whom we differ in estimating on at most 8,192 images without augmentation.
"""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.data.batches import ImageSource
from training.models import Classifier

__all__ = ["Averager", "estimate_statistics"]

BATCH = 512
ESTIMATION_IMAGES = 8192


class Averager:
    """The averaged network of a run, in eval mode.

    Attributes:
        model: the average once `count` is above 0.
        count: weights that went into it.
    """

    def __init__(
        self,
        kind: Literal["swa", "ema"],
        decay: float,
        model: Classifier,
        *,
        statistics: Literal["averaged", "clean"] = "averaged",
    ) -> None:
        self.kind = kind
        self.statistics = statistics
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.count = 0
        self._decay = decay

    @torch.no_grad()
    def add(self, model: Classifier) -> None:
        """Takes the present weights of the trained network into the average."""
        share = 1 / (self.count + 1) if self.kind == "swa" else self._share()
        averaged, new = self._averaged(self.model), self._averaged(model)
        if self.count == 0:
            torch._foreach_copy_(averaged, new)
        else:
            torch._foreach_lerp_(averaged, new, share)
        self.count += 1

    def _averaged(self, model: Classifier) -> list[Tensor]:
        """The tensors that are averaged; the count of batches, an integer buffer, is not."""
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        return [*model.parameters(), *(buffers if self.statistics == "averaged" else [])]

    def _share(self) -> float:
        # While few weights have come, a long memory would keep the first ones, which are the worst.
        return 1 - min(self._decay, (1 + self.count) / (10 + self.count))

    def estimate(self, source: ImageSource) -> None:
        """With statistics "clean": estimates those of batch normalisation on evenly chosen clean images."""
        if self.statistics == "averaged":
            return
        stride = max(1, -(-len(source) // ESTIMATION_IMAGES))
        estimate_statistics(self.model, source, torch.arange(0, len(source), stride))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"count": self.count, "model": {name: value.clone() for name, value in self.model.state_dict().items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where state() was taken."""
        self.count = state["count"]
        self.model.load_state_dict(state["model"])


def estimate_statistics(model: nn.Module, source: ImageSource, positions: Tensor) -> None:
    """Sets the running statistics of batch normalisation to cumulative means over batches of 512 of these images.

    Leaves the model in eval mode; models without batch normalisation stay as they are.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative mean
    model.train()
    try:
        with torch.no_grad():
            for places in torch.tensor_split(positions, -(-len(positions) // BATCH)):  # of nearly equal sizes
                model(source.take(places))
    finally:
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
