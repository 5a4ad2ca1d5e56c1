"""All that are measured: the detectors of peers, fitted, and those of the bundle, as one kind of thing."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from deploy.peers.peer import FitData, Guarded, Material, Peer, TorchScorer, Unfit, rows_of
from service.detection.engine import Engine
from service.detection.types import Bytes8, Float64s
from training.attacks.adaptive import GraphTarget, Target
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.data.types import ImageSet
from training.detectors import DETECTORS, Lessons
from training.evaluation.decisions import FUSED, decide
from training.evaluation.held_out import choose_images
from training.graph import BundleGraph, clean_views
from training.models import Classifier

__all__ = ["Absent", "Contestant", "material_of", "of_bundle", "of_peers"]

_FITTED_ON = 5_000
"""Clean images that peers are fitted on, at most; our own detectors take all of the fit part."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contestant:
    """A fitted detector."""

    name: str
    title: str
    source: str
    fit_data: FitData
    score: Callable[[Bytes8], Float64s]
    """(N, H, W, C) images to (N,); larger = more suspicious."""
    target: Target | None
    """What an attack on it aims at; None for one without a gradient."""
    identity: str
    """Changes with all that its score depends on, the classifier aside."""


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A peer that cannot be measured here."""

    name: str
    title: str
    why: str


def material_of(
    model: Classifier, fit: ImageSet, calibration: ImageSet, attacked: Bytes8, labels: np.ndarray, *, seed: int
) -> Material:
    """What peers are fitted on.

    Args:
        model: in eval mode, on the CPU.
        fit: the fit part.
        calibration: the calibration part; what the classifier misreads of it is left out.
        attacked: (n, H, W, C) the calibration part under PGD.
        labels: (n,) what the classifier reads in those.
        seed: of the choice and of the noise.
    """
    chosen = choose_images(fit.labels, _FITTED_ON, seed)
    images, classes = fit.images[chosen], fit.labels[chosen]
    lessons = Lessons(images=images, labels=classes, eps=0.0, seed=seed)  # no peer forges perturbations
    calm, after = from_8_bit(calibration.images), from_8_bit(attacked)
    right = (rows_of(model, calm).argmax(dim=1) == torch.from_numpy(calibration.labels)).nonzero()[:, 0]
    return Material(
        model=model,
        fit=clean_views(model, images, classes, lessons),
        calm=calm[right],
        noisy=_noisy(calm[right], after[right], seed),
        attacked=after[right],
        fooled=torch.from_numpy(labels != calibration.labels)[right],
        seed=seed,
    )


def _noisy(clean: Tensor, attacked: Tensor, seed: int) -> Tensor:
    """Clean images with noise that is as long as the attack's change, of 8 bits."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    lengths = [change.flatten(1).norm(dim=1)[:, None, None, None] for change in (attacked - clean, noise)]
    return from_8_bit(nearest_8_bit(clean + noise * lengths[0] / lengths[1].clamp_min(1e-12)))


def of_peers(peers: Sequence[Peer], material: Material) -> list[Contestant | Absent]:
    """Fits them one after the other; one that cannot be fitted says why."""
    return [_fitted(peer, material) for peer in peers]


def _fitted(peer: Peer, material: Material) -> Contestant | Absent:
    try:
        scorer = peer.fit(material)
    except Unfit as error:
        return Absent(name=peer.name, title=peer.title, why=str(error))
    target, identity = None, peer.name
    if isinstance(scorer, TorchScorer):
        target, identity = Guarded(material.model, scorer.eval()), f"{peer.name} {_digest(scorer)}"
    return Contestant(
        name=peer.name,
        title=peer.title,
        source=peer.source,
        fit_data=peer.fit_data,
        score=scorer.score,
        target=target,
        identity=identity,
    )


def of_bundle(engine: Engine, graph: BundleGraph) -> list[Contestant]:
    """The fused statistic, then each detector alone.

    Args:
        engine: the bundle, which scores.
        graph: its torch twin, which attacks are aimed at.
    """
    bundle = engine.bundle
    entries = bundle.manifest.detectors
    names = {FUSED: "ours: fused", **{entry.name: f"ours: {entry.name} alone" for entry in entries}}
    aware = {entry.name for entry in entries if DETECTORS[entry.kind].is_attack_aware}
    contestants = []
    for place, (name, title) in enumerate(names.items(), start=-1):
        of: Literal["fused"] | int = place if place >= 0 else "fused"
        contestants.append(
            Contestant(
                name=f"ours_{name}",
                title=title,
                source=f"bundle {bundle.manifest.name}",
                fit_data="clean and PGD" if name in aware or (name == FUSED and aware) else "clean",
                score=_scores_of(engine, name),
                target=GraphTarget(graph, bundle.calibration, of),
                identity=f"{name} of bundle {bundle.calibration_id}",
            )
        )
    return contestants


def _scores_of(engine: Engine, name: str) -> Callable[[Bytes8], Float64s]:
    return lambda images: decide(engine, images).scores[name]


def _digest(scorer: nn.Module) -> str:
    """Of a fitted module's numbers and of the code here."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    for name, value in sorted(scorer.state_dict().items()):
        found.update(name.encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
