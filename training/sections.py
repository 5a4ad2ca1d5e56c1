"""The sections of a recipe, each a frozen dataclass that refuses values out of range.

A check that fails raises SetupError naming `section.key`, what was expected and what came.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from service.errors import SetupError

__all__ = ["AttackConfig", "DataConfig", "ExportConfig", "ModelConfig", "TlaConfig", "TrainConfig"]


def _require(holds: bool, key: str, expected: str, value: object) -> None:
    if not holds:
        raise SetupError(f"{key}: expected {expected}, got {value!r}")


def _at_least(low: float, key: str, value: float) -> None:
    _require(math.isfinite(value) and value >= low, key, f"a number of at least {low:g}", value)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how many of them go to each part."""

    SECTION: ClassVar[str] = "data"

    set: str
    """A name in training.data.DATASETS."""
    train: int = 0
    """Training images; 0 takes all that the other parts leave."""
    selection: int = 0
    """Images that pick the best epoch; 0 keeps the last epoch."""
    fit: int
    """Images that detectors are fitted on."""
    calibration: int
    """Calibration images of the detectors; with tracks, one frame of this many tracks."""
    fusion: int
    """Calibration images of the fused statistic; with tracks, one frame of this many tracks."""
    seed: int = 0
    """Of the split; kept apart from train.seed so that runs of several seeds share their parts."""

    def __post_init__(self) -> None:
        for key, low in (
            ("train", 0),
            ("selection", 0),
            ("fit", 1),
            ("calibration", 1),
            ("fusion", 1),
            ("seed", 0),
        ):
            _at_least(low, f"data.{key}", getattr(self, key))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    SECTION: ClassVar[str] = "model"

    name: str = "small_cnn"
    """A name in training.models.MODELS."""
    width: int = 16
    """Channels of the first stage (small_cnn) or the widening factor k (wide_resnet)."""
    depth: int = 2
    """Stages (small_cnn), or layers 6n + 4 (wide_resnet)."""
    embedding_dim: int = 0
    """Length of the embedding; 0 leaves it to the model."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the first convolution; 2 makes an MNIST step about four times cheaper."""

    def __post_init__(self) -> None:
        for key, low in (("width", 1), ("depth", 1), ("embedding_dim", 0)):
            _at_least(low, f"model.{key}", getattr(self, key))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation."""

    SECTION: ClassVar[str] = "train"

    epochs: int
    batch_size: int = 128
    optimiser: Literal["sgd", "adam"] = "sgd"
    """SGD with Nesterov momentum 0.9, or Adam with decoupled weight decay."""
    learning_rate: float = 0.1
    """The peak of the schedule."""
    schedule: Literal["constant", "cosine", "one-cycle"] = "one-cycle"
    weight_decay: float = 5e-4
    """On weights of convolutions and linear layers only."""
    label_smoothing: float = 0.0
    shift: int = 0
    """Augmentation: each image is moved by up to this many pixels each way."""
    seed: int = 0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """auto: bf16 autocast where the processor computes in bf16, else float32."""
    threads: int = 0
    """Threads of torch; 0 leaves torch's own choice. Part of the recipe because sums depend on it."""
    max_minutes: float = 0.0
    """Ends the run after the epoch that passes it; 0 is no limit. The schedule does not know of it."""

    def __post_init__(self) -> None:
        for key, low in (("epochs", 1), ("batch_size", 2), ("weight_decay", 0), ("shift", 0), ("seed", 0)):
            _at_least(low, f"train.{key}", getattr(self, key))
        for key in ("threads", "max_minutes"):
            _at_least(0, f"train.{key}", getattr(self, key))
        _require(self.seed < 2**60, "train.seed", "a number below 2^60", self.seed)
        rate, smoothing = self.learning_rate, self.label_smoothing
        _require(math.isfinite(rate) and rate > 0, "train.learning_rate", "a number above 0", rate)
        _require(0 <= smoothing < 1, "train.label_smoothing", "a number in [0, 1)", smoothing)


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
    warmup_epochs: float = 0.0
    """Epochs over which the training attack's eps and step rise from 0; against a large eps from the first step on, a
    network may learn nothing but to give the same answer to every image."""

    def __post_init__(self) -> None:
        _require(math.isfinite(self.eps) and self.eps > 0, "attack.eps", "a number above 0", self.eps)
        _require(self.norm != "linf" or self.eps <= 1, "attack.eps", "at most 1 for norm linf", self.eps)
        _at_least(0, "attack.step", self.step)
        _at_least(0, "attack.warmup_epochs", self.warmup_epochs)
        _at_least(1, "attack.steps", self.steps)


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
    mine_by: Literal["cosine", "distance"] = "cosine"
    """The most similar negative by signed cosine (as released), or the one of least 1 - |cos|."""

    def __post_init__(self) -> None:
        for key, low in (("weight", 0), ("margin", 0), ("norm_weight", 0), ("pool", 2)):
            _at_least(low, f"tla.{key}", getattr(self, key))
        _require(bool(self.kinds), "tla.kinds", "at least one of own, other", list(self.kinds))
        _require(len(set(self.kinds)) == len(self.kinds), "tla.kinds", "each kind once", list(self.kinds))


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What becomes of a run when it is exported."""

    SECTION: ClassVar[str] = "export"

    detectors: tuple[str, ...] = ("gaussian", "mixture", "spectrum")
    """Names in training.detectors.DETECTORS; the fused statistic takes all of them."""
    default_alpha: float = 0.01
    """False-positive rate of the verdict when a caller asks for none; needs 1/alpha - 1 images in data.fusion."""
    version: str = "1"
    """Of the bundle."""

    def __post_init__(self) -> None:
        names = list(self.detectors)
        _require(bool(names) and len(set(names)) == len(names), "export.detectors", "one or more, each once", names)
        alpha = self.default_alpha
        _require(0 < alpha <= 0.1, "export.default_alpha", "a number above 0, at most 0.1", alpha)
        _require(bool(self.version), "export.version", "a version", self.version)
