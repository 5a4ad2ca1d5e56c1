"""What the `evaluate` command works on and runs: bundle, run and images, and the attacks that they allow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.errors import SetupError
from training.checkpoint import Run, load_run
from training.data.splits import Parts
from training.evaluation import blind_strength, series
from training.evaluation.adaptive_suite import FULL, QUICK, STANDARD, adaptive_suite
from training.evaluation.aimed import Known
from training.evaluation.availability import availability_suite
from training.evaluation.entries import BUDGETED
from training.evaluation.held_out import HeldOut, choose_images
from training.evaluation.limited import limited_suite
from training.evaluation.options import Options
from training.evaluation.pairing import as_exported, check_pair
from training.evaluation.suite import Budgets, Fitting, NormName, SuiteEntry, blind_suite, budgets_for, fitting
from training.evaluation.transfer import transfer_suite
from training.evaluation.twin import torch_twin
from training.evaluation.views import views_of
from training.folders import make_folder

__all__ = ["Attacks", "Ready", "choose_attacks", "held_out", "prepare"]

_BLIND = {"quick": blind_strength.QUICK, "standard": blind_strength.STANDARD, "full": blind_strength.FULL}
_STRENGTHS = {"quick": QUICK, "standard": STANDARD, "full": FULL}
_SERIES = {"quick": series.QUICK, "standard": series.STANDARD, "full": series.FULL}
_EXEMPLARS = 1_000
"""Clean training images that adaptive attackers take exemplars and units from."""
_ALL_UP_TO = 2_000
"""Test images that are all attacked by default; of a larger set `_SOME` are."""
_SOME = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class Ready:
    """What an evaluation is about."""

    engine: Engine
    run: Run
    parts: Parts
    test: HeldOut
    budgets: Budgets


def prepare(options: Options, device: torch.device) -> Ready:
    """Loads all that an evaluation is about.

    Raises:
        BundleError: the bundle is damaged.
        SetupError: run or data are missing, do not belong to the bundle, or `--out` cannot be a folder.
    """
    engine = Engine.load(find_bundle(options.bundle))
    run = load_run(options.run, device=device)
    check_pair(run, engine.bundle)
    run = as_exported(run, engine.bundle)
    make_folder(options.out, "--out")
    parts = run.parts(options.data)
    test = held_out(run, parts, images=options.images, seed=options.seed)
    shape, threat = engine.bundle.manifest.input, engine.bundle.manifest.threat_model
    budgets = budgets_for(threat.norm, threat.eps, shape.height * shape.width * shape.channels, l2_eps=options.l2_eps)
    return Ready(engine=engine, run=run, parts=parts, test=test, budgets=budgets)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacks:
    """What is run."""

    allowed: Fitting
    known: Known | None
    """What those who know the detectors have; None without them."""
    denial: tuple[SuiteEntry, ...]
    series: series.Series | None


def choose_attacks(ready: Ready, options: Options) -> Attacks:
    """What is run: the attacks that were asked for and that the model allows.

    Raises:
        SetupError: an attack is unknown, none of them keeps to a budget, or another run does not fit.
    """
    engine, run, budgets = ready.engine, ready.run, ready.budgets
    known = None if options.non_adaptive else _known(engine, run, ready.parts, options)
    adaptive, denial, beside = _adaptive(engine, run, known, budgets, options) if known else ((), (), None)
    return Attacks(
        allowed=_allowed(run, ready.test, budgets, adaptive, options),
        known=known,
        denial=() if options.attacks else denial,
        series=None if options.attacks else beside,
    )


def _allowed(
    run: Run, held_out: HeldOut, budgets: Budgets, adaptive: Sequence[SuiteEntry], options: Options
) -> Fitting:
    """The attacks that were asked for and that the model allows."""
    strength = _BLIND[options.budget]
    suite = (*blind_suite(budgets, strength), *transfer_suite(run, options.transfer, budgets, strength), *adaptive)
    logits = views_of(run.model, held_out.images[held_out.chosen]).logits.topk(2, dim=1).values  # (N, 2)
    widest = float((logits[:, 0] - logits[:, 1]).max())
    allowed = fitting(suite, options.attacks, classes=len(run.class_names), widest=widest)
    if all(entry.norm not in BUDGETED for entry in allowed.entries):
        raise SetupError(
            f"--attacks: expected one within a Linf or L2 budget, by which the worst case is told, got "
            f"{', '.join(options.attacks)}; add pgd"
        )
    return allowed


def _known(engine: Engine, run: Run, parts: Parts, options: Options) -> Known:
    """What those who know the detectors have."""
    places = choose_images(parts.train.labels, _EXEMPLARS, options.seed)
    return Known.of(torch_twin(run, parts, engine), engine, parts.train.images[places])


def _adaptive(
    engine: Engine, run: Run, known: Known, budgets: Budgets, options: Options
) -> tuple[tuple[SuiteEntry, ...], tuple[SuiteEntry, ...], series.Series]:
    """The attacks that know the detectors, those on availability, and the series beside them."""
    manifest = engine.bundle.manifest
    strength = _STRENGTHS[options.budget]
    norm: NormName = "l2" if manifest.threat_model.norm == "l2" else "linf"
    return (
        (
            *adaptive_suite(known, budgets, norm, strength, alpha=manifest.default_alpha),
            *limited_suite(
                run,
                options.surrogate,
                known,
                budgets,
                norm,
                strength,
                data_root=options.data,
                seed=options.seed,
            ),
        ),
        availability_suite(
            known.graph,
            known.calibration,
            known.calibration_id,
            budgets,
            norm,
            steps=strength.steps,
            restarts=strength.restarts,
        ),
        series.attack_series(known, budgets, norm, _SERIES[options.budget]),
    )


def held_out(run: Run, parts: Parts, *, images: int | None, seed: int) -> HeldOut:
    """The test images of a run and which of them are attacked; None chooses how many by the size of the set.

    Raises:
        SetupError: there is no test image.
    """
    test = parts.test
    if not len(test):
        raise SetupError(f"{run.path}: expected test images, got none")
    count = images or (len(test) if len(test) <= _ALL_UP_TO else _SOME)
    return HeldOut(
        images=np.ascontiguousarray(test.images),
        labels=test.labels,
        chosen=choose_images(test.labels, count, seed),
        in_tracks=parts.train.tracks is not None,  # a published test split tells no tracks, yet has them
    )
