"""All analyses of one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.detection.types import Float64s
from service.errors import SetupError
from training.analysis.curves import TrainingCurves, training_curves
from training.analysis.distances import ClassDistances, class_distances
from training.analysis.embedding import EmbeddingMap, embedding_map
from training.analysis.heatmap import HeatMap, heat_map
from training.analysis.lowpass import LowPass, LowPassCurve, low_pass_curve
from training.analysis.neighbours import Neighbours, neighbours
from training.analysis.perturbation import PerturbationSpectrum, perturbation_spectrum
from training.analysis.smoothness import Kernels, kernels
from training.analysis.subjects import Subject
from training.analysis.views import Views, accuracy, as_floats, attack_images, see
from training.attacks import Pgd
from training.checkpoint import read_checkpoint
from training.config import recipe_values
from training.data.types import ImageSet
from training.evaluation.held_out import choose_images
from training.method_names import method_names
from training.spelling import budget_words

__all__ = ["PGD_STEPS", "RunAnalysis", "Settings", "analyse"]

PGD_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is done to every run alike."""

    norm: Literal["linf", "l2"]
    eps: float
    low_pass: LowPass
    heat_map_images: int
    seed: int

    def attack(self) -> Pgd:
        """PGD-20 with steps of a quarter of the budget: 2/255 at 8/255, as in the papers' tables."""
        return Pgd(norm=self.norm, eps=self.eps, step=self.eps / 4, steps=PGD_STEPS)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunAnalysis:
    """Every figure of one run; what has no number to show is None."""

    name: str
    recipe: str
    """Its network and training attack, in words."""
    recipe_values: Mapping[str, object]
    """All of its recipe, by `section.key`."""
    epoch: int
    """Whose weights were analysed."""
    clean_accuracy: float
    attacked_accuracy: float
    low_pass: LowPassCurve
    spectrum: PerturbationSpectrum
    kernels: Kernels | None
    curves: TrainingCurves
    heat_map: HeatMap
    embedding: EmbeddingMap
    neighbours: Neighbours
    distances: ClassDistances
    clean: Views = field(metadata={"picture": True})
    attacked: Views = field(metadata={"picture": True})
    gallery: Views = field(metadata={"picture": True})
    """Of the fit part, among which the neighbours are."""
    gallery_labels: NDArray[np.int64] = field(metadata={"picture": True})
    """(G,) its classes."""


def analyse(subject: Subject, test: ImageSet, settings: Settings, progress: Callable[[str], None]) -> RunAnalysis:
    """Everything that the page shows of one run.

    Args:
        subject: the run.
        test: images that it was not trained on.
        settings: of the attack and the analyses.
        progress: takes a line for people.

    Raises:
        SetupError: the network gives no numbers.
    """
    model, name, labels, seed = subject.run.model, subject.name, test.labels, settings.seed

    def share_right(images: Float64s) -> float:
        return accuracy(model, images, labels)

    progress(f"{name}: attacking {len(test)} images")
    clean = see(model, np.ascontiguousarray(test.images))
    if not np.isfinite(clean.embedding).all():
        raise SetupError(f"{subject.run.path}: expected finite embeddings, got NaN; its training diverged, fit it anew")
    attacked = see(model, attack_images(model, clean.images, labels, settings.attack(), seed))
    before, after = as_floats(clean.images), as_floats(attacked.images)
    progress(f"{name}: spectra")
    curve = low_pass_curve(share_right, before, after, kind=settings.low_pass)
    spectrum = perturbation_spectrum(before, after)
    errors = _heat_map(subject, test, spectrum.change, settings, progress)
    progress(f"{name}: embedding")
    gallery = see(model, np.ascontiguousarray(subject.gallery.images))
    return RunAnalysis(
        name=name,
        recipe=_recipe_words(subject),
        recipe_values=recipe_values(subject.run.recipe),
        epoch=subject.run.epoch,
        clean_accuracy=float((clean.predicted == labels).mean()),
        attacked_accuracy=float((attacked.predicted == labels).mean()),
        low_pass=curve,
        spectrum=spectrum,
        kernels=kernels(model, seed),
        curves=training_curves(read_checkpoint(subject.run.path)["loop"]["log"], subject.run.epoch),
        heat_map=errors,
        embedding=embedding_map(clean.embedding, attacked.embedding, labels, seed),
        neighbours=neighbours(
            clean=clean.embedding,
            attacked=attacked.embedding,
            labels=labels,
            groups=test.tracks,
            fools=(clean.predicted == labels) & (attacked.predicted != labels),
            gallery=gallery.embedding,
            seed=seed,
        ),
        distances=class_distances(clean.embedding, attacked.embedding, labels),
        clean=clean,
        attacked=attacked,
        gallery=gallery,
        gallery_labels=subject.gallery.labels,
    )


def _heat_map(
    subject: Subject, test: ImageSet, change: Float64s, settings: Settings, progress: Callable[[str], None]
) -> HeatMap:
    some = choose_images(test.labels, settings.heat_map_images, settings.seed)
    labels = test.labels[some]
    return heat_map(
        lambda images: accuracy(subject.run.model, images, labels),
        as_floats(test.images[some]),
        change,
        seed=settings.seed,
        tick=lambda done, of: progress(f"{subject.name}: heat map, frequency {done + 1} of {of}"),
    )


def _recipe_words(subject: Subject) -> str:
    recipe = subject.run.recipe
    model, attack = recipe.model, recipe.attack
    trained = "clean images" if attack.name == "none" else f"{attack.name} {attack.norm} {budget_words(attack.eps)}"
    methods = " + ".join(method_names(recipe).values())
    return f"{model.name} {model.width}/{model.depth}, trained on {trained}" + (f" with {methods}" if methods else "")
