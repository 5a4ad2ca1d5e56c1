"""Cards around the figures: which bundle, data, threat model and code a report is about."""

from collections.abc import Sequence

from service.detection.bundle import Bundle
from training.evaluation.evaluate import Evaluation
from training.evaluation.held_out import HeldOut
from training.evaluation.overall import overall
from training.evaluation.records import Cost
from training.evaluation.remarks import remarks
from training.evaluation.results import FORMAT as REPORT_FORMAT
from training.evaluation.results import BundleCard, DataCard, DetectorCard, Provenance, Report, ThreatCard
from training.evaluation.suite import Budgets

__all__ = ["assemble"]


def assemble(
    evaluation: Evaluation,
    bundle: Bundle,
    test: HeldOut,
    *,
    budgets: Budgets,
    data_name: str,
    provenance: Provenance,
    publishable: bool,
    left_out: Sequence[str] = (),
    cost: Cost | None = None,
) -> Report:
    """The whole report; `left_out` has a sentence for each attack that the model does not allow."""
    return Report(
        format=REPORT_FORMAT,
        publishable=publishable,
        bundle=_bundle_card(bundle),
        threat_model=_threat_card(bundle, budgets, adaptive=any(attack.is_adaptive for attack in evaluation.attacks)),
        data=_data_card(bundle, test, data_name),
        provenance=provenance,
        clean=evaluation.clean,
        false_positives=evaluation.false_positives,
        classes=evaluation.classes,
        shifts=evaluation.shifts,
        attacks=evaluation.attacks,
        overall=overall(evaluation.attacks),
        unions=evaluation.unions,
        availability=evaluation.availability,
        uniformity=evaluation.uniformity,
        left_out=evaluation.left_out,
        sweep=evaluation.sweep,
        convergence=evaluation.convergence,
        sanity=evaluation.sanity,
        cost=cost,
        remarks=(
            *remarks(
                evaluation,
                alpha=bundle.manifest.default_alpha,
                publishable=publishable,
                in_tracks=test.in_tracks,
                quantised=bundle.manifest.quantised is not None,
            ),
            *left_out,
        ),
    )


def _bundle_card(bundle: Bundle) -> BundleCard:
    manifest = bundle.manifest
    return BundleCard(
        name=manifest.name,
        version=manifest.version,
        calibration_id=bundle.calibration_id,
        sha256={name: manifest.files[name].sha256 for name in ("model.onnx", "calibration.npz")},
        detectors=tuple(DetectorCard(name=entry.name, meaning=entry.meaning) for entry in manifest.detectors),
        calibration_images=bundle.calibration.detector_scores.shape[1],
        fused_calibration_images=bundle.calibration.fused_scores.size,
        default_alpha=manifest.default_alpha,
        code_version=manifest.code_version,
    )


def _threat_card(bundle: Bundle, budgets: Budgets, *, adaptive: bool) -> ThreatCard:
    return ThreatCard(
        norm=bundle.manifest.threat_model.norm,
        eps=bundle.manifest.threat_model.eps,
        l2_eps=budgets.l2,
        targeted=False,
        knowledge="the classifier with all its weights"
        + ("" if bundle.manifest.quantised is None else " in float32, of which the bundle is a rounded copy")
        + ("; the adaptive attacks all of the bundle, detectors and calibration too" if adaptive else ", no detector"),
        adaptive=adaptive,
        queries="unlimited: gradients are at hand",
        reveal_mode="does not matter: these attackers ask the torch model, not the server",
        rounding="to 8 bits inside the budget before scoring; norms are measured after it",
    )


def _data_card(bundle: Bundle, test: HeldOut, data_name: str) -> DataCard:
    shape = bundle.manifest.input
    return DataCard(
        name=data_name,
        split="test",
        test_images=len(test.images),
        attacked_images=len(test.chosen),
        classes=len(bundle.manifest.class_names),
        height=shape.height,
        width=shape.width,
        channels=shape.channels,
    )
