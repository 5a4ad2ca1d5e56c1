"""A bundle with a new report and model card: graph and calibration stay byte for byte."""

import dataclasses
from pathlib import Path

from service.detection.bundle import file_entries, load_bundle, read_files, write_bundle
from service.errors import BundleError
from training.evaluation.report import headline_alpha
from training.evaluation.results import Report
from training.evaluation.summary import breaking_sentence, headline, shift_sentence
from training.evaluation.verdict import rejection_sentence
from training.model_card import model_card

__all__ = ["MAX_REPORT_BYTES", "publish"]

MAX_REPORT_BYTES = 500_000
"""A bundle travels with every deployment, so its report stays small."""


def publish(path: Path, report: Report) -> None:
    """Puts the report and its headline figures into the bundle at `path`, all at once or not at all.

    Raises:
        BundleError: the bundle is damaged, is not the one that was judged, or the report is too large or was quick.
    """
    if not report.publishable:
        raise BundleError(f"{path.name}: the figures of a quick run are not published; leave --budget quick out")
    bundle = load_bundle(path)
    if bundle.calibration_id != report.bundle.calibration_id:
        raise BundleError(
            f"{path.name}: the report is about bundle {report.bundle.calibration_id}, here is {bundle.calibration_id}"
        )
    content = report.to_json().encode()
    if len(content) > MAX_REPORT_BYTES:
        raise BundleError(
            f"report.json: expected at most {MAX_REPORT_BYTES} bytes, got {len(content)}; evaluate with fewer "
            "--transfer and --surrogate, or export with fewer detectors"
        )
    manifest = dataclasses.replace(bundle.manifest, metrics=headline(report), metrics_command=report.provenance.command)
    files = {
        **read_files(path, bundle.manifest.files),
        "report.json": content,
        "model_card.md": model_card(
            manifest, bundle.calibration, breaks_at=_breaks(report), shifts=shift_sentence(report)
        ).encode(),
    }
    write_bundle(path, dataclasses.replace(manifest, files=file_entries(files)), files, replace=True)


def _breaks(report: Report) -> str:
    sentences = (breaking_sentence(report), rejection_sentence(report, headline_alpha(report)))
    return " ".join(filter(None, sentences))
