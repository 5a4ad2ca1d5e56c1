"""Makes a bundle of a run: fits detectors, exports the graph, calibrates on it, checks it against torch."""

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from service.detection.bundle import RESIZE, Bundle, check_room, file_entries, find_bundle, load_bundle, write_bundle
from service.detection.calibration import Calibration, alpha_rank, images_needed
from service.detection.engine import Engine, softmax
from service.detection.graph import Graph, GraphShape
from service.detection.manifest import FORMAT_VERSION, DetectorEntry, InputShape, Manifest, Quantised, ThreatModel
from service.detection.rows import ByClass
from service.detection.types import Bytes8, Float32s, Integers
from service.errors import SetupError
from training.canaries import make_canaries
from training.checkpoint import Run, code_version, load_run
from training.checks import require
from training.config import Recipe, exported_as, recipe_to_dict
from training.data.splits import Parts
from training.detectors import DETECTORS, CleanViews, Detector, Learned
from training.detectors.classes import class_counts
from training.evaluation.pairing import as_exported, check_pair
from training.fusion import made_fusion, weight_images
from training.graph import BundleGraph, clean_views, onnx_bytes
from training.lessons import Weights, keep_learned, kept_learned, lessons_of
from training.model_card import model_card
from training.parity import check_parity, check_quantised
from training.quantising import quantised_graph
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
        like: an earlier bundle of this run, whose section `export` counts instead of the recipe's, and whose learned
            detectors are taken instead of training them again.

    Raises:
        SetupError: the run, its data or its recipe does not allow it; the message says what to change.
        BundleError: `out` exists already.
    """
    check_room(out, replace=replace)  # write_bundle would refuse it only after minutes of work
    require(int8 or not reduce_range, "--reduce-range", "--int8 beside it", "a bundle in float32")
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
        model, quantised = _quantised(run, graph, model, shape, parts.fit.images, reduce_range=reduce_range)
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


def _quantised(
    run: Run, graph: BundleGraph, model: bytes, shape: GraphShape, images: Bytes8, *, reduce_range: bool
) -> tuple[bytes, Quantised]:
    """The graph in 8 bits, and what a manifest says of it.

    Raises:
        SetupError: there is nothing to quantise, or the answers move too far.
    """
    made = quantised_graph(model, images, reduce_range=reduce_range)
    found = check_quantised(graph, Graph(made.model, shape), images)
    return made.model, Quantised(
        precision="int8",
        run=run.path.resolve().name,
        float_graph=hashlib.sha256(model).hexdigest(),
        convolutions=made.convolutions,
        quantised_convolutions=made.quantised_convolutions,
        calibration_images=made.images,
        reduced_range=reduce_range,
        compared_images=found.images,
        label_agreement=found.label_agreement,
        score_shifts=dict(zip(run.recipe.export.detectors, found.score_shifts, strict=True)),
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
        like=arguments.like,
    )
    sizes = bundle.calibration
    sys.stderr.write(
        f"bundle {bundle.path}: {len(bundle.manifest.detectors)} detectors, {sizes.detector_scores.shape[1]} + "
        f"{sizes.fused_scores.size} calibration images, {sizes.fusion.kind} fusion, "
        f"smallest alpha {sizes.smallest_alpha:.3g}, "
        f"{len(bundle.graph) / 1e6:.2f} MB graph{_rounding(bundle.manifest.quantised)}\n"
    )
    return 0


def _rounding(quantised: Quantised | None) -> str:
    if quantised is None:
        return ""
    return (
        f", {quantised.precision} in {quantised.quantised_convolutions} of {quantised.convolutions} convolutions; of "
        f"{quantised.compared_images} clean images it labels {quantised.label_agreement:.1%} as the float network does"
    )
