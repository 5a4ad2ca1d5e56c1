"""The sections of a recipe on the training method: attack, loss terms, and what is done to the weights.

Each loss term and each change of the weights is off at weight 0 (and then draws no random number and costs no pass), so
that plain adversarial training remains, bit for bit.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from training.checks import at_least, require

__all__ = [
    "AttackConfig",
    "AveragingConfig",
    "AwpConfig",
    "PairingConfig",
    "SarConfig",
    "TlaConfig",
    "TradesConfig",
]


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """The threat model, and the attack that training uses in it."""

    SECTION: ClassVar[str] = "attack"

    name: str = "pgd"
    """A name in training.attacks.ATTACKS, or `none` for training on clean images."""
    norm: Literal["linf", "l2"] = "linf"
    eps: float
    """Budget, images being in [0, 1]; a recipe may say "8/255". Evaluation reads it too."""
    step: float = 0.0
    """Step size; 0 leaves it to the attack (n_fgsm and fgsm: eps, pgd: 2.5 eps / steps)."""
    steps: int = 10
    """Gradient steps; pgd only."""
    first_steps: int = 0
    """Progressive schedule: pgd begins with this many steps and reaches `steps` at the end of the run; 0 is `steps`
    from the start. While there are fewer steps, each is 2.5 eps / steps long."""
    loss: Literal["ce", "margin", "kl"] = "ce"
    """What pgd raises: cross-entropy, margin of the logits, or (TRADES) divergence from the clean answer."""
    renew_epochs: int = 0
    """pgd begins where it left each image in the epoch before, and anew after this many epochs, so that few steps do;
    of all augmentations it goes with train.shift only. 0 begins anew at each step."""
    guard: bool = False
    """Against catastrophic overfitting of one-step attacks: watches PGD accuracy on the selection part, and when it
    collapses goes back to the last good weights and on with pgd of `guard_steps`."""
    guard_steps: int = 3
    """Gradient steps of the attack that the guard turns to."""
    warmup_epochs: float = 0.0
    """Epochs over which the training attack's eps and step rise from 0; against a large eps from the first step on, a
    network may learn nothing but to give the same answer to every image."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.eps) and self.eps > 0, "attack.eps", "a number above 0", self.eps)
        require(self.norm != "linf" or self.eps <= 1, "attack.eps", "at most 1 for norm linf", self.eps)
        at_least(0, "attack.step", self.step)
        at_least(0, "attack.warmup_epochs", self.warmup_epochs)
        for key, low in (("steps", 1), ("first_steps", 0), ("guard_steps", 1), ("renew_epochs", 0)):
            at_least(low, f"attack.{key}", getattr(self, key))
        require(self.first_steps <= self.steps, "attack.first_steps", "at most attack.steps", self.first_steps)
        require(
            self.name == "pgd" or not self.first_steps, "attack.first_steps", f"0 for {self.name}", self.first_steps
        )
        require(
            self.name == "pgd" or not self.renew_epochs, "attack.renew_epochs", f"0 for {self.name}", self.renew_epochs
        )
        require(self.name != "none" or not self.guard, "attack.guard", "false for none", self.guard)
        require(self.name == "pgd" or self.loss == "ce", "attack.loss", f"ce for {self.name}", self.loss)


@dataclass(frozen=True, kw_only=True)
class TlaConfig:
    """Triplet loss adversarial training (training/losses/tla.py)."""

    SECTION: ClassVar[str] = "tla"

    weight: float = 0.0
    """lambda1, of each triplet term; 0 is plain adversarial training."""
    margin: float = 0.03
    norm_weight: float = 1e-3
    """lambda2, of the squared embeddings inside each triplet term."""
    pool: int = 128
    """Random clean images that negatives are mined from at each step."""
    kinds: tuple[Literal["own", "other"], ...] = ("own", "other")
    """Positives: the anchor's own clean image, another clean image of its class, or both."""
    mine_by: Literal["cosine", "distance", "random"] = "cosine"
    """The most similar negative by signed cosine (as released), the one of least 1 - |cos|, or any (TLA-RN)."""
    switched: bool = False
    """TLA-SA: the clean image is the anchor and the attacked one the positive."""
    own_noise: bool = True
    """The own image gets uniform noise of attack.eps (Linf) first; without it, it shares its pass with other terms."""

    def __post_init__(self) -> None:
        for key, low in (("weight", 0), ("margin", 0), ("norm_weight", 0), ("pool", 2)):
            at_least(low, f"tla.{key}", getattr(self, key))
        require(bool(self.kinds), "tla.kinds", "at least one of own, other", list(self.kinds))
        require(len(set(self.kinds)) == len(self.kinds), "tla.kinds", "each kind once", list(self.kinds))


@dataclass(frozen=True, kw_only=True)
class SarConfig:
    """Spectral alignment of the logits (training/losses/sar.py)."""

    SECTION: ClassVar[str] = "sar"

    weight: float = 0.0
    """lambda: about 0.6 / classes for per_sample, 0.1 for batch2d; 0 is plain adversarial training."""
    form: Literal["per_sample", "batch2d"] = "per_sample"
    """DFT over the classes of each image, or over batch and classes at once, as the authors' code has it."""
    start_epoch: int = 0
    """Epochs without the term at the beginning."""
    stop_gradient: bool = False
    """Holds the clean branch fixed."""

    def __post_init__(self) -> None:
        for key in ("weight", "start_epoch"):
            at_least(0, f"sar.{key}", getattr(self, key))


@dataclass(frozen=True, kw_only=True)
class PairingConfig:
    """Logit pairing (training/losses/pairing.py): the baseline of SAR, and with l2 adversarial logit pairing (ALP)."""

    SECTION: ClassVar[str] = "pairing"

    weight: float = 0.0
    """0 is plain adversarial training; docs/training.md says which weights match SAR in strength."""
    distance: Literal["l1", "l2"] = "l2"
    """Of the logits of clean and attacked image: sum of absolute or of squared differences."""
    start_epoch: int = 0
    """Epochs without the term at the beginning."""
    stop_gradient: bool = False
    """Holds the clean branch fixed."""

    def __post_init__(self) -> None:
        for key in ("weight", "start_epoch"):
            at_least(0, f"pairing.{key}", getattr(self, key))


@dataclass(frozen=True, kw_only=True)
class TradesConfig:
    """TRADES (training/losses/trades.py): takes the place of the cross-entropy on attacked images."""

    SECTION: ClassVar[str] = "trades"

    weight: float = 0.0
    """beta, 6 in the paper, together with attack.loss = "kl"; 0 is plain adversarial training."""

    def __post_init__(self) -> None:
        at_least(0, "trades.weight", self.weight)


@dataclass(frozen=True, kw_only=True)
class AwpConfig:
    """Adversarial weight perturbation (training/awp.py)."""

    SECTION: ClassVar[str] = "awp"

    weight: float = 0.0
    """gamma, the perturbation's size beside its weights': 0.01 in the paper, 0.005 with TRADES; 0 is none."""
    start_epoch: int = 0
    """Epochs without it at the beginning."""

    def __post_init__(self) -> None:
        for key in ("weight", "start_epoch"):
            at_least(0, f"awp.{key}", getattr(self, key))


@dataclass(frozen=True, kw_only=True)
class AveragingConfig:
    """Weight averaging (training/averaging.py); the averaged network is then the one that is kept."""

    SECTION: ClassVar[str] = "averaging"

    kind: Literal["none", "swa", "ema"] = "none"
    """swa: equal weights, once an epoch (as SAR's authors do); ema: exponential, at every step."""
    start_epoch: int = 0
    """Epochs before the first that counts; for swa choose those of small learning rates."""
    decay: float = 0.999
    """Of ema, a step."""
    statistics: Literal["averaged", "clean"] = "averaged"
    """Of batch normalisation: averaged with the weights, or estimated anew on clean images (as SAR's authors do)."""

    def __post_init__(self) -> None:
        at_least(0, "averaging.start_epoch", self.start_epoch)
        require(0 <= self.decay < 1, "averaging.decay", "a number in [0, 1)", self.decay)
