"""A bundle with a calibration of the history, another one, or none: all other files stay byte for byte."""

import dataclasses
from pathlib import Path

from service.detection.bundle import HISTORY, file_entries, load_bundle, read_files, write_bundle
from service.history.calibration import Calibration

__all__ = ["place"]


def place(path: Path, calibration: Calibration | None) -> None:
    """Puts it into the bundle at `path` and its manifest, at once or not at all; None takes out the one that is there.

    Raises:
        BundleError: the bundle is damaged, or the calibration cannot be of its graph.
    """
    manifest = load_bundle(path, reads_history=False).manifest
    files = read_files(path, manifest.files)
    files.pop(HISTORY, None)
    if calibration is not None:
        files[HISTORY] = calibration.to_bytes()
    write_bundle(path, dataclasses.replace(manifest, files=file_entries(files)), files, replace=True)
