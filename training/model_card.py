"""`model_card.md`: what a bundle is, for people."""

from service.detection.calibration import Calibration
from service.detection.manifest import Manifest, Quantised
from training.detectors import DETECTORS

__all__ = ["model_card"]

_NOT_EVALUATED = """Not evaluated yet: nothing is known of this bundle on attacked images.
Run `advsentry-train evaluate BUNDLE --run RUN --out DIR --publish`."""


def model_card(manifest: Manifest, calibration: Calibration, *, breaks_at: str = "", shifts: str = "") -> str:
    """The card's text.

    Args:
        breaks_at: a sentence on the epsilon at which the bundle breaks; empty when nobody has measured it.
        shifts: one on false alarms under benign shifts, likewise.
    """
    shape, threat = manifest.input, manifest.threat_model
    data = manifest.training.get("data", {})
    detectors = [f"* **{entry.name}** ({entry.reason}): high when {entry.meaning}." for entry in manifest.detectors]
    return "\n".join(
        [
            f"# {manifest.name}, version {manifest.version}",
            "",
            f"Classifies {shape.height} x {shape.width} images of {shape.channels} channel(s) into "
            f"{len(manifest.class_names)} classes and says which are adversarial.",
            "",
            "## Data",
            "",
            f"Data set `{data.get('set', 'unknown')}`, cut into disjoint parts: training, "
            f"{data.get('selection', 0)} images to pick the best epoch, "
            f"{data.get('fit') or 'those of training again'} to fit the detectors, "
            f"{calibration.detector_scores.shape[1]} to calibrate each of them, {calibration.fused_scores.size} to "
            "calibrate the fused statistic, and the test images.",
            *_generated(manifest),
            "",
            *_precision(manifest),
            "## Threat model",
            "",
            f"Trained against {threat.norm} perturbations of up to {threat.eps:.4g} (pixels in [0, 1])"
            f"{_other_norms(manifest)}. "
            "Only the image is attacked: not the model, the calibration or the machine.",
            "",
            "## Detectors",
            "",
            *detectors,
            "",
            *_how_fitted(manifest),
            f"Their p-values are fused into one{_fused(manifest, calibration)}, which was calibrated again on "
            f"images of its own; the verdict at the default alpha of {manifest.default_alpha:g} calls that share of "
            "clean images adversarial, on average over calibrations.",
            *_by_class(manifest, calibration),
            "",
            "## Where it holds and where it breaks",
            "",
            *_measured(manifest, breaks_at),
            "",
            *_other_sizes(manifest),
            "Images that are unlike the data set (another camera, crop, compression) raise the false-positive rate: "
            "calibrate on your own clean images before you trust the promised one.",
            *(["", shifts] if shifts else []),
            "",
        ]
    )


def _other_norms(manifest: Manifest) -> str:
    """The domains beside the one that the threat model states, of a run against several norms."""
    section = manifest.training.get("minmax", {})
    if section.get("combine", "none") == "none":
        return ""
    pairs = zip(section["norms"], section["eps"], strict=True)
    others = [f"{norm} up to {eps:.4g}" for norm, eps in pairs if norm != manifest.threat_model.norm]
    return f", together with {' and '.join(others)}" if others else ""


def _generated(manifest: Manifest) -> list[str]:
    proxy = manifest.training.get("proxy", {})  # bundles of before have none
    if not proxy.get("set") or proxy["gamma"] == 1:
        return []
    labels = f", labelled by `{proxy['labeller']}`" if proxy["labeller"] else ""
    return [
        f"The network was trained on generated images too, those of `{proxy['set']}`{labels}, at "
        f"{1 - proxy['gamma']:.2g} of the loss. All other parts are real images."
    ]


def _precision(manifest: Manifest) -> list[str]:
    found = manifest.quantised
    if found is None:
        return []
    what, where = _float16(found) if found.precision == "float16" else _int8(found)
    shifts = ", ".join(f"{name} {shift:.2g}" for name, shift in found.score_shifts.items())
    return [
        "## Precision",
        "",
        f"**{found.precision}**: {found.quantised_convolutions} of {found.convolutions} convolutions {what}; "
        f"everything else is in float32. It was made of the graph with SHA-256 `{found.float_graph}` of the run "
        f"`{found.run}`. The p-values are calibrated on this graph, not on that one. Of {found.compared_images} clean "
        f"images it labels {found.label_agreement:.1%} as the float network does; the root mean square by which a "
        f"score moves, in its standard deviations: {shifts}.",
        "",
        where,
        "",
        "Attacks on this bundle follow the gradients of the float network: they are transferred from there.",
        "",
    ]


def _int8(found: Quantised) -> tuple[str, str]:
    """How its convolutions compute, and where that holds."""
    bits = "7-bit" if found.reduced_range else "8-bit"
    return (
        f"compute with {bits} weights, a scale for each output channel, and unsigned 8-bit activations, whose ranges "
        f"come from {found.calibration_images} clean images",
        "On x86-64 processors without VNNI 8-bit sums may saturate: there its answers are others, and nothing that was "
        "measured holds."
        if not found.reduced_range
        else "Weights of 7 bits keep the sums from saturating on x86-64 processors without VNNI.",
    )


def _float16(found: Quantised) -> tuple[str, str]:
    """Likewise."""
    return (
        f"compute in float16, and so do the layers between them; on {found.calibration_images} clean images their "
        "values leave room below the largest that it holds",
        "It is for GPUs. The processor computes the same graph in float32 with rounded weights, no faster than the "
        "float bundle; the figures above are the worse ones of both ways to compute it.",
    )


def _fused(manifest: Manifest, calibration: Calibration) -> str:
    """How, where it is not Fisher's way, which weighs all alike."""
    fusion = calibration.fusion
    if fusion.kind == "harmonic":
        return " by their harmonic mean, in which the smallest counts most"
    if fusion.weights is None:
        return ""
    shares = [f"{entry.name} {weight:.3g}" for entry, weight in zip(manifest.detectors, fusion.weights, strict=True)]
    return f" with weights learned from forged perturbations, which no attack made ({', '.join(shares)})"


def _by_class(manifest: Manifest, calibration: Calibration) -> list[str]:
    if calibration.by_class is None:
        return []
    own = [f"{manifest.class_names[label]} ({n})" for label, n in calibration.by_class.own_counts.items()]
    shared = calibration.by_class.shared_count
    return [
        "",
        "It was calibrated by predicted class: that rate is kept among the clean images that are predicted as a class "
        f"with a row of its own (images): {', '.join(own) or 'no class has enough'}."
        + (
            f" The other classes share a row of {shared} images; there it is kept nearly, for all of them together."
            if shared
            else ""
        ),
    ]


def _how_fitted(manifest: Manifest) -> list[str]:
    aware = [
        entry.name for entry in manifest.detectors if entry.kind in DETECTORS and DETECTORS[entry.kind].is_attack_aware
    ]
    if not aware:
        return ["They were fitted on clean images only."]
    return [
        f"**Attack-aware**: {', '.join(aware)} made attacked images to learn from, so figures on attacks of that kind "
        "prove little. The others were fitted on clean images only."
    ]


def _other_sizes(manifest: Manifest) -> list[str]:
    if not manifest.training.get("export", {}).get("resize", False):
        return []
    height, width = manifest.input.height, manifest.input.width
    return [
        f"Images of other sizes are stretched to {height} x {width}, antialiased. What was measured, and the promised "
        f"false-positive rate, holds for images that have {height} x {width} from the beginning.",
        "",
    ]


def _measured(manifest: Manifest, breaks_at: str) -> list[str]:
    if not manifest.metrics:
        return [_NOT_EVALUATED]
    rows = [f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items()]
    return ["| measured | |", "|---|---|", *rows, "", f"By `{manifest.metrics_command}`.", "", breaks_at]
