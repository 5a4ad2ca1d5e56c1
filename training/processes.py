"""Several processes that train or attack one network: what they agree on, what they add up, what they gather.

Lightning Fabric finds the device of each process and connects them, under torchrun, on one machine or on several with
as many processes each. What they exchange is written here with torch.distributed: Fabric's wrapper of the network knows
forward alone, while we embed, attack, perturb weights and take second gradients, and its autocast has the cache that
training.precision has to do without.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from service.errors import AdvsentryError, SetupError
from training.config import Recipe
from training.shard import WHOLE, Shard

__all__ = ["ALONE", "Processes", "check_shareable", "connected"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among the others; alone, every method gives back what it was given, at no cost."""

    shard: Shard = WHOLE

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self.shard.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there is any other."""
        return self.shard.world > 1

    def decided(self, decide: Callable[[], T]) -> T:
        """What the first process decides, a picklable value; the others wait for it, and fail when it fails."""
        if not self.are_several:
            return decide()
        box: list[Any] = [*_tried(decide)] if self.is_first else [None, None]
        with _peers():
            dist.broadcast_object_list(box)
        if box[1] is not None:
            raise box[1]
        decision: T = box[0]
        return decision

    def gathered(self, make: Callable[[], T]) -> list[T]:
        """What each process makes, picklable values in the order of the processes; all fail when one fails."""
        if not self.are_several:
            return [make()]
        found: list[Any] = [None] * self.shard.world
        made = _tried(make)
        with _peers():
            dist.all_gather_object(found, made)
        for _, error in found:
            if error is not None:
                raise error
        return [value for value, _ in found]

    def together(self, make: Callable[[], T]) -> T:
        """What this process makes, any value, once all have made theirs; all fail when one fails."""
        own: list[T] = []
        self.gathered(lambda: own.append(make()))
        return own[0]

    def any(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """Of each flag whether it is up in any process."""
        if not self.are_several:
            return list(flags)
        sums = self.summed(torch.tensor([float(flag) for flag in flags], device=device))
        return [bool(total) for total in sums.tolist()]

    def summed(self, values: Tensor) -> Tensor:
        """The sum over the processes, the same bits in each; without gradient."""
        if self.are_several:
            values = values.detach().clone()
            dist.all_reduce(values)
        return values

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Puts the mean over the processes into each of these tensors of one type and device."""
        if not self.are_several:
            return
        means = self.summed(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.shard.world
        parts = torch.split(means, [tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))


ALONE = Processes()


def _tried(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What is made, or why not: the others must not wait for what will not come."""
    try:
        return make(), None
    except (AdvsentryError, OSError) as error:
        return None, error


@contextmanager
def _peers() -> Iterator[None]:
    """Names the one thing that an exchange of values fails for.

    Raises:
        SetupError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        why = str(error).partition("\n")[0]
        raise SetupError(
            f"torchrun: expected every process until the end, got one that is gone ({why}); what it said itself stands "
            "above"
        ) from error


def check_shareable(recipe: Recipe, batch_size: int, processes: Processes) -> None:
    """Refuses what several processes would not train as one does.

    Raises:
        SetupError: a batch that does not divide, a term over the whole batch, or perturbations that are remembered.
    """
    world = processes.shard.world
    if batch_size % world:
        raise SetupError(
            f"train.batch_size: expected a multiple of {world}, for {world} processes, got {batch_size}; "
            "change it or --nproc-per-node"
        )
    if world > 1 and recipe.attack.renew_epochs:
        raise SetupError(
            f"attack.renew_epochs: expected 0 with {world} processes, got {recipe.attack.renew_epochs}: each would "
            "remember its own images only; change it or train in one process"
        )
    if world > 1 and recipe.sar.weight and recipe.sar.form == "batch2d":
        raise SetupError(
            f"sar.form: expected per_sample with {world} processes, got batch2d, whose DFT runs over the whole batch; "
            "change it or train in one process"
        )
    if world > 1 and recipe.metric.weight:
        raise SetupError(
            f"metric.weight: expected 0 with {world} processes, got {recipe.metric.weight:g}: its tuples are mined in "
            "the whole batch; change it or train in one process"
        )


@contextmanager
def connected(
    device: torch.device | None, *, patience: timedelta | None = None
) -> Iterator[tuple[torch.device, Processes]]:
    """This process's device, and the processes that torchrun started, connected for the time of the block.

    Args:
        device: None for CUDA where there is one, else the CPU; under torchrun its kind alone counts, and each process
            has a GPU of its own.
        patience: None for processes that exchange tensors of their device, as those of a step do. Else they exchange
            plain values alone, through the CPU, and wait that long for each other.

    Raises:
        SetupError: torchrun started more processes than this machine has GPUs, or not as many on each machine.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield device, ALONE
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    machines = int(os.environ.get("GROUP_WORLD_SIZE", world // here))
    if machines * here != world:
        raise SetupError(
            f"torchrun: expected as many processes on each of {machines} machines, got {here} here and {world} in all; "
            "give all the same --nproc-per-node"
        )
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise SetupError(
            f"torchrun: expected at most a process for each of {torch.cuda.device_count()} GPUs, got {here}; "
            "lower --nproc-per-node"
        )
    from lightning_fabric import Fabric  # costs seconds, which one process alone need not spend
    from lightning_fabric.strategies.ddp import DDPStrategy

    strategy = "ddp" if patience is None else DDPStrategy(process_group_backend="gloo", timeout=patience)
    fabric = Fabric(accelerator=device.type, devices=here, num_nodes=machines, strategy=strategy)
    fabric.launch()
    try:
        yield fabric.device, Processes(shard=Shard(rank=fabric.global_rank, world=fabric.world_size))
    finally:
        dist.destroy_process_group()
