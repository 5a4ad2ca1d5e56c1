"""Cards around the figures: which bundle, data, threat model and code a report is about."""

from service.detection.bundle import Bundle
from training.evaluation.evaluate import Evaluation, HeldOut
from training.evaluation.results import FORMAT as REPORT_FORMAT
from training.evaluation.results import BundleCard, DataCard, DetectorCard, Provenance, Report, ThreatCard
from training.evaluation.suite import Budgets

__all__ = ["assemble", "remarks"]

_MANY_DISAGREEMENTS = 0.01


def assemble(
    evaluation: Evaluation,
    bundle: Bundle,
    test: HeldOut,
    *,
    budgets: Budgets,
    data_name: str,
    provenance: Provenance,
    publishable: bool,
) -> Report:
    """The whole report."""
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
        unions=evaluation.unions,
        availability=evaluation.availability,
        remarks=remarks(
            evaluation, alpha=bundle.manifest.default_alpha, publishable=publishable, in_tracks=test.in_tracks
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


def remarks(evaluation: Evaluation, *, alpha: float, publishable: bool, in_tracks: bool = False) -> tuple[str, ...]:
    """What must be known before a figure is quoted, and signs that something is wrong.

    Args:
        alpha: the bundle's default, at which benign shifts are judged.
        publishable: False for a quick run.
        in_tracks: whether several test images show one object.
    """
    found = [
        "Figures of attacks that saw no detector tell nothing of an attacker who knows of it; those stand apart."
        if any(attack.is_adaptive for attack in evaluation.attacks)
        else "Every attack here is non-adaptive: it aimed at the classifier and saw no detector.",
        "The intervals come from 2,000 resamples of the images; they cover neither another training run nor another "
        "draw of the calibration images.",
        "An attack that looks for the smallest change leaves an image that is wrong already as it is; such images "
        "count under “all”, never under “successful”.",
    ]
    if in_tracks:
        found.append(
            "Several test images show one object, yet each was resampled alone: these intervals are too narrow."
        )
    if not publishable:
        found.append("Quick run: its attacks are too weak for a figure to be quoted.")
    refused = [row for row in evaluation.false_positives if row.images_needed is not None]
    found += [
        f"At {100 * row.alpha:g} % nothing was computed: that promise needs {row.images_needed} calibration images."
        for row in refused
    ]
    return (*found, *_warnings(evaluation, alpha))


def _warnings(evaluation: Evaluation, alpha: float) -> list[str]:
    clean, found = evaluation.clean, []
    if clean.disagreements > _MANY_DISAGREEMENTS * clean.compared:
        found.append(
            f"Warning: torch and the bundle label {clean.disagreements} of {clean.compared} images differently; is "
            "this the run that the bundle was exported from?"
        )
    rates = {attack.name: attack.success_rate.value or 0.0 for attack in evaluation.attacks}
    for stronger, weaker in (("pgd", "fgsm"), ("pgd_150", "pgd")):
        if {stronger, weaker} <= rates.keys() and rates[stronger] < rates[weaker] - 0.01:
            found.append(f"Warning: {stronger} breaks fewer images than {weaker}; the gradients mislead the attack.")
    found += [
        f"Warning: {shift.title}, a mild change, makes the bundle raise {100 * (at.rate.value or 0.0):.1f} % false "
        f"alarms where at most {100 * at.alpha:g} % are promised."
        for shift in evaluation.shifts
        if shift.is_mild
        for at in shift.alarms
        if at.alpha == alpha and (at.rate.value or 0.0) > 2 * at.alpha
    ]
    found += [
        f"Warning: at {100 * row.alpha:g} % the bundle raises more false alarms than it promises."
        for row in evaluation.false_positives
        if row.promised_95 is not None and row.count is not None and row.count > row.promised_95.high
    ]
    return found
