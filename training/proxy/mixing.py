"""Which images each step of a run takes: real ones, and generated ones beside them.

    loss = gamma * (mean over the real images) + (1 - gamma) * (mean over the generated ones)

The share of generated images in a batch and their weight are apart. An epoch is a pass over the real images; the
generated ones go on from epoch to epoch, in passes of their own, so that a set of millions is seen in the end.

Source: the objective of Sehwag et al. 2022 (arXiv 2104.09425). We differ from the released code in that gamma counts
(there it is read and not used), and in the length of an epoch, which is that of the shorter of both sets there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.errors import SetupError
from training.data import ImageSet
from training.data.batches import ImageSource, epoch_order
from training.losses.protocol import TrainingStep
from training.methods_proxy import ProxyConfig
from training.models import Classifier
from training.shard import WHOLE, Shard

__all__ = ["Draw", "Mix", "ProxySource", "batch_split"]

GENERATED = 1
"""Tells the random order of the generated images from that of the real ones."""
PERMUTED = 1 << 20
"""Images up to which a random choice shuffles all of them."""


class ProxySource(ImageSource):
    """Generated images: they may be millions in a mapped file, so each batch alone goes to the device."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        super().__init__(images, device, keeps_images=False)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See ImageSource; of many images, without shuffling all of them."""
        if len(self) <= max(PERMUTED, 4 * count):
            return super().draw(count, generator)
        found = torch.tensor(sorted(set(torch.randint(len(self), (2 * count,), generator=generator).tolist())))
        return found[torch.randperm(len(found), generator=generator)[:count]]


@dataclass(frozen=True, kw_only=True)
class _Share:
    """The real or the generated images of a batch, those of one process."""

    source: ImageSource
    positions: Tensor
    """(n,) in the source, on the CPU."""
    rows: Tensor
    """(n,) in the batch."""
    weight: float


class Draw:
    """The images of one batch, those of one process; a batch of one source has one share."""

    def __init__(self, shares: Sequence[_Share]) -> None:
        self._shares = shares
        self._order = torch.argsort(torch.cat([share.rows for share in shares]))

    def __len__(self) -> int:
        return len(self._order)

    @property
    def positions(self) -> Tensor:
        """(N,) in the real source, of a batch without generated images."""
        (share,) = self._shares
        return share.positions

    def images(self) -> Tensor:
        """Float images (N, C, H, W) in [0, 1], in the batch's order."""
        return self._merged([share.source.take(share.positions) for share in self._shares])

    def labels(self) -> Tensor:
        """(N,) in the same order."""
        return self._merged([share.source.labels[share.positions.to(share.source.device)] for share in self._shares])

    def _merged(self, several: Sequence[Tensor]) -> Tensor:
        if len(several) == 1:
            return several[0]
        every = torch.cat(list(several))
        return every[self._order.to(every.device)]

    def steps(
        self,
        clean: Tensor,
        attacked: Tensor,
        labels: Tensor,
        domains: Sequence[Tensor] = (),
        *,
        model: Classifier,
        epoch: int,
        generator: torch.Generator,
    ) -> list[TrainingStep]:
        """What the loss terms see: a step for the real images and one for the generated ones, each with its weight.

        Args:
            clean: (N, C, H, W), as images() gave them, augmented.
            attacked: (N, C, H, W).
            labels: (N,).
            domains: (N, C, H, W) each, the attacked versions in several norms.
            model: in train mode.
            epoch: completed ones.
            generator: for the loss terms.
        """
        every = (clean, attacked, labels, *domains)
        steps = []
        for share in self._shares:
            rows = share.rows.to(labels.device)
            # What is one tensor stays one: the network sees it once.
            own = {id(one): one if len(self._shares) == 1 else one[rows] for one in every}
            steps.append(
                TrainingStep(
                    model=model,
                    clean=own[id(clean)],
                    attacked=own[id(attacked)],
                    labels=own[id(labels)],
                    positions=share.positions,
                    source=share.source,
                    epoch=epoch,
                    generator=generator,
                    domains=tuple(own[id(one)] for one in domains),
                    weight=share.weight,
                )
            )
        return steps


class Mix:
    """The batches of a run as a pure function of epoch and batch, so that resuming needs no state.

    Attributes:
        batch_size: images of a batch, of all processes.
        steps_an_epoch: batches in a pass over the real images; what is left over waits for another epoch's order.
    """

    def __init__(
        self,
        config: ProxyConfig,
        real: ImageSource,
        generated: ImageSource | None,
        *,
        batch_size: int,
        seed: int,
        shard: Shard = WHOLE,
    ) -> None:
        """Takes None for `generated` where the recipe has none.

        Raises:
            SetupError: several processes cannot share each kind of images evenly.
        """
        self._real, self._generated = real, generated
        self._gamma, self._seed, self._shard = config.gamma, seed, shard
        self._sizes = min(batch_size, len(real)), 0
        if generated is not None:
            self._sizes = batch_split(batch_size, config.share, len(real))
            _check_world(self._sizes, shard.world)
        self.batch_size = sum(self._sizes)
        self.steps_an_epoch = len(real) // self._sizes[0]
        self._kept: dict[str, tuple[int, Tensor]] = {}

    def drawn(self, epoch: int, batch: int) -> Draw:
        """The images of this batch of this epoch, both counted from 0."""
        count, others = self._sizes
        order = self._order("real", epoch)
        positions = self._shard.rows(order[batch * count :][:count])
        if self._generated is None:
            rows = torch.arange(len(positions))
            return Draw([_Share(source=self._real, positions=positions, rows=rows, weight=1.0)])
        is_generated = self._shard.rows(_pattern(count, others))
        proxies = self._shard.rows(self._proxies(epoch * self.steps_an_epoch + batch))
        shares = (
            (self._real, positions, ~is_generated, self._gamma),
            (self._generated, proxies, is_generated, 1 - self._gamma),
        )
        return Draw(
            [
                _Share(source=source, positions=where, rows=torch.where(mine)[0], weight=weight)
                for source, where, mine, weight in shares
            ]
        )

    def _proxies(self, step: int) -> Tensor:
        """Positions of the generated images of a step of the run."""
        assert self._generated is not None
        count, places, found = len(self._generated), step * self._sizes[1], 0
        parts = []
        while found < self._sizes[1]:  # a batch may end one pass over the set and begin the next
            number, start = divmod(places + found, count)
            part = self._order("generated", number)[start:][: self._sizes[1] - found]
            parts.append(part)
            found += len(part)
        return torch.cat(parts)

    def _order(self, kind: str, number: int) -> Tensor:
        """The order of a pass over one of both sets; the latest is kept."""
        if kind not in self._kept or self._kept[kind][0] != number:
            if kind == "real":
                order = epoch_order(len(self._real), self._seed, number)
            else:
                assert self._generated is not None
                random = np.random.default_rng(np.random.SeedSequence([self._seed, number, GENERATED]))
                order = torch.from_numpy(random.permutation(len(self._generated)))
            self._kept[kind] = number, order
        return self._kept[kind][1]


def batch_split(batch_size: int, share: float, images: int) -> tuple[int, int]:
    """Real and generated images of a batch; at least one of each, and no more real ones than there are.

    >>> batch_split(256, 0.5, 50000)
    (128, 128)
    >>> batch_split(256, 0.75, 16)
    (16, 48)
    """
    generated = min(max(1, round(share * batch_size)), batch_size - 1)
    real = batch_size - generated
    if real > images:
        real, generated = images, max(1, round(images * share / (1 - share)))
    return real, generated


def _pattern(real: int, generated: int) -> Tensor:
    """(real + generated,) where a generated image stands: spread evenly, so that each process's rows have as many."""
    places = torch.arange(real + generated + 1) * generated // (real + generated)
    return places[1:] > places[:-1]


def _check_world(sizes: tuple[int, int], world: int) -> None:
    for what, count in zip(("real", "generated"), sizes, strict=True):
        if count % world:
            raise SetupError(
                f"proxy.share: expected a multiple of {world} {what} images a batch, for {world} processes, got "
                f"{count}; change it, train.batch_size or --nproc-per-node"
            )
