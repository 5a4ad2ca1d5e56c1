"""What an evaluation found, as records; `report.json` is the outermost of them, written by `to_json`.

Every rate is in [0, 1], every budget and norm in units of the [0, 1] image. A figure that no image supports is null;
NaN never occurs. Three counts are kept apart for each attack:

* successful: right before the attack, wrong after it (by the bundle's label, after rounding to 8 bits);
* failed: right before and after;
* all: these two and the images that were wrong already.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from training.evaluation.bootstrap import Estimate
from training.evaluation.metrics import Range
from training.evaluation.records import Check, Convergence, Cost, SweepPoint, Uniformity, Without

__all__ = [
    "FORMAT",
    "AlarmsAt",
    "AttackResult",
    "AurocOverAttacks",
    "AvailabilityAt",
    "BundleCard",
    "ClassAlarms",
    "CleanResult",
    "DataCard",
    "DetectorAuroc",
    "DetectorCard",
    "FalsePositives",
    "Overall",
    "Provenance",
    "RateAt",
    "Rejection",
    "Report",
    "ShiftResult",
    "ThreatCard",
    "UnionResult",
]

FORMAT = 1
"""Changes when a field of `report.json` changes its meaning or goes."""


@dataclass(frozen=True, kw_only=True)
class DetectorCard:
    """A detector as the manifest describes it."""

    name: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class BundleCard:
    """Which bundle was judged."""

    name: str
    version: str
    calibration_id: str
    sha256: Mapping[str, str]
    """Of the graph and of the calibration; the report itself is not among them."""
    detectors: tuple[DetectorCard, ...]
    calibration_images: int
    """Of the first split, for the single detectors."""
    fused_calibration_images: int
    """Of the second split, for the fused p-value."""
    default_alpha: float
    code_version: str
    """Of the code that exported it."""


@dataclass(frozen=True, kw_only=True)
class ThreatCard:
    """What the attackers of this report could and could not do."""

    norm: str
    """That the bundle was trained for."""
    eps: float
    l2_eps: float
    """Budget of the L2 attacks."""
    targeted: bool
    knowledge: str
    adaptive: bool
    """Whether any attack saw the detectors."""
    queries: str
    reveal_mode: str
    rounding: str


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """Which images were used."""

    name: str
    split: str
    test_images: int
    """Clean ones, for accuracy and false positives."""
    attacked_images: int
    """Chosen among them, stratified by class and seeded; the clean side of every AUROC too, as far as an attack took
    them."""
    classes: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How to make this report again."""

    command: str
    seed: int
    code_version: str
    commit: str
    """With "+" behind it when files had been changed since; "unknown" outside a checkout."""
    machine: str
    started: str
    """UTC, ISO 8601."""
    seconds: float
    libraries: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class CleanResult:
    """The bundle on images that nobody attacked."""

    accuracy: Estimate
    accuracy_of_accepted: Estimate
    """Among the clean images that are accepted at the bundle's default alpha."""
    balanced_accuracy: float | None
    """Mean of the classes' own accuracies."""
    disagreements: int
    """Images, clean and attacked, on which torch and the bundle give different labels."""
    compared: int
    """Images of that comparison."""


@dataclass(frozen=True, kw_only=True)
class FalsePositives:
    """A promised false-positive rate and what came of it on clean test images."""

    alpha: float
    images_needed: int | None
    """Calibration images without which alpha is refused; null when the bundle supports alpha."""
    images: int
    count: int | None
    """Clean test images called adversarial; null when alpha is refused."""
    rate: float | None
    binomial_95: Range | None
    """Counts that 95 % of test draws give at a rate of exactly alpha."""
    inside_binomial: bool | None
    promised_95: Range | None
    """The same with the draw of the calibration images, which the promise averages over."""
    inside_promised: bool | None


@dataclass(frozen=True, kw_only=True)
class RateAt:
    """A share of attacked images at one alpha, by the bundle's verdict."""

    alpha: float
    all: Estimate
    successful: Estimate
    failed: Estimate


@dataclass(frozen=True, kw_only=True)
class DetectorAuroc:
    """AUROC of one score; "fused" is the statistic behind the verdict."""

    detector: str
    all: Estimate
    """Attacked images against the same images unattacked."""
    successful: Estimate
    """Successful attacks against the clean images that the bundle classifies rightly."""
    failed: Estimate
    """Failed attacks against the same."""


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """One attack on all chosen images."""

    name: str
    title: str
    description: str
    settings: str
    is_adaptive: bool
    """Whether it knew the detectors and the calibration."""
    norm: str
    """linf, l2, l0 (pixels), patch or spatial; the last three have no budget and belong to no worst case."""
    eps: float | None
    """None: the attack looks for the smallest change, or is of a kind without a budget."""
    images: int
    """That it took: a dear attack takes some of the chosen ones, and all its figures are over those."""
    successful: int
    failed: int
    wrong_before: int
    success_rate: Estimate
    """Of the images that were right before."""
    success_within_budget: Estimate
    """The same where the change also stays within the threat model's budget for the attack's norm, if it has one."""
    accuracy: Estimate
    """Still right after the attack."""
    median_l2: float | None
    """Of the successful attacked images, after rounding."""
    median_linf: float | None
    breaks_at: float | None
    """The change, in its norm, within which fewer than 10 % of the images stay right; null when more do, and for a
    patch or a shift."""
    aurocs: tuple[DetectorAuroc, ...]
    partial_aurocs: Mapping[str, float | None]
    """Of the fused statistic, all images: largest false-positive rate to mean true-positive rate up to it."""
    tpr_at_fpr: Mapping[str, float | None]
    """Of the fused statistic, all images, threshold chosen on the clean side; flatters a little."""
    detected: tuple[RateAt, ...]
    accepted_and_wrong: tuple[RateAt, ...]
    """What the operator loses: wrong and called clean."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AurocOverAttacks:
    """AUROC of the fused score over several attacks, each of which counts once."""

    attacks: int
    """That have one."""
    mean: float | None
    worst: float | None
    worst_attack: str | None
    """Its name; the first of several."""
    worst_images: int
    """Attacked images that the worst rests on."""
    left_out: tuple[str, ...]
    """Attacks with too few such images."""


@dataclass(frozen=True, kw_only=True)
class Overall:
    """AUROC of the fused score over all attacks that see the classifier alone."""

    successful: AurocOverAttacks
    """Of successful attacks against the clean images that the bundle classifies rightly; an attack with fewer than 20
    of them is left out."""
    all: AurocOverAttacks
    """Of all attacked images against the same images unattacked."""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Accuracy when rejected images count as no harm, over the worst of several attacks and no attack at all."""

    alpha: float
    robust_accuracy: Estimate
    """1 - share of images of which some version within the budget is accepted and wrong."""
    strict: Estimate
    """An image whose clean version is rejected counts as lost too."""
    clean_rejected: Estimate


@dataclass(frozen=True, kw_only=True)
class UnionResult:
    """The worst case of each image over all attacks whose image stays within one budget."""

    is_adaptive: bool
    """Whether attacks that knew the detectors are among them."""
    norm: str
    eps: float
    attacks: tuple[str, ...]
    accuracy: Estimate
    """Right on every version; the unattacked image is one of them."""
    success_rate: Estimate
    """Of the images that were right before; at least that of each attack within the budget."""
    only_by: Mapping[str, int]
    """Images on which this attack alone succeeded."""
    rejection: tuple[Rejection, ...]


@dataclass(frozen=True, kw_only=True)
class AlarmsAt:
    """Share of images called adversarial at one promised false-positive rate."""

    alpha: float
    rate: Estimate


@dataclass(frozen=True, kw_only=True)
class ShiftResult:
    """Clean images after a change that is no attack; the promise on false alarms does not cover it."""

    name: str
    title: str
    is_mild: bool
    """Whether a pipeline makes this change without anybody noticing."""
    accuracy: Estimate
    alarms: tuple[AlarmsAt, ...]
    loudest: str | None
    """The detector that alone would flag most of them at the bundle's default alpha; null where none flags any."""


@dataclass(frozen=True, kw_only=True)
class AvailabilityAt:
    """What an attacker who wants clean images rejected reaches within one change."""

    norm: str
    eps: float
    rejected: tuple[AlarmsAt, ...]
    """Of the images that were named rightly and accepted before."""


@dataclass(frozen=True, kw_only=True)
class ClassAlarms:
    """False alarms on the untouched test images of one true class at the bundle's default alpha."""

    name: str
    images: int
    alarms: int
    right: int
    """Images that the bundle names rightly."""
    alarms_when_right: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """`report.json`."""

    format: int
    publishable: bool
    """False for the quick mode, whose attacks are too weak to be quoted."""
    bundle: BundleCard
    threat_model: ThreatCard
    data: DataCard
    provenance: Provenance
    clean: CleanResult
    false_positives: tuple[FalsePositives, ...]
    classes: tuple[ClassAlarms, ...]
    """Empty where the bundle refuses its default alpha."""
    shifts: tuple[ShiftResult, ...]
    attacks: tuple[AttackResult, ...]
    overall: Overall
    unions: tuple[UnionResult, ...]
    """Of each norm over the attacks that see the classifier alone, then over all where others were run."""
    availability: tuple[AvailabilityAt, ...]
    """Rising budgets; empty where no attack knew the detectors."""
    uniformity: tuple[Uniformity, ...]
    """Of each detector and the fused statistic on the clean test images."""
    left_out: tuple[Without, ...]
    """The whole bundle, then each detector left out; empty for a single one, or where the run's second calibration
    part is not what the bundle was calibrated on."""
    sweep: tuple[SweepPoint, ...]
    """Rising changes, on some of the attacked images; empty where no attack knew the detectors."""
    convergence: Convergence | None
    """Null where there is no sweep, or its rate is refused."""
    sanity: tuple[Check, ...]
    """Checks that the evaluation made of itself."""
    cost: Cost | None
    """Null where it was not measured."""
    remarks: tuple[str, ...]
    """What a reader must know before he quotes a figure."""

    def to_json(self) -> str:
        """The text of `report.json`.

        Raises:
            ValueError: a figure is NaN or infinite.
        """
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
