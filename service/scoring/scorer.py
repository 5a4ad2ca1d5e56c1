"""Arrays to arrays: the graph, its calibration and the verdict, on any engine that hands dictionaries of arrays."""

from typing import Any

import numpy as np

from service.detection.engine import MAX_ALPHA, Engine
from service.detection.providers import Device
from service.detection.sessions import first_line
from service.detection.types import Bytes8, Measurements
from service.detection.verdict import RevealMode, Shown, Wish, alpha_steps, check_step, judge, reveal
from service.engines import load_engine
from service.errors import AdvsentryError, BundleError, ErrorReason
from service.scoring.decoding import Columns
from service.settings import Settings

__all__ = ["Scorer", "applied_alpha"]

PASSED_ON = ("piece", "number", "total", "weight", "path")
NO_LABEL = -1


def applied_alpha(engine: Engine, alpha: float | None, mode: RevealMode) -> float:
    """The bundle's default for None, else alpha itself, checked as the server does.

    Raises:
        InvalidRequest: the calibration does not support it, or it is not open to those who see so much.
    """
    alpha = engine.resolve_alpha(alpha)
    if mode is not RevealMode.SCORES:
        check_step(alpha, alpha_steps(engine.bundle.calibration, engine.bundle.manifest.default_alpha, MAX_ALPHA))
    return alpha


class Scorer:
    """A bundle at work on columns: `decoding.Columns` in, and out without the images but with what is said of them.

    Out, of N images with L classes and K detectors: (N,) label, probability, p_value, is_adversarial; (N, L)
    probabilities; (N, K) p_values, is_flagged. What is hidden, and of an image with an error, is NaN, -1 or False.
    """

    def __init__(
        self,
        *,
        bundle: str,
        alpha: float | None = None,
        mode: RevealMode = RevealMode.SCORES,
        device: Device = "cpu",
        threads: int = 0,
        calibration_id: str = "",
    ) -> None:
        """Loads the bundle and makes its session.

        Args:
            calibration_id: of the bundle that is meant; empty for whatever `bundle` names here.

        Raises:
            AdvsentryError: the bundle cannot be used, the device does not come up, or alpha is refused.
        """
        self.engine = load_engine(Settings(bundle=bundle, device=device, threads=threads))
        found = self.engine.bundle.calibration_id
        if calibration_id not in ("", found):
            raise BundleError(f"{bundle}: expected calibration {calibration_id} as where the run began, got {found}")
        self.alpha = applied_alpha(self.engine, alpha, mode)
        self._mode = mode

    def __call__(self, columns: Columns) -> Columns:
        """Scores the rows that hold an image."""
        good = np.flatnonzero(columns["is_decoded"])
        errors, reasons = columns["error"].copy(), columns["reason"].copy()
        found = [self._shown(columns["image"][good])] if good.size else []
        if None in found:  # one by one, so that only the one at fault fails
            alone = [self._shown(columns["image"][[row]]) for row in good]
            for row, shown in zip(good, alone, strict=True):
                if shown is None:
                    errors[row], reasons[row] = "the graph fails on this image", ErrorReason.INTERNAL.value
            good = good[[shown is not None for shown in alone]]
            found = alone
        told = self._empty(len(errors))
        for name, values in _joined([shown for shown in found if shown is not None]).items():
            told[name][good] = values
        return {**{name: columns[name] for name in PASSED_ON}, "error": errors, "reason": reasons, **told}

    def _shown(self, images: Bytes8) -> Shown | None:
        """None when the graph fails on them, although the bundle is well."""
        try:
            measured: Measurements = self.engine.measure(images)
        except AdvsentryError:
            raise
        except Exception as error:  # noqa: BLE001  # onnxruntime's have no base of their own
            self._check_well(error)
            return None
        return reveal(judge(measured, self.engine.bundle, self.alpha), self._mode, Wish())

    def _check_well(self, error: Exception) -> None:
        """Raises when it is not the images' fault that the graph fails."""
        try:
            self.engine.check_canaries()
        except Exception as worse:
            name = self.engine.bundle.manifest.name
            raise BundleError(f"{name}: the graph fails here: {first_line(error)}") from worse

    def _empty(self, count: int) -> "dict[str, np.ndarray[Any, Any]]":
        shape = self.engine.bundle.graph_shape
        return {
            "label": np.full(count, NO_LABEL),
            "probability": np.full(count, np.nan),
            "probabilities": np.full((count, shape.classes), np.nan),
            "p_value": np.full(count, np.nan),
            "p_values": np.full((count, shape.detectors), np.nan),
            "is_adversarial": np.zeros(count, np.bool_),
            "is_flagged": np.zeros((count, shape.detectors), np.bool_),
        }


def _joined(shown: list[Shown]) -> "dict[str, np.ndarray[Any, Any]]":
    """What is shown of all of them, without what is hidden; classes in the bundle's order."""
    told: dict[str, list[np.ndarray[Any, Any]]] = {}
    for one in shown:
        classes = np.array(one.classes)
        columns = {"label": classes[:, 0], "is_adversarial": np.array(one.is_adversarial)}
        if one.probabilities is not None:
            likeliest_first = np.array(one.probabilities)
            columns["probability"] = likeliest_first[:, 0]
            columns["probabilities"] = np.empty_like(likeliest_first)
            np.put_along_axis(columns["probabilities"], classes, likeliest_first, axis=1)
        if one.p_values is not None:
            columns["p_value"] = np.array(one.p_values)
            columns["p_values"] = np.array(one.detector_p_values)
            columns["is_flagged"] = np.array(one.is_flagged)
        for name, values in columns.items():
            told.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in told.items()}
