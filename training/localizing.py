"""Localized adversarial training: the training attack keeps to a part of each image, and some images stay clean.

    x' = x + delta,   |delta| <= s eps,   s = 1 in the region and elsewhere_eps / eps outside of it
    of each batch the share 1 / (1 + clean_ratio) is attacked, the rest is trained on as it is

With elsewhere_eps = 0 and clean_ratio = 1 this is training on clean and background-attacked images (Rothberg et al.
2019, arXiv 1909.04779, implemented from the abstract's formulation: masks, budgets and mixture are ours); with region
foreground, a mask by Grad-CAM, elsewhere_eps = 7/8 eps and clean_ratio = 0 it is PART (Zhang et al. 2024,
arXiv 2406.00685), whose masks differ by channel where ours hold for all. Terms of the loss see clean and attacked
images as ever; epochs are chosen by the confined attack.
"""

from typing import Any

import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks import Attack, Fgsm, Pgd
from training.attacks.localized import Localized, PartOf, Region, confined, shares_of
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.attacks.threat import named_norm
from training.config import Recipe
from training.data.augment import moved
from training.data.batches import ImageSource
from training.masks import Masks, build_masks
from training.models import Classifier
from training.processes import ALONE, Processes

__all__ = ["Localizer", "build_localizer"]


class Localizer:
    """Confines a run's attacks."""

    def __init__(self, recipe: Recipe, masks: Masks, source: ImageSource) -> None:
        """Takes what tells the background and the training images."""
        self._config = recipe.localized
        self._region: Region = "background" if recipe.localized.region == "background" else "foreground"
        self._elsewhere = recipe.localized.elsewhere_eps / recipe.attack.eps
        self._masks = masks
        self._source = source
        self._kept = None if recipe.localized.fresh else _Kept(source)

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
        """The images of a step, (N, C, H, W) in [0, 1]: some attacked, the others the clean ones themselves.

        Args:
            attack: of the step.
            network: that is attacked.
            clean: (N, C, H, W), augmented.
            labels: (N,).
            generator: of the attack.
            positions: (N,) of the images in the source.
            moves: as drawn_moves() gave them.
            epoch: completed ones.
        """
        assert isinstance(attack, Pgd | Fgsm)  # the recipe allows no other
        if epoch < self._config.start_epoch:
            return attack(network, clean, labels, generator) if self._config.elsewhere_eps else clean
        rows = attacked_rows(len(clean), self._config.clean_ratio)
        if len(rows) == len(clean):
            return self._made(attack, network, clean, labels, generator, positions, moves)
        made = clean.clone()
        own = None if moves is None else moves[:, rows]
        places = rows.to(clean.device)
        made[places] = self._made(attack, network, clean[places], labels[places], generator, positions[rows], own)
        return made

    def _made(
        self,
        attack: Pgd | Fgsm,
        network: nn.Module,
        clean: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        positions: Tensor,
        moves: Tensor | None,
    ) -> Tensor:
        if not len(clean):
            return clean
        shares = shares_of(self._background(clean, positions, moves), self._region, self._elsewhere)
        if self._kept is None:
            return confined(attack, shares)(network, clean, labels, generator)
        known = self._kept.is_known(positions).to(clean.device)
        new = ~known
        if bool(new.any()):
            own = None if moves is None else moves[:, new.cpu()]
            attacked = confined(attack, shares[new])(network, clean[new], labels[new], generator)
            self._kept.keep(positions[new.cpu()], moved(attacked, None if own is None else -own))
        # What lies beyond the edge of a moved image is lost, and may be neither in the region nor within the budget.
        part = PartOf(norm=named_norm(attack.norm), shares=shares)
        changes = moved(self._kept.images(positions), moves) - clean
        return (clean + part.project(changes, attack.eps)).clamp(0, 1)

    def _background(self, clean: Tensor, positions: Tensor, moves: Tensor | None) -> Tensor:
        if not self._masks.is_stored:
            return self._masks(clean)
        return moved(self._masks(self._source.take(positions)).float(), moves) > 0.5

    def measuring(self, attack: Attack) -> Attack:
        """The attack by which epochs are chosen, confined as training is."""
        assert isinstance(attack, Pgd | Fgsm)
        return Localized(attack=attack, masks=self._masks, region=self._region, elsewhere=self._elsewhere)

    @property
    def record(self) -> dict[str, str]:
        """For the log: which network the masks are of, where they are of one."""
        return {"mask_network": self._masks.network} if self._masks.network else {}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"masks": self._settled, "kept": self._kept.state() if self._kept is not None else None}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes back to where state() was taken.

        Raises:
            SetupError: the run or file of the section holds another network or other masks now.
        """
        if state["masks"] != self._settled:
            key = "run" if self._config.run else "file"
            raise SetupError(
                f"localized.{key}: expected {state['masks']}, by which this training began, got {self._settled}; put "
                f"that back into {getattr(self._config, key)}"
            )
        if self._kept is not None:
            self._kept.load_state(state["kept"])

    @property
    def _settled(self) -> str:
        """Masks that must not change while the run is stopped: those of another run, or of a file; else empty."""
        return repr(self._masks) if self._config.run or self._masks.is_stored else ""


class _Kept:
    """The attacked version of each training image, once there is one."""

    def __init__(self, source: ImageSource) -> None:
        count, height, width, channels = source.shape
        self._images = torch.zeros(count, height, width, channels, dtype=torch.uint8, device=source.device)
        self._known = torch.zeros(count, dtype=torch.bool)

    def is_known(self, positions: Tensor) -> Tensor:
        return self._known[positions]

    def images(self, positions: Tensor) -> Tensor:
        return from_8_bit(self._images[positions.to(self._images.device)])

    def keep(self, positions: Tensor, attacked: Tensor) -> None:
        self._images[positions.to(self._images.device)] = nearest_8_bit(attacked)
        self._known[positions] = True

    def state(self) -> dict[str, Any]:
        return {"images": self._images, "known": self._known}

    def load_state(self, state: dict[str, Any]) -> None:
        self._images.copy_(state["images"])
        self._known.copy_(state["known"])


def attacked_rows(count: int, clean_ratio: float) -> Tensor:
    """Which rows of a batch are attacked: the share 1 / (1 + clean_ratio) of them, evenly spread, no random number.

    >>> attacked_rows(6, 1.0).tolist(), attacked_rows(6, 2.0).tolist(), attacked_rows(2, 0.0).tolist()
    ([1, 3, 5], [2, 5], [0, 1])
    """
    whole = ((torch.arange(count + 1) / (1 + clean_ratio)) + 1e-6).floor()
    return torch.nonzero(whole[1:] > whole[:-1])[:, 0]


def build_localizer(
    recipe: Recipe,
    model: Classifier,
    source: ImageSource,
    batch_size: int,
    processes: Processes = ALONE,
    masks: Masks | None = None,
) -> Localizer:
    """What a recipe's section asks for, where it is on.

    Args:
        recipe: of the run.
        model: that is trained.
        source: the training images.
        batch_size: of all processes together.
        processes: that share it.
        masks: instead of those of the section; needed for those of a file.

    Raises:
        SetupError: masks that cannot be made, or a mixture that several processes cannot share.
    """
    config, world = recipe.localized, processes.shard.world
    if world > 1 and not config.fresh:
        raise SetupError(
            f"localized.fresh: expected true with {world} processes, got false: each would keep its own images only"
        )
    attacked = batch_size / world / (1 + config.clean_ratio)
    if world > 1 and abs(attacked - round(attacked)) > 1e-6:
        raise SetupError(
            f"localized.clean_ratio: expected one that leaves each of {world} processes as many images to attack, got "
            f"{config.clean_ratio:g} for a batch of {batch_size}"
        )
    _, height, width, channels = source.shape
    return Localizer(recipe, masks or build_masks(config, model, (height, width, channels), None), source)
