"""Adaptive attacks as entries of a suite: what they know, what they are aimed at, and those made of several."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from service.detection.calibration import Calibration
from service.detection.engine import Engine
from service.detection.types import Bytes8
from training.attacks.adaptive import (
    AdaptiveAttack,
    AdaptivePgd,
    Found,
    Loop,
    Matching,
    Target,
    choose_exemplars,
    clean_deviations,
    joined,
)
from training.attacks.rounding import from_8_bit
from training.evaluation.decisions import FUSED, decide
from training.graph import BundleGraph

__all__ = ["Aimed", "Each", "Known", "NearExemplars"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What these attackers know: everything but secrets of a deployment, and it has none."""

    graph: BundleGraph
    """The bundle's torch twin."""
    calibration: Calibration
    calibration_id: str
    """Of the bundle."""
    names: tuple[str, ...]
    """Of the detectors."""
    images: Bytes8
    """(M, H, W, C) clean images, to take exemplars and units from; none of those that are attacked."""
    labels: np.ndarray
    """(M,) the classes that the bundle gives them."""
    p_values: np.ndarray
    """(M,) their fused p-values."""

    @classmethod
    def of(cls, graph: BundleGraph, engine: Engine, images: Bytes8) -> "Known":
        """Asks the bundle about the clean images."""
        answers = decide(engine, images)
        bundle = engine.bundle
        return cls(
            graph=graph,
            calibration=bundle.calibration,
            calibration_id=bundle.calibration_id,
            names=tuple(entry.name for entry in bundle.manifest.detectors),
            images=images,
            labels=answers.labels,
            p_values=answers.p_values[FUSED],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Aimed:
    """An adaptive attack as one of a suite; the model that it is called with is part of its own target."""

    attack: AdaptiveAttack
    target: Target
    words: str
    """Its settings, the bundle among them."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See training.attacks.Attack."""
        return self.attack(self.target, images, labels, generator).images

    def __repr__(self) -> str:
        return self.words


@dataclass(frozen=True, kw_only=True, eq=False)
class Each:
    """One rule with several guides; the best for each image counts."""

    attacks: tuple[AdaptivePgd, ...]

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Found:
        """See AdaptiveAttack."""
        return joined([attack(target, images, labels, generator, targets=targets) for attack in self.attacks])


@dataclass(frozen=True, kw_only=True, eq=False)
class NearExemplars:
    """Matching with exemplars chosen for each image among known ones."""

    loop: Loop
    known: Known
    see: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Images to what is matched (N, D) and to their embedding."""
    nearest: int
    others: int

    def __call__(
        self,
        target: Target,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        targets: Tensor | None = None,
    ) -> Found:
        """See AdaptiveAttack."""
        clean = from_8_bit(self.known.images).to(images)
        with torch.no_grad():
            embedding, clean_embedding = self.see(images)[1], self.see(clean)[1]
        places = choose_exemplars(
            embedding,
            labels,
            clean_embedding,
            torch.from_numpy(self.known.labels).to(labels),
            torch.from_numpy(self.known.p_values).to(images),
            generator,
            targets=targets,
            nearest=self.nearest,
            others=self.others,
        )
        attack = Matching(
            loop=self.loop,
            descriptor=self._described,
            deviations=clean_deviations(self._described, clean),
            exemplars=clean[places],
        )
        return attack(target, images, labels, generator, targets=targets)

    def _described(self, images: Tensor) -> Tensor:
        return self.see(images)[0]
