"""Which rows of a batch belong to one of several processes, and random draws that are the same for any number of them.

A step's batch is one and the same for any number of processes; each computes on its own rows of it. Random numbers of
the rows are drawn for the whole batch, in every process alike, and each keeps its rows: a run by four processes sees
the images, starts and noise of a run by one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["WHOLE", "Shard", "ShardGenerator", "count_of_all", "own_of_all"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The rows of one process: contiguous, and as many as those of every other."""

    rank: int = 0
    """Of the process, from 0."""
    world: int = 1
    """Processes."""

    def rows(self, batch: Tensor, dim: int = 0) -> Tensor:
        """This process's rows of a whole batch, whose length along `dim` is a multiple of the processes."""
        return batch.chunk(self.world, dim)[self.rank] if self.world > 1 else batch


WHOLE = Shard()


class ShardGenerator(torch.Generator):
    """A generator whose draws for the rows of a batch are those of the whole batch; any other is for whole batches."""

    shard = WHOLE


def count_of_all(count: int, generator: torch.Generator) -> int:
    """Rows to draw where a process needs `count` of its own."""
    return count * generator.shard.world if isinstance(generator, ShardGenerator) else count


def own_of_all(draws: Tensor, generator: torch.Generator, dim: int = 0) -> Tensor:
    """The process's own rows of what was drawn for all."""
    return generator.shard.rows(draws, dim) if isinstance(generator, ShardGenerator) else draws
