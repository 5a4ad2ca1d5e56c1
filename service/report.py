"""Detections and bundles as text: tables for people, JSON for programs."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from service.detection.bundle import Bundle
from service.detection.calibration import rounded_up
from service.detection.rows import ByClass
from service.detection.types import Detection, Verdict
from service.errors import AdvsentryError, InvalidRequest

__all__ = ["HEADER", "describe", "detection_json", "info_json", "row", "table"]

HEADER = ("image", "class", "probability", "p-value", "verdict", "reasons")


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows with aligned columns.

    >>> print(table([("a", "bc"), ("def", "g")]))
    a    bc
    def  g
    """
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def row(name: str, result: Detection | AdvsentryError) -> tuple[str, ...]:
    """One image in the table under `HEADER`."""
    if isinstance(result, AdvsentryError):
        return (name, "-", "-", "-", "error", str(result))
    reasons = "; ".join(flag.message for flag in result.flags)
    verdict = result.verdict.upper() if result.verdict is Verdict.ADVERSARIAL else result.verdict
    return (
        name,
        result.top.label,
        _number(result.top.probability, "{:.3f}"),
        _number(result.p_value, "{:.3g}"),
        verdict,
        reasons or "-",
    )


def _number(value: float | None, form: str) -> str:
    return "hidden" if value is None else form.format(value)


def detection_json(name: str, result: Detection | AdvsentryError) -> dict[str, Any]:
    """One image as a JSON object; what is hidden is null."""
    if isinstance(result, AdvsentryError):
        reason = result.reason if isinstance(result, InvalidRequest) else None
        return {"image": name, "error": str(result), "reason": reason}
    return {"image": name, **dataclasses.asdict(result)}


def info_json(bundle: Bundle) -> dict[str, Any]:
    """A bundle as a JSON object: its manifest and what follows from its calibration."""
    manifest = dataclasses.asdict(bundle.manifest)
    by_class, names = bundle.calibration.by_class, bundle.manifest.class_names
    for canary in manifest["canaries"]:
        del canary["png"]
    return {
        **manifest,
        "precision": _precision(bundle),
        "takes_other_sizes": bundle.resize is not None,
        "calibration_id": bundle.calibration_id,
        "calibration_images": list(_calibration_sizes(bundle)),
        "smallest_alpha": bundle.calibration.smallest_alpha,
        "fusion": bundle.calibration.fusion.kind,
        "fusion_weights": _weights(bundle),
        "own_rows": None if by_class is None else {names[label]: n for label, n in by_class.own_counts.items()},
        "shared_row": None if by_class is None else by_class.shared_count,
        "history_streams": None if bundle.history is None else bundle.history.streams,
    }


def _calibration_sizes(bundle: Bundle) -> tuple[int, int]:
    return bundle.calibration.detector_scores.shape[1], bundle.calibration.fused_scores.size


def describe(bundle: Bundle) -> str:
    """A bundle for people."""
    manifest, calibration = bundle.manifest, bundle.calibration
    per_detector, fused = _calibration_sizes(bundle)
    shape, threat = manifest.input, manifest.threat_model
    facts = [
        ("bundle", f"{manifest.name}, version {manifest.version} (format {manifest.format_version})"),
        ("made by", f"advsentry {manifest.code_version}"),
        ("input", f"{shape.height} x {shape.width} x {shape.channels} (height x width x channels), 8 bits"),
        ("other sizes", _other_sizes(bundle)),
        ("precision", _precision_words(bundle)),
        ("classes", f"{len(manifest.class_names)}: {_shortened(manifest.class_names)}"),
        ("threat model", f"{threat.norm}, eps {threat.eps:.4g} of the [0, 1] image"),
        ("fusion", _fusion(bundle)),
        ("calibration", f"{per_detector} clean images for each detector, {fused} for the fused statistic"),
        *([] if calibration.by_class is None else [("by class", _by_class(bundle, calibration.by_class))]),
        ("smallest alpha", f"{rounded_up(calibration.smallest_alpha)}; default {manifest.default_alpha:g}"),
        ("query history", _history(bundle)),
        ("canaries", str(len(manifest.canaries))),
        ("calibration id", bundle.calibration_id),
    ]
    parts = [table(facts), "detectors (larger is more suspicious)", _indented(_detectors(bundle))]
    if manifest.metrics:
        metrics = [(name, f"{value:.4g}") for name, value in manifest.metrics.items()]
        parts += [f"metrics, made by `{manifest.metrics_command}`", _indented(metrics)]
    else:
        parts.append("metrics: none, this bundle has not been evaluated")
    files = [(name, f"{entry.size} bytes", entry.sha256) for name, entry in manifest.files.items()]
    return "\n".join([*parts, "files, with their sha-256", _indented(files)])


def _precision(bundle: Bundle) -> str:
    return "float32" if bundle.manifest.quantised is None else bundle.manifest.quantised.precision


def _precision_words(bundle: Bundle) -> str:
    found, name = bundle.manifest.quantised, _precision(bundle)
    if found is None:
        return name
    weights = ", 7-bit weights" if found.reduced_range else ""
    return (
        f"{name} in {found.quantised_convolutions} of {found.convolutions} convolutions{weights}, float32 elsewhere; "
        f"made of the graph {found.float_graph[:12]}... of the run {found.run}"
    )


def _weights(bundle: Bundle) -> dict[str, float] | None:
    weights = bundle.calibration.fusion.weights
    if weights is None:
        return None
    return {entry.name: float(weight) for entry, weight in zip(bundle.manifest.detectors, weights, strict=True)}


def _fusion(bundle: Bundle) -> str:
    weights = _weights(bundle) or {}
    shares = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
    return bundle.calibration.fusion.kind + (f": {shares}" if shares else "")


def _by_class(bundle: Bundle, by_class: ByClass) -> str:
    own = [f"{bundle.manifest.class_names[label]} ({count})" for label, count in by_class.own_counts.items()]
    shared = f"; the others share a row of {by_class.shared_count}" if by_class.shared_count else ""
    return f"{len(own)} of {by_class.has_own_row.size} classes have a row of their own: {', '.join(own) or '-'}{shared}"


def _history(bundle: Bundle) -> str:
    if bundle.history is None:
        return "not calibrated"
    smallest = rounded_up(1 / (bundle.history.streams + 1))
    return f"calibrated on {bundle.history.streams} benign streams of a kind, smallest level {smallest}"


def _other_sizes(bundle: Bundle) -> str:
    shape = bundle.manifest.input
    return "refused" if bundle.resize is None else f"taken, stretched to {shape.height} x {shape.width}, antialiased"


def _detectors(bundle: Bundle) -> list[tuple[str, ...]]:
    return [(entry.name, entry.reason, f"{entry.meaning} than in clean images") for entry in bundle.manifest.detectors]


def _indented(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("  " + line for line in table(rows).splitlines())


def _shortened(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
