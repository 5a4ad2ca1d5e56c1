"""Perturbations that live on from epoch to epoch, so that few steps an epoch add up to a strong attack.

Each training image's attacked version is kept as 8 bits, and the next epoch's attack begins there instead of at a
random start. From time to time all begin anew, lest they become those of a network long gone.

Source: Zheng et al. 2020 (arXiv 1912.11969). Of augmentations we invert shifts only, and we keep 8 bits.
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.attacks import Attack, Pgd
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.data.augment import moved
from training.data.batches import ImageSource

__all__ = ["AttackMemory"]


class AttackMemory:
    """The latest attacked version of every training image."""

    def __init__(self, source: ImageSource, renew_epochs: int) -> None:
        """Takes the training images and after how many epochs all perturbations begin anew."""
        self._source = source
        self._renew_epochs = renew_epochs
        count, height, width, channels = source.shape
        self._images = torch.zeros(count, height, width, channels, dtype=torch.uint8, device=source.device)
        self._epochs = torch.full((count,), -1, device=source.device)  # in which each was kept

    def attacked(
        self,
        attack: Attack,
        network: nn.Module,
        clean: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        positions: Tensor,
        moves: Tensor | None,
        epoch: int,
    ) -> Tensor:
        """A step's attacked images (N, C, H, W), begun where an epoch before left them; they are kept.

        Args:
            attack: of the step; one that cannot begin elsewhere begins as ever.
            network: that is attacked.
            clean: (N, C, H, W), augmented.
            labels: (N,).
            generator: of the attack.
            positions: (N,) of the images in the source.
            moves: as drawn_moves() gave them.
            epoch: completed ones.
        """
        if not isinstance(attack, Pgd):
            return attack(network, clean, labels, generator)
        start = self.start(positions, epoch)
        start = None if start is None else moved(start, moves)
        attacked = attack.begun_at(start, network, clean, labels, generator)
        self.keep(positions, moved(attacked, None if moves is None else -moves), epoch)
        return attacked

    def start(self, positions: Tensor, epoch: int) -> Tensor | None:
        """Where the attack begins, (n, C, H, W) in [0, 1]; None in epochs that begin anew.

        Images of which nothing is known since then, because an epoch's last incomplete batch was left out, begin as
        they are.
        """
        since_renewal = epoch % self._renew_epochs
        if since_renewal == 0:
            return None
        places = positions.to(self._images.device)
        is_known = self._epochs[places] >= epoch - since_renewal
        kept = from_8_bit(self._images[places])
        return torch.where(is_known[:, None, None, None], kept, self._source.take(positions))

    def keep(self, positions: Tensor, attacked: Tensor, epoch: int) -> None:
        """Remembers (n, C, H, W) in [0, 1]."""
        places = positions.to(self._images.device)
        self._epochs[places] = epoch
        self._images[places] = nearest_8_bit(attacked)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"images": self._images, "epochs": self._epochs}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where state() was taken."""
        self._images.copy_(state["images"])
        self._epochs.copy_(state["epochs"])
