"""Batch normalisation over the whole batch of several processes, on any device.

    mean = average over processes of mean_r
    var  = average over processes of var_r + (mean_r - mean)^2        r = one process, all with equally many images

torch's own SyncBatchNorm runs on CUDA alone. Parameters, buffers and their names are those of BatchNorm2d, so that a
checkpoint does not show how many processes made it.

Source: the merging of variances is of Chan et al. 1979 (Stanford STAN-CS-79-773); sums of squares would cancel.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.shard import Shard

__all__ = ["SynchronisedBatchNorm2d", "synchronise"]


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in train mode are those of all processes; each must pass as many images."""

    def __init__(self, norm: nn.BatchNorm2d, shard: Shard) -> None:
        """Takes over another's parameters and buffers, as they are."""
        super().__init__(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)
        self._shard = shard

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) as BatchNorm2d gives it for the images of all processes."""
        if not self.training:
            return super().forward(input)
        # Statistics in bf16 would lose them; torch's own normalisation computes in float32 too.
        maps = input.to(torch.promote_types(input.dtype, torch.float32))
        var, mean = self._statistics(maps)
        self._track(var.detach(), mean.detach(), self._shard.world * maps.numel() // maps.shape[1])
        scale = self.weight * (var + self.eps).rsqrt()
        normal = maps * _per_channel(scale) + _per_channel(self.bias - mean * scale)
        return normal.to(input.dtype)

    def _statistics(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Variance and mean (C,) of all processes, with gradient to the maps of each."""
        own = torch.stack(torch.var_mean(maps, dim=(0, 2, 3), correction=0))  # (2, C)
        slots = [own if rank == self._shard.rank else torch.zeros_like(own) for rank in range(self._shard.world)]
        every = _sum_over_processes(torch.stack(slots))  # (processes, 2, C): summing zeros gathers, and has a gradient
        var, mean = every.mean(dim=0)
        return var + (every[:, 1] - mean).square().mean(dim=0), mean

    @torch.no_grad()
    def _track(self, var: Tensor, mean: Tensor, count: int) -> None:
        """Moves the running statistics, the variance as an unbiased one of `count` values."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((var * (count / max(1, count - 1))).to(self.running_var), self.momentum)


def synchronise(model: nn.Module, shard: Shard) -> None:
    """Puts a synchronised normalisation in the place of each of the model's; its state dict stays as it is."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, SynchronisedBatchNorm2d(module, shard))


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


class _Sum(torch.autograd.Function):
    """The sum over the processes. Each of its copies feeds a loss, whose gradients add up likewise."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradients: Tensor) -> Tensor:
        total = gradients.clone()
        dist.all_reduce(total)
        return total


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _sum_over_processes(values: Tensor) -> Tensor:
    """Outside the graphs of torch.compile: an exchange between processes is none of a graph's business."""
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total
