"""Attackers of limited knowledge: they make a bundle of their own, and try its attacks on this one."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.detection.calibration import Calibration
from service.detection.types import Bytes8
from training.attacks.adaptive import AdaptivePgd, GraphTarget, Loop, Orthogonal, Selective
from training.checkpoint import Run, load_run
from training.evaluation.adaptive_suite import AdaptiveStrength, embedding_of
from training.evaluation.aimed import Aimed, Known, NearExemplars
from training.evaluation.entries import Budgets, NormName, SuiteEntry
from training.evaluation.held_out import choose_images
from training.evaluation.transfer import check_same_data
from training.export import fitted_graph
from training.graph import BundleGraph, torch_outputs
from training.network_digest import network_digest

__all__ = ["limited_suite", "own_bundle"]

_EXEMPLARS = 1_000


def limited_suite(
    run: Run,
    others: Sequence[Path],
    attacked: Known,
    budgets: Budgets,
    norm: NormName,
    strength: AdaptiveStrength,
    *,
    data_root: Path | None,
    seed: int,
) -> tuple[SuiteEntry, ...]:
    """Selective and orthogonal PGD and matching, three for each run of an attacker.

    Args:
        run: whose bundle is attacked.
        others: runs of the attackers.
        attacked: the bundle; its attackers know the kinds of its detectors and how they are fused.
        budgets: of both norms.
        norm: of the threat model.
        strength: how much they may compute.
        data_root: folder of the data.
        seed: of the choice of exemplars.

    Raises:
        SetupError: a run is missing or unfinished, is of other data, classes or images, or has this run's own network.
    """
    entries: list[SuiteEntry] = []
    for number, path in enumerate(others, start=1):
        other = load_run(path, device=next(run.model.parameters()).device)
        check_same_data("--surrogate", run, other)
        known = own_bundle(other, attacked, data_root=data_root, seed=seed)
        loop = Loop(norm=norm, eps=budgets.of(norm), steps=strength.steps, restarts=strength.restarts)
        matching = NearExemplars(
            loop=loop, known=known, see=embedding_of(known.graph), nearest=strength.nearest, others=strength.others
        )
        attacks = (
            ("selective", "Selective PGD", AdaptivePgd(loop=loop, rule=Selective())),
            ("orthogonal", "Orthogonal PGD", AdaptivePgd(loop=loop, rule=Orthogonal())),
            ("match_embedding", "Matching embedding", matching),
        )
        words = f"{loop}, nearest={strength.nearest}, others={strength.others}, at {known.calibration_id}"
        entries += [
            SuiteEntry(
                name=f"limited{number}_{name}",
                title=f"{title} by way of {path.resolve().name}",
                description="Made on a bundle that the attacker trained and calibrated himself, and tried here.",
                norm=norm,
                eps=loop.eps,
                attack=Aimed(
                    attack=attack, target=GraphTarget(known.graph, known.calibration), words=f"{name}({words})"
                ),
                is_adaptive=True,
            )
            for name, title, attack in attacks
        ]
    return tuple(entries)


def own_bundle(run: Run, like: Known, *, data_root: Path | None, seed: int) -> Known:
    """What an attacker has who exports this run with detectors like those of another bundle; it never leaves torch."""
    parts = run.parts(data_root)
    device = next(run.model.parameters()).device
    run.model.to("cpu")  # where detectors are fitted
    graph = fitted_graph(run, parts, like.names)
    calibration = Calibration.from_clean(
        torch_outputs(graph, parts.calibration.images).scores,
        torch_outputs(graph, parts.fusion.images).scores,
        fusion=like.calibration.fusion,
    )
    images: Bytes8 = np.ascontiguousarray(parts.train.images[choose_images(parts.train.labels, _EXEMPLARS, seed)])
    outputs = torch_outputs(graph, images)
    labels = outputs.logits.argmax(axis=1)
    return Known(
        graph=graph.to(device),
        calibration=calibration,
        calibration_id=_identity(graph, calibration),
        names=like.names,
        images=images,
        labels=labels,
        p_values=calibration.fused_p_values(outputs.scores, labels),
    )


def _identity(graph: BundleGraph, calibration: Calibration) -> str:
    """What the cache of attacked images tells it by."""
    return f"{network_digest(graph)}-{hashlib.sha256(calibration.to_bytes()).hexdigest()[:16]}"
