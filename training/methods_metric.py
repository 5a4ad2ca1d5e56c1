"""The section of a recipe on robust metric learning, and what may stand beside it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from service.errors import SetupError
from training.checks import at_least, require

if TYPE_CHECKING:
    from training.config import Recipe

__all__ = ["MetricConfig", "check_beside_metric"]

MARGINS = {"triplet": 0.2, "contrastive": 0.5}
ANCHOR_MOVES = ("anchor", "all", "hardness")


@dataclass(frozen=True, kw_only=True)
class MetricConfig:
    """Robust metric learning (training/losses/metric.py)."""

    SECTION: ClassVar[str] = "metric"

    weight: float = 0.0
    """Of the metric loss; 0 is training without it."""
    loss: Literal["triplet", "contrastive"] = "triplet"
    margin: float = 0.0
    """In Euclidean distance of embeddings of unit length; 0 takes 0.2 for triplets and 0.5 for contrastive."""
    mining: Literal["semi-hard", "hard", "random"] = "semi-hard"
    """Which negative an anchor gets, among the clean images of the batch: a random one that is farther than the
    positive by less than the margin, the nearest, or any."""
    tuples: int = 8
    """Of each anchor; more learn faster at little cost, since an image is perturbed once for all its tuples."""
    attack: Literal["none", "anchor", "positive", "negative", "all", "hardness"] = "anchor"
    """Whose image is perturbed, within attack.eps, to raise the loss of its tuple; hardness perturbs all three toward a
    bounded hardness (RobDML). all is the full min-max, under which embeddings tend to collapse."""
    steps: int = 8
    """Gradient steps of that attack."""
    step: float = 0.0
    """Its step size; 0 takes 2.5 eps / steps."""
    warmup_epochs: int = 0
    """Epochs over which its eps and step rise."""
    clean_share: float = 0.0
    """Share of the loss that is taken on the clean tuple instead."""
    gamma: float = 0.2
    """hardness: the most that the attack aims below a hardness of 0."""
    loss_bound: float = 0.2
    """hardness: u, the loss from which on the attack aims no lower."""
    ics_weight: float = 0.0
    """lambda of the intra-class structure: a perturbed anchor should be no farther from its clean image than the
    positive is; 0.5 in the paper."""
    classification_weight: float = 1.0
    """Of the recipe's classification loss beside it; 0 trains the embedding alone, and the head becomes the class
    centres."""
    least_distance: float = 0.02
    """The run stops where the mean distance of training images falls below this: all embeddings have become one."""

    def __post_init__(self) -> None:
        for key, low in (("weight", 0), ("margin", 0), ("tuples", 1), ("steps", 1), ("step", 0), ("warmup_epochs", 0)):
            at_least(low, f"metric.{key}", getattr(self, key))
        for key in ("gamma", "ics_weight", "classification_weight", "least_distance"):
            at_least(0, f"metric.{key}", getattr(self, key))
        require(self.margin <= 2, "metric.margin", "at most 2, the largest distance there is", self.margin)
        require(0 < self.loss_bound <= 4, "metric.loss_bound", "a number above 0, at most 4", self.loss_bound)
        require(0 <= self.clean_share < 1, "metric.clean_share", "a number in [0, 1)", self.clean_share)
        require(self.gamma <= 2, "metric.gamma", "at most 2", self.gamma)
        require(self.attack != "hardness" or self.loss == "triplet", "metric.loss", "triplet for hardness", self.loss)
        require(
            self.attack in ANCHOR_MOVES or not self.ics_weight,
            "metric.ics_weight",
            f"0 for metric.attack {self.attack}, which leaves the anchor as it is",
            self.ics_weight,
        )

    @property
    def own_margin(self) -> float:
        """The margin, or the loss's default."""
        return self.margin or MARGINS[self.loss]

    @property
    def is_alone(self) -> bool:
        """Whether the embedding is trained without a classification loss."""
        return self.weight > 0 and self.classification_weight == 0


def check_beside_metric(recipe: "Recipe") -> None:
    """Refuses what has nothing to work on where no classification loss trains the logits.

    Raises:
        SetupError: names the key.
    """
    config = recipe.metric
    if config.weight and config.warmup_epochs >= recipe.train.epochs:
        raise SetupError(
            f"metric.warmup_epochs: expected less than train.epochs, {recipe.train.epochs}, got "
            f"{config.warmup_epochs}; it would never come to its full effect"
        )
    if not config.is_alone:
        return
    if recipe.attack.name != "none":
        raise SetupError(
            'attack.name: expected "none" with metric.classification_weight = 0, got '
            f"{recipe.attack.name!r}, which attacks logits that nothing trains; metric.attack perturbs images"
        )
    if recipe.awp.weight:
        raise SetupError(
            f"awp.weight: expected 0 with metric.classification_weight = 0, got {recipe.awp.weight:g}; "
            "it perturbs a head that has no gradient"
        )
