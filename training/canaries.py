"""Two synthetic images with known answers, by which a server finds out that it computes wrongly."""

import base64
import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from service.detection.engine import Engine
from service.detection.manifest import Canary
from service.detection.types import Bytes8, Verdict
from service.errors import SetupError
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.graph import BundleGraph

__all__ = ["make_canaries"]

CANDIDATES = 12
STEPS = 150
CLEARLY = 1.5
"""The adversarial canary's fused statistic, in multiples of the largest clean one."""


def make_canaries(graph: BundleGraph, engine: Engine, *, seed: int) -> tuple[Canary, ...]:
    """One image that is clearly clean to this bundle, and the same changed until it is clearly adversarial.

    They are drawn by descending and ascending the suspicion scores from smooth noise, so that no image of a data set
    is shipped.

    Raises:
        SetupError: no such image was found; then the detectors accept nothing that is not from the data set.
    """
    clean = _descended(graph, engine, _smooth_noise(engine, seed))
    attacked = _ascended(graph, engine, clean)
    measured, suspicious = engine.measure(clean), engine.measure(attacked)
    calibration, alpha = engine.bundle.calibration, engine.bundle.manifest.default_alpha
    # Far from the threshold on both sides: another processor rounds the last digits otherwise.
    confident = np.sort(measured.probabilities, axis=1)
    margin = (confident[:, -1] - confident[:, -2]) * measured.fused_p_value
    is_clear = calibration.fuse(suspicious.outputs.scores) > CLEARLY * calibration.fused_scores[-1]
    margin[~is_clear | (measured.fused_p_value <= max(0.1, 2 * alpha))] = -1
    best = int(margin.argmax())
    if margin[best] < 0:
        raise SetupError(
            "no synthetic image is clean to these detectors and another one suspicious, so the bundle would have no "
            "canaries; enlarge data.fit and data.calibration in the recipe"
        )
    pairs = ((clean[best], Verdict.CLEAN), (attacked[best], Verdict.ADVERSARIAL))
    return tuple(_canary(engine, image, verdict) for image, verdict in pairs)


def _smooth_noise(engine: Engine, seed: int) -> Tensor:
    """(M, C, H, W) in (0, 1)."""
    shape = engine.bundle.manifest.input
    coarse = torch.rand(CANDIDATES, shape.channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    size = (shape.height, shape.width)
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False).clamp(0.02, 0.98)


def _descended(graph: BundleGraph, engine: Engine, start: Tensor) -> Bytes8:
    """(M, H, W, C) images of usual scores and a sure class, each of another one."""
    wanted = torch.arange(len(start)) % len(engine.bundle.manifest.class_names)

    def loss(logits: Tensor, excess: Tensor) -> Tensor:
        return excess.clamp(min=0).sum() + torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")

    return _drawn(graph, engine, start, loss)


def _ascended(graph: BundleGraph, engine: Engine, clean: Bytes8) -> Bytes8:
    """(M, H, W, C) images of high scores."""
    return _drawn(graph, engine, from_8_bit(clean).clamp(0.02, 0.98), lambda _, excess: -excess.sum())


def _drawn(graph: BundleGraph, engine: Engine, start: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Bytes8:
    """Descends a loss of the logits and of how far each score is above its median, in spreads of clean scores."""
    clean_scores = engine.bundle.calibration.detector_scores  # (K, n)
    typical = torch.from_numpy(np.median(clean_scores, axis=1))
    spread = torch.from_numpy(np.ptp(clean_scores, axis=1))
    raw = torch.logit(start).requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(STEPS):
        logits, _, scores = graph.score(raw.sigmoid())
        (raw.grad,) = torch.autograd.grad(loss(logits, (scores - typical) / spread), raw)
        optimiser.step()
    return nearest_8_bit(raw.sigmoid()).contiguous().numpy()


def _canary(engine: Engine, image: Bytes8, verdict: Verdict) -> Canary:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    label = int(engine.measure(image[None]).probabilities[0].argmax())
    return Canary(png=base64.b64encode(buffer.getvalue()).decode(), label=label, verdict=verdict)
