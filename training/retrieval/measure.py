"""Retrieval figures of one run, benign and under attacks on the queries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from service.detection.types import Bytes8
from training.attacks import Pgd
from training.attacks.query import QueryClassifier, own_labels
from training.attacks.rounding import from_8_bit, to_8_bit
from training.checkpoint import Run
from training.collapse import Spread
from training.evaluation.eight_bit import EightBit
from training.evaluation.views import views_of
from training.retrieval.gallery import Gallery
from training.retrieval.ranking import Ranked, ranked

__all__ = ["AIMS", "QueryAttack", "cluster_agreement", "measure_retrieval"]

AIMS: tuple[Literal["away", "toward", "margin"], ...] = ("away", "toward", "margin")
"""Of the query attacks: see training.attacks.query."""
BATCH = 250
KMEANS_STARTS = 10

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class QueryAttack:
    """What the queries are attacked with: PGD on each of the aims."""

    norm: Literal["linf", "l2"]
    eps: float
    steps: int
    restarts: int
    seed: int


def measure_retrieval(run: Run, gallery: Gallery, attack: QueryAttack, progress: Callable[[str], None]) -> Figures:
    """R@1, R@2, mAP@R and NMI, as `benign_...`, of each aim as AIM_..., and as `worst_...`.

    The worst takes each query's own worst over the aims, NMI as a whole. The spread of the gallery's embeddings comes
    along, which tells a collapsed embedding from a robust one.

    Args:
        run: its model is in eval mode.
        gallery: what is searched.
        attack: on the queries; the images are rounded to 8 bits inside the budget before they count.
        progress: takes lines for people.
    """
    progress(f"{run.path.name}: {len(gallery.images)} images")
    embeddings = views_of(run.model, gallery.images.images).embedding
    own, other = gallery.partners()
    queries = torch.from_numpy(gallery.queries)
    labels = gallery.images.labels[gallery.queries]

    def _figures(found: Tensor) -> tuple[dict[str, Tensor], float]:
        return _of_queries(ranked(found, embeddings, own, other)), cluster_agreement(found, labels, attack.seed)

    spread = Spread.of(embeddings[queries])
    made = {"benign": _figures(embeddings[queries])}
    for aim in AIMS:
        images = _attacked(run, gallery, embeddings, (own, other), attack, aim, progress)
        made[aim] = _figures(views_of(run.model, images).embedding)
    attacked = [made[aim] for aim in AIMS]
    worst = {name: torch.stack([each[name] for each, _ in attacked]).amin(dim=0) for name in attacked[0][0]}
    made["worst"] = worst, min(nmi for _, nmi in attacked)
    figures: Figures = {}
    for name, (each, nmi) in made.items():
        figures |= {f"{name}_{figure}": float(values.mean()) for figure, values in each.items()}
        figures[f"{name}_nmi"] = nmi
    return figures | {"embedding_distance": spread.distance, "embedding_variance": spread.variance}


def _of_queries(found: Ranked) -> dict[str, Tensor]:
    """(Q,) each."""
    return {"r1": found.recall(1), "r2": found.recall(2), "map_r": found.average_precision()}


def cluster_agreement(embeddings: Tensor, labels: np.ndarray, seed: int) -> float:
    """Normalised mutual information, from 0 to 1, of the classes and as many clusters of k-means on (N, D)."""
    count = len(np.unique(labels))
    points = embeddings.double().numpy()
    count = min(count, len(np.unique(points, axis=0)))  # k-means cannot make more clusters than there are points
    clusters = KMeans(count, n_init=KMEANS_STARTS, random_state=seed).fit_predict(points)
    return float(normalized_mutual_info_score(labels, clusters))


def _attacked(
    run: Run,
    gallery: Gallery,
    embeddings: Tensor,
    partners: Sequence[Tensor],
    attack: QueryAttack,
    aim: Literal["away", "toward", "margin"],
    progress: Callable[[str], None],
) -> Bytes8:
    """The queries attacked, (Q, H, W, C)."""
    device = next(run.model.parameters()).device
    searched = embeddings.to(device)
    pgd = Pgd(norm=attack.norm, eps=attack.eps, steps=attack.steps, restarts=attack.restarts, loss=aim, keep_worst=True)
    generator = torch.Generator().manual_seed(attack.seed)
    made = []
    for start in range(0, len(gallery.queries), BATCH):
        places = slice(start, start + BATCH)
        progress(f"{run.path.name}, {aim}: {start} of {len(gallery.queries)} queries")
        clean = from_8_bit(gallery.images.images[gallery.queries[places]]).to(device)
        own, other = (whose[places].to(device) for whose in partners)
        model = QueryClassifier(run.model, searched, own, other)
        target = EightBit(model) if attack.norm == "linf" else model
        found = pgd(target, clean, own_labels(len(clean), device), generator)
        made.append(to_8_bit(found, clean, attack.norm, attack.eps).cpu().numpy())
    return np.concatenate(made)
