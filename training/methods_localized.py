"""The recipe's section on attacks that see a part of each image only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from training.checks import at_least, require
from training.methods import AttackConfig
from training.sections import TrainConfig

__all__ = ["LocalizedConfig", "MaskKind", "check_localized"]

MaskKind = Literal["pixels", "box", "saliency", "cam", "segment", "file"]


@dataclass(frozen=True, kw_only=True)
class LocalizedConfig:
    """Localized adversarial training (training/localizing.py), and PART as a case of it."""

    SECTION: ClassVar[str] = "localized"

    region: Literal["none", "background", "foreground"] = "none"
    """Where the training attack changes images; none: everywhere, which is plain adversarial training."""
    mask: MaskKind = "pixels"
    """What tells the background: dark pixels, all outside a centre box, where a network does not look (saliency or
    Grad-CAM at or below `threshold`), colours (in the manner of GrabCut, within the box), or masks of your own."""
    elsewhere_eps: float = 0.0
    """Budget outside the region, at most attack.eps; linf only. PART: region = "foreground", mask = "cam", threshold =
    "deviation", 7/255 beside an eps of 8/255, clean_ratio = 0."""
    clean_ratio: float = 1.0
    """Clean images to one attacked image in each batch; 0 attacks all of them."""
    fresh: bool = True
    """Attacks anew in each epoch; false keeps what the attack made when an image's turn first came, as 8 bits, and goes
    with train.shift alone of all augmentations."""
    start_epoch: int = 0
    """Epochs before: on clean images, or where elsewhere_eps is above 0 (PART) of plain adversarial training."""
    pixel_level: float = 0.1
    """Of mask pixels: darker values, images being in [0, 1], are background."""
    dilate: int = 0
    """Of mask pixels: the foreground grows by so many pixels."""
    box_share: float = 0.75
    """Of masks box and segment: height and width of the centre box beside the image's."""
    threshold: Literal["median", "deviation"] = "median"
    """Of masks cam and saliency: foreground is what exceeds an image's own median, or its mean + 1 standard
    deviation."""
    run: str = ""
    """Of masks cam and saliency: the finished run whose network they are of; empty: the network that is trained, as it
    is at each step."""
    file: str = ""
    """Of mask file: an .npz with train_masks and test_masks, (N, H, W) in the data set's own order, 1 = background."""

    def __post_init__(self) -> None:
        for key in ("elsewhere_eps", "clean_ratio", "start_epoch"):
            at_least(0, f"localized.{key}", getattr(self, key))
        require(0 < self.pixel_level <= 1, "localized.pixel_level", "a number above 0, at most 1", self.pixel_level)
        require(0 <= self.dilate <= 8, "localized.dilate", "a number from 0 to 8", self.dilate)
        require(0 < self.box_share <= 1, "localized.box_share", "a number above 0, at most 1", self.box_share)
        require(self.mask != "file" or bool(self.file), "localized.file", "an .npz file for mask file", self.file)

    @property
    def is_on(self) -> bool:
        """Whether the training attack is confined at all."""
        return self.region != "none"


def check_localized(
    config: LocalizedConfig, attack: AttackConfig, train: TrainConfig, warping: tuple[str, ...]
) -> None:
    """Refuses a section that does not go with the recipe's others.

    Args:
        config: the section.
        attack: of the recipe.
        train: of the recipe.
        warping: keys of `train` whose augmentations cannot be done to a stored image or mask.

    Raises:
        SetupError: names the key, what was expected and what came.
    """
    if not config.is_on:
        return
    require(attack.name in ("pgd", "fgsm"), "attack.name", "pgd or fgsm, which localized.region confines", attack.name)
    require(attack.renew_epochs == 0, "attack.renew_epochs", "0 with localized.region", attack.renew_epochs)
    require(config.elsewhere_eps <= attack.eps, "localized.elsewhere_eps", "at most attack.eps", config.elsewhere_eps)
    require(
        attack.norm == "linf" or not config.elsewhere_eps,
        "localized.elsewhere_eps",
        "0 for norm l2",
        config.elsewhere_eps,
    )
    # The guard watches an attack on whole images, which training on a part alone does not resist anyway.
    require(not attack.guard or config.elsewhere_eps > 0, "attack.guard", "false with localized.region", attack.guard)
    stored = next((key for key, holds in (("mask", config.mask == "file"), ("fresh", not config.fresh)) if holds), "")
    used = next((key for key in warping if getattr(train, key)), "")
    require(
        not (stored and used),
        f"train.{used}",
        f"none with localized.{stored} = {getattr(config, stored or 'mask')!r}, which follows its image through "
        "train.shift alone",
        getattr(train, used or "shift"),
    )
    require(
        config.fresh or config.start_epoch >= attack.warmup_epochs,
        "attack.warmup_epochs",
        "at most localized.start_epoch with localized.fresh = false, which keeps what the attack makes",
        attack.warmup_epochs,
    )
    require(
        config.fresh or bool(train.start_from) or config.start_epoch > 0,
        "localized.fresh",
        "true, or train.start_from or localized.start_epoch set: else images are attacked on a network that has not "
        "learned anything",
        config.fresh,
    )
