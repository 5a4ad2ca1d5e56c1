"""The sections of a recipe on data, network, optimisation and export; methods.py has those on the training method.

Each is a frozen dataclass that refuses values out of range: SetupError names `section.key`, what was expected and what
came.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from service.detection.fusion import FusionKind
from training.checks import at_least, require

__all__ = ["DataConfig", "ExportConfig", "ModelConfig", "TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how many of them go to each part."""

    SECTION: ClassVar[str] = "data"

    set: str
    """A name in training.data.DATASETS."""
    train: int = 0
    """Training images; 0 takes all that the other parts leave."""
    selection: int = 0
    """Images that pick the best epoch: the highest clean accuracy within one standard error of the highest PGD
    accuracy; 0 keeps the last epoch."""
    fit: int
    """Images that detectors are fitted on; 0 fits them on the training part, where classes have few images."""
    calibration: int
    """Calibration images of the detectors; with tracks, one frame of this many tracks."""
    fusion: int
    """Calibration images of the fused statistic; with tracks, one frame of this many tracks."""
    classes: int = 0
    """Only the first so many classes of the set, the others being kept for `retrieve`; 0 is all."""
    seed: int = 0
    """Of the split; kept apart from train.seed so that runs of several seeds share their parts."""

    def __post_init__(self) -> None:
        for key, low in (
            ("classes", 0),
            ("train", 0),
            ("selection", 0),
            ("fit", 0),
            ("calibration", 1),
            ("fusion", 1),
            ("seed", 0),
        ):
            at_least(low, f"data.{key}", getattr(self, key))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    SECTION: ClassVar[str] = "model"

    name: str = "small_cnn"
    """A name in training.models.MODELS."""
    width: int = 16
    """Channels of the first stage (small_cnn, pursuit; resnet18, 64 in the paper), the widening factor k (wide_resnet)
    or units of a layer (pursuit_dense)."""
    depth: int = 2
    """Stages (small_cnn, pursuit), layers (pursuit_dense; 6n + 4 of wide_resnet), or blocks a stage, always 2
    (resnet18)."""
    embedding_dim: int = 0
    """Length of the embedding; 0 leaves it to the model."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the first convolution; 2 makes an MNIST step about four times cheaper."""
    soft_threshold: float = 0.0
    """small_cnn: a sigmoid of this steepness around 0.5 on each pixel value comes first, for images that are nearly
    black and white (MNIST: 15); 0 is none."""
    inference: Literal["feed_forward", "layered", "deep"] = "deep"
    """pursuit: activations by one pass, by basis pursuit layer after layer, or of all layers as one problem."""
    sweeps: int = 5
    """pursuit: T, of the deep problem, or proximal steps of each layer; 0 is one pass."""
    skips: bool = True
    """pursuit: whether activations skip layers; not with layered."""
    threshold: float = 1e-3
    """pursuit: what the first layer's thresholds begin at; each further layer's begin at half of those below."""

    def __post_init__(self) -> None:
        for key, low in (("width", 1), ("depth", 1), ("embedding_dim", 0), ("soft_threshold", 0), ("sweeps", 0)):
            at_least(low, f"model.{key}", getattr(self, key))
        at_least(0, "model.threshold", self.threshold)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation."""

    SECTION: ClassVar[str] = "train"

    epochs: int
    batch_size: int = 128
    """Images a step; all training images where there are fewer."""
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
    rotate: float = 0.0
    """Augmentation: each image is turned by up to this many degrees either way."""
    zoom: float = 0.0
    """Augmentation: each image is scaled by up to this share, up or down."""
    brightness: float = 0.0
    """Augmentation: up to this much is added to all values of an image, or taken from them."""
    contrast: float = 0.0
    """Augmentation: differences from an image's mean are scaled by up to this share, up or down."""
    flip: bool = False
    """Augmentation: each image is mirrored left to right with probability 1/2; not for digits or signs."""
    start_from: str = ""
    """A finished run whose weights training starts from (fine-tuning); same network, image size and classes."""
    seed: int = 0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """auto: bf16 autocast where the processor computes in bf16, else float32."""
    compile: bool = False
    """torch.compile the network's embedding for training; needs a C++ compiler, and did not pay on a CPU."""
    threads: int = 0
    """Threads of torch; 0 leaves torch's own choice. Part of the recipe because sums depend on it."""
    max_minutes: float = 0.0
    """Ends the run after the epoch that passes it; 0 is no limit. The schedule does not know of it."""

    def __post_init__(self) -> None:
        for key, low in (("epochs", 1), ("batch_size", 2), ("weight_decay", 0), ("shift", 0), ("seed", 0)):
            at_least(low, f"train.{key}", getattr(self, key))
        for key in ("threads", "max_minutes"):
            at_least(0, f"train.{key}", getattr(self, key))
        require(self.seed < 2**60, "train.seed", "a number below 2^60", self.seed)
        for key, high in (("rotate", 180), ("zoom", 0.9), ("brightness", 1), ("contrast", 0.9)):
            value = getattr(self, key)
            require(0 <= value <= high, f"train.{key}", f"a number from 0 to {high:g}", value)
        rate, smoothing = self.learning_rate, self.label_smoothing
        require(math.isfinite(rate) and rate > 0, "train.learning_rate", "a number above 0", rate)
        require(0 <= smoothing < 1, "train.label_smoothing", "a number in [0, 1)", smoothing)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What becomes of a run when it is exported."""

    SECTION: ClassVar[str] = "export"

    detectors: tuple[str, ...] = ("gaussian", "mixture", "spectrum")
    """Names in training.detectors.DETECTORS; the fused statistic takes all of them."""
    default_alpha: float = 0.01
    """False-positive rate of the verdict when a caller asks for none; needs 1/alpha - 1 images in data.fusion."""
    fusion: FusionKind = "fisher"
    """How p-values become one: fisher (many weak signs), harmonic (one strong sign), or weighted (learned from forged
    perturbations, which no attack made)."""
    mondrian: bool = False
    """Whether the fused p-value is calibrated by predicted class, where a class has 1/default_alpha - 1 images or more;
    docs/detection.md says what that promises."""
    version: str = "1"
    """Of the bundle."""
    resize: bool = False
    """Whether the bundle takes images of any height and width; they are stretched to the model's, antialiased."""
    history_level: float = 0.005
    """The smallest level at which the query history may flag; the time that export takes for its calibration grows as
    1 / level. 0 leaves the calibration out."""

    def __post_init__(self) -> None:
        names = list(self.detectors)
        require(bool(names) and len(set(names)) == len(names), "export.detectors", "one or more, each once", names)
        alpha = self.default_alpha
        require(0 < alpha <= 0.1, "export.default_alpha", "a number above 0, at most 0.1", alpha)
        require(bool(self.version), "export.version", "a version", self.version)
        level = self.history_level
        require(level == 0 or 1e-4 <= level <= 0.1, "export.history_level", "0, or a number from 0.0001 to 0.1", level)
