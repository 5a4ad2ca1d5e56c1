"""Two synthetic images with known answers, by which a server finds out that it computes wrongly."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from service.detection.engine import Engine
from service.detection.manifest import Canary
from service.detection.types import Bytes8, Verdict
from service.errors import SetupError
from training.graph import BundleGraph

__all__ = ["make_canaries"]

CANDIDATES = 12
STEPS = 150


def make_canaries(graph: BundleGraph, engine: Engine, *, seed: int) -> tuple[Canary, ...]:
    """One image that is clearly clean to this bundle, and the same under strong noise.

    They are drawn by descending the suspicion scores from smooth noise, so that no image of a data set is shipped.

    Raises:
        SetupError: no such image was found; then the detectors accept nothing that is not from the data set.
    """
    candidates = _unsuspicious(graph, engine, seed)
    noise = np.random.default_rng(seed).choice([-96, 96], candidates.shape)
    attacked = np.clip(candidates.astype(int) + noise, 0, 255).astype(np.uint8)
    measured, suspicious = engine.measure(candidates), engine.measure(attacked)
    # Far from the threshold on both sides: another processor rounds the last digits otherwise.
    confident = np.sort(measured.probabilities, axis=1)
    margin = (confident[:, -1] - confident[:, -2]) * measured.fused_p_value
    floor = 2 / (engine.bundle.calibration.fused_scores.size + 1)
    margin[(suspicious.fused_p_value > floor) | (measured.fused_p_value < 0.1)] = -1
    best = int(margin.argmax())
    if margin[best] < 0:
        raise SetupError(
            "no synthetic image is clean to these detectors and suspicious under noise, so the bundle would have no "
            "canaries; enlarge data.fit and data.calibration in the recipe"
        )
    pairs = ((candidates[best], Verdict.CLEAN), (attacked[best], Verdict.ADVERSARIAL))
    return tuple(_canary(engine, image, verdict) for image, verdict in pairs)


def _unsuspicious(graph: BundleGraph, engine: Engine, seed: int) -> Bytes8:
    """(M, H, W, C) images that descended from smooth noise to low scores and a sure class."""
    shape = engine.bundle.manifest.input
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(CANDIDATES, shape.channels, 4, 4, generator=generator)
    start = torch.nn.functional.interpolate(coarse, (shape.height, shape.width), mode="bicubic", align_corners=False)
    raw = torch.logit(start.clamp(0.02, 0.98)).requires_grad_()
    typical = torch.from_numpy(np.median(engine.bundle.calibration.detector_scores, axis=1))  # (K,)
    spread = torch.from_numpy(np.ptp(engine.bundle.calibration.detector_scores, axis=1))
    wanted = torch.arange(CANDIDATES) % len(engine.bundle.manifest.class_names)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(STEPS):
        logits, _, scores = graph.score(raw.sigmoid())
        excess = ((scores - typical) / spread).clamp(min=0).sum()
        loss = excess + torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        (raw.grad,) = torch.autograd.grad(loss, raw)
        optimiser.step()
    return (raw.detach().sigmoid() * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _canary(engine: Engine, image: Bytes8, verdict: Verdict) -> Canary:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    label = int(engine.measure(image[None]).probabilities[0].argmax())
    return Canary(png=base64.b64encode(buffer.getvalue()).decode(), label=label, verdict=verdict)
