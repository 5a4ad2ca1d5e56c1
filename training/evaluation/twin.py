"""The bundle as a torch module, so that attacks may follow gradients through its detectors too."""

import numpy as np

from service.detection.engine import Engine
from service.detection.types import Bytes8
from service.errors import SetupError
from training.checkpoint import Run
from training.data.splits import Parts
from training.detectors import DETECTORS
from training.export import fitted_graph
from training.graph import BundleGraph, torch_outputs
from training.lessons import kept_learned
from training.parity import COMPARED, TOLERANCE, compare_outputs, compare_quantised

__all__ = ["torch_twin"]

_COMPARED = 64


def torch_twin(run: Run, parts: Parts, engine: Engine) -> BundleGraph:
    """The graph of the run with its detectors fitted again, on the run's device.

    Fitting is deterministic, so this is what the bundle was exported from; it is compared on clean images all the same.
    The twin of a quantised bundle is the float network that it was made of: close to it, and not the same.

    Raises:
        SetupError: it differs from the bundle, whose detectors would then not be what is attacked.
    """
    manifest = engine.bundle.manifest
    kinds = [entry.kind for entry in manifest.detectors]
    if unknown := [kind for kind in kinds if kind not in DETECTORS]:
        raise SetupError(
            f"bundle {manifest.name}: expected detectors among {', '.join(DETECTORS)}, got "
            f"{', '.join(unknown)}; attack the classifier alone with --non-adaptive"
        )
    device = next(run.model.parameters()).device
    run.model.to("cpu")  # where detectors are fitted; the graph takes it along when it goes back
    learned = kept_learned(run.path, manifest.files["model.onnx"].sha256)
    graph = fitted_graph(run, parts, kinds, learned)
    images: Bytes8 = np.ascontiguousarray(parts.fit.images[: COMPARED if manifest.quantised else _COMPARED])
    ours, theirs = torch_outputs(graph, images), engine.measure(images).outputs
    if manifest.quantised:
        whose = f"{run.path} and the bundle {manifest.name}"
        compare_quantised(ours, theirs).check(whose, manifest.quantised.precision)
        return graph.to(device)
    found = compare_outputs(ours, theirs)
    worst = max(found.logits, found.embedding, found.scores)
    if worst > TOLERANCE:
        raise SetupError(
            f"{run.path}: expected the detectors of the bundle {manifest.name} when they are fitted "
            f"again, got scores that differ by {worst:.3g}; evaluate with the data that it was exported from, or "
            "attack the classifier alone with --non-adaptive"
        )
    return graph.to(device)
