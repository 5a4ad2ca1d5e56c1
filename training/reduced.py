"""A bundle's graph in less precision, compared with the float network, and what its manifest says of that."""

import hashlib

from service.detection.graph import Graph, GraphShape
from service.detection.manifest import Quantised
from service.detection.types import Bytes8
from training.checkpoint import Run
from training.graph import BundleGraph
from training.halving import half_graph
from training.parity import QuantisedParity, check_quantised
from training.quantising import quantised_graph

__all__ = ["in_float16", "in_int8", "reduction_words"]


def in_int8(
    run: Run, graph: BundleGraph, model: bytes, shape: GraphShape, images: Bytes8, *, reduce_range: bool
) -> tuple[bytes, Quantised]:
    """The graph in 8 bits.

    Args:
        run: of which all is made.
        graph: the float network.
        model: the same as ONNX.
        shape: of both.
        images: (N, H, W, C), clean.
        reduce_range: see training.quantising.

    Raises:
        SetupError: there is nothing to quantise, or the answers move too far.
    """
    made = quantised_graph(model, images, reduce_range=reduce_range)
    sessions = [Graph(made.model, shape)]
    found = check_quantised(graph, sessions, images, whose="--int8", precision="int8")
    return made.model, _told(
        "int8",
        run,
        model,
        found,
        convolutions=made.convolutions,
        reduced=made.quantised_convolutions,
        images=made.images,
        reduce_range=reduce_range,
    )


def in_float16(
    run: Run, graph: BundleGraph, model: bytes, shape: GraphShape, images: Bytes8
) -> tuple[bytes, Quantised]:
    """The graph with its trunk in float16, compared as the processor runs it and as a GPU does; arguments as above.

    Raises:
        SetupError: there is no trunk, its values are too large, or the answers move too far.
    """
    made = half_graph(model, images)
    sessions = [Graph(one, shape) for one in (made.model, made.rounded)]
    found = check_quantised(graph, sessions, images, whose="--fp16", precision="float16")
    return made.model, _told(
        "float16", run, model, found, convolutions=made.convolutions, reduced=made.half_convolutions, images=made.images
    )


def _told(
    precision: str,
    run: Run,
    model: bytes,
    found: QuantisedParity,
    *,
    convolutions: int,
    reduced: int,
    images: int,
    reduce_range: bool = False,
) -> Quantised:
    return Quantised(
        precision=precision,
        run=run.path.resolve().name,
        float_graph=hashlib.sha256(model).hexdigest(),
        convolutions=convolutions,
        quantised_convolutions=reduced,
        calibration_images=images,
        reduced_range=reduce_range,
        compared_images=found.images,
        label_agreement=found.label_agreement,
        score_shifts=dict(zip(run.recipe.export.detectors, found.score_shifts, strict=True)),
    )


def reduction_words(quantised: Quantised | None) -> str:
    """What a line about a bundle adds of its precision; nothing of one in float32."""
    if quantised is None:
        return ""
    return (
        f", {quantised.precision} in {quantised.quantised_convolutions} of {quantised.convolutions} convolutions; of "
        f"{quantised.compared_images} clean images it labels {quantised.label_agreement:.1%} as the float network does"
    )
