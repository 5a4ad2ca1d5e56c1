"""Makes a bundle of a run: fits detectors, exports the graph, calibrates on it, checks it against torch."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from service.detection.bundle import (
    HISTORY,
    RESIZE,
    Bundle,
    check_room,
    file_entries,
    find_bundle,
    load_bundle,
    write_bundle,
)
from service.detection.calibration import Calibration, alpha_rank, images_needed
from service.detection.engine import Engine, softmax
from service.detection.graph import Graph, GraphShape
from service.detection.manifest import FORMAT_VERSION, DetectorEntry, InputShape, Manifest, ThreatModel
from service.detection.rows import ByClass
from service.detection.types import Bytes8, Float32s, Integers
from service.errors import SetupError
from service.history.calibrate import LEAST_UNRELATED
from service.history.calibration import Calibration as HistoryCalibration
from training.canaries import make_canaries
from training.checkpoint import Run, code_version, load_run
from training.checks import require
from training.config import Recipe, exported_as, recipe_from_dict, recipe_to_dict
from training.data.splits import Parts
from training.detectors import DETECTORS, CleanViews, Detector, Learned
from training.detectors.classes import class_counts
from training.evaluation.pairing import as_exported, check_pair
from training.fusion import made_fusion, weight_images
from training.graph import BundleGraph, clean_views, onnx_bytes
from training.history.making import made_history
from training.history.pools import pools_of
from training.lessons import Weights, keep_learned, kept_learned, lessons_of
from training.model_card import model_card
from training.parity import check_parity
from training.reduced import in_float16, in_int8, reduction_words
from training.resizing import check_resizer, resize_bytes

__all__ = ["check_detectors", "check_exportable", "export", "fitted_graph", "run_command"]

BATCH = 256


def export(
    run_path: Path,
    out: Path,
    *,
    data_root: Path | None,
    replace: bool = False,
    overrides: Sequence[str] = (),
    int8: bool = False,
    reduce_range: bool = False,
    fp16: bool = False,
    like: str | None = None,
) -> Bundle:
    """Writes the bundle of a finished run.

    Args:
        run_path: directory of the run.
        out: the bundle; its name is the folder's.
        data_root: folder of the data.
        replace: whether a bundle that stands there already goes.
        overrides: `export.key=value`, instead of what the run's recipe says.
        int8: whether the graph is quantised, see training.quantising; all that is measured is measured on that graph.
        reduce_range: see there.
        fp16: whether the trunk computes in float16, see training.halving; likewise.
        like: an earlier bundle of this run, whose section `export` counts instead of the recipe's, and whose learned
            detectors are taken instead of training them again.

    Raises:
        SetupError: the run, its data or its recipe does not allow it; the message says what to change.
        BundleError: `out` exists already.
    """
    check_room(out, replace=replace)  # write_bundle would refuse it only after minutes of work
    require(not (int8 and fp16), "--fp16", "one precision", "--int8 as well")
    require(int8 or not reduce_range, "--reduce-range", "--int8 beside it", "none")
    run = load_run(run_path)
    learned: Weights = {}
    if like is not None:
        earlier = load_bundle(find_bundle(like))
        check_pair(run, earlier)
        run, learned = as_exported(run, earlier), kept_learned(run.path, earlier.manifest.files["model.onnx"].sha256)
    run = dataclasses.replace(run, recipe=exported_as(run.recipe, overrides))
    norms = list(run.recipe.minmax.budgets)
    require(not norms or run.recipe.attack.norm in norms, "minmax.norms", "linf or l2, which a bundle can state", norms)
    parts = run.parts(data_root)
    check_exportable(run.recipe, parts, len(run.class_names))
    graph = fitted_graph(run, parts, run.recipe.export.detectors, learned)
    model = onnx_bytes(graph, parts.fit.images[:4])
    shape = _shape(run, graph)
    session = Graph(model, shape)
    parity = dataclasses.asdict(check_parity(graph, session, parts.fit.images))
    quantised = None
    if int8:
        model, quantised = in_int8(run, graph, model, shape, parts.fit.images, reduce_range=reduce_range)
    elif fp16:
        model, quantised = in_float16(run, graph, model, shape, parts.fit.images)
    if quantised is not None:
        session, parity = Graph(model, shape), dataclasses.asdict(quantised)
    calibration = _calibration(run, parts, session)
    files = {
        "model.onnx": model,
        "calibration.npz": calibration.to_bytes(),
        "report.json": (json.dumps({"evaluated": False, "parity": parity}, indent=2) + "\n").encode(),
    }
    manifest = dataclasses.replace(_manifest(run, graph, shape, name=out.name), quantised=quantised)
    if run.recipe.export.resize:
        files[RESIZE] = resize_bytes(manifest.input)
        check_resizer(files[RESIZE], manifest.input)
    engine = Engine(
        Bundle(
            path=out,
            manifest=manifest,
            calibration=calibration,
            graph=model,
            resize=files.get(RESIZE),
            calibration_id="",
        )
    )
    history = _history(engine, data_root, seed=run.recipe.train.seed)
    if history is not None:
        files[HISTORY] = history.to_bytes()
    manifest = dataclasses.replace(manifest, canaries=make_canaries(graph, engine, seed=run.recipe.train.seed))
    files["model_card.md"] = model_card(manifest, calibration).encode()
    entries = file_entries(files)
    keep_learned(run.path, graph, entries["model.onnx"].sha256)
    write_bundle(out, dataclasses.replace(manifest, files=entries), files, replace=replace)
    return load_bundle(out)


def check_exportable(recipe: Recipe, parts: Parts, classes: int) -> None:
    """Refuses what export would refuse, before hours of training are spent on it.

    Raises:
        SetupError: an unknown detector, a class with too few images to fit on, or too few calibration images.
    """
    check_detectors(recipe)
    needed = max(DETECTORS[name].images_a_class for name in recipe.export.detectors)
    class_counts(torch.from_numpy(parts.fit.labels), classes, at_least=needed)
    found, alpha = len(parts.fusion), recipe.export.default_alpha
    if alpha_rank(alpha, found) < 1:
        raise SetupError(
            f"data.fusion: expected at least {images_needed(alpha)} images for export.default_alpha {alpha:g}, "
            f"got {found}; enlarge the one or the other"
        )


def check_detectors(recipe: Recipe) -> None:
    """Refuses unknown detectors.

    Raises:
        SetupError: names the known ones.
    """
    for name in recipe.export.detectors:
        require(name in DETECTORS, "export.detectors", f"some of {', '.join(DETECTORS)}", name)


def fitted_graph(run: Run, parts: Parts, detectors: Sequence[str], learned: Weights | None = None) -> BundleGraph:
    """The run's classifier with detectors of these names, fitted on the fit part.

    Args:
        run: finished.
        parts: of its data; detectors with a network of their own learn from the training part.
        detectors: their names.
        learned: what such detectors learned before; those that it has are not trained again.

    Raises:
        SetupError: the part has too few images of a class, or the weights are of another network.
    """
    clean = clean_views(run.model, parts.fit.images, parts.fit.labels, lessons_of(run, parts.train))
    return BundleGraph(run.model, [_fitted(DETECTORS[name], clean, learned or {}) for name in detectors])


def _fitted(kind: type[Detector], clean: CleanViews, learned: Weights) -> Detector:
    return (
        kind.restored(clean, learned[kind.kind])
        if issubclass(kind, Learned) and kind.kind in learned
        else kind.fit(clean)
    )


def _calibration(run: Run, parts: Parts, session: Graph) -> Calibration:
    """Of the exported graph: a calibration belongs to the graph that is served."""
    config = run.recipe.export
    first = _answers(session, parts.calibration.images)[0]
    second, labels = _answers(session, parts.fusion.images)
    fusion = made_fusion(
        config.fusion,
        calibrated_on=first,
        score=lambda images: _answers(session, images)[0],
        images=weight_images(parts)[0].images,
        eps=lessons_of(run, parts.fit).eps,
        seed=run.recipe.train.seed,
    )
    by_class = ByClass.of(labels, len(run.class_names), images_needed(config.default_alpha))
    return Calibration.from_clean(first, second, fusion=fusion, by_class=by_class if config.mondrian else None)


def _history(engine: Engine, data_root: Path | None, *, seed: int) -> HistoryCalibration | None:
    """Of the query history; None where the recipe leaves it out, or there are too few images, which is said."""
    level = recipe_from_dict(engine.bundle.manifest.training).export.history_level
    if not level:
        return None
    pools = pools_of(engine, data_root)
    if len(pools.calibration) < LEAST_UNRELATED:
        sys.stderr.write(
            f"bundle without {HISTORY}: expected {LEAST_UNRELATED} images or tracks or more in data.calibration and "
            f"data.fusion together, of which it is made, got {len(pools.calibration)}\n"
        )
        return None
    return made_history(engine, pools, level=level, seed=seed)


def _answers(session: Graph, images: Bytes8) -> tuple[Float32s, Integers]:
    """(n, K) scores and (n,) predicted classes."""
    batches = [session.run(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    labels = [softmax(batch.logits).argmax(axis=1) for batch in batches]
    return np.concatenate([batch.scores for batch in batches]), np.concatenate(labels)


def _shape(run: Run, graph: BundleGraph) -> GraphShape:
    height, width, channels = run.input_shape
    return GraphShape(
        height=height,
        width=width,
        channels=channels,
        classes=len(run.class_names),
        embedding=run.model.head.in_features,
        detectors=len(graph.detectors),
    )


def _manifest(run: Run, graph: BundleGraph, shape: GraphShape, *, name: str) -> Manifest:
    recipe = run.recipe
    kinds = [DETECTORS[name] for name in recipe.export.detectors]
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        version=recipe.export.version,
        input=InputShape(height=shape.height, width=shape.width, channels=shape.channels),
        class_names=run.class_names,
        embedding_dim=shape.embedding,
        detectors=tuple(
            DetectorEntry(name=kind.kind, kind=kind.kind, meaning=kind.meaning, reason=kind.reason) for kind in kinds
        ),
        default_alpha=recipe.export.default_alpha,
        threat_model=ThreatModel(norm=recipe.attack.norm, eps=recipe.attack.eps),
        files={},
        canaries=(),
        training=recipe_to_dict(recipe),
        code_version=code_version(),
        metrics={},
        metrics_command="",
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `export`; gives its exit status."""
    bundle = export(
        arguments.run,
        arguments.out,
        data_root=arguments.data,
        replace=arguments.force,
        overrides=arguments.overrides,
        int8=arguments.int8,
        reduce_range=arguments.reduce_range,
        fp16=arguments.fp16,
        like=arguments.like,
    )
    sizes = bundle.calibration
    sys.stderr.write(
        f"bundle {bundle.path}: {len(bundle.manifest.detectors)} detectors, {sizes.detector_scores.shape[1]} + "
        f"{sizes.fused_scores.size} calibration images, {sizes.fusion.kind} fusion, "
        f"smallest alpha {sizes.smallest_alpha:.3g}, "
        f"{len(bundle.graph) / 1e6:.2f} MB graph{reduction_words(bundle.manifest.quantised)}"
        f"{_calibrated(bundle.history)}\n"
    )
    return 0


def _calibrated(history: HistoryCalibration | None) -> str:
    return "" if history is None else f", query history calibrated on {history.streams} streams of a kind"
