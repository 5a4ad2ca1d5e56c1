"""All detectors in one exported graph, and the gradients that attacks on them need."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from service.detection.graph import Graph, GraphShape
from tests.training.detectors.made_up import CLASSES, DIMENSIONS, SIDE, classifier, views
from training.attacks.rounding import from_8_bit, nearest_8_bit
from training.detectors import DETECTORS
from training.graph import BundleGraph, clean_views, onnx_bytes, torch_outputs

CHANNELS = 3


@pytest.fixture(scope="module")
def graph() -> BundleGraph:
    made = views(channels=CHANNELS)
    clean = clean_views(classifier(channels=CHANNELS), images(), made.labels.numpy(), made.lessons)
    return BundleGraph(clean.classifier, [kind.fit(clean) for kind in DETECTORS.values()])


@pytest.fixture(scope="module")
def exported(graph: BundleGraph) -> bytes:
    return onnx_bytes(graph, images()[:4])


def images(seed: int = 0) -> np.ndarray:
    return nearest_8_bit(views(seed=seed, channels=CHANNELS).images).contiguous().numpy()


@pytest.mark.parametrize("batch", [1, 7])
def test_onnxruntime_agrees_with_torch(graph: BundleGraph, exported: bytes, batch: int) -> None:
    shape = GraphShape(
        height=SIDE,
        width=SIDE,
        channels=CHANNELS,
        classes=CLASSES,
        embedding=DIMENSIONS,
        detectors=len(DETECTORS),
    )
    fresh = images(seed=1)[:batch]
    ours, theirs = torch_outputs(graph, fresh).scores, Graph(exported, shape, threads=1).run(fresh).scores
    # float32 sums in another order: about 1e-6 of each term, and a distance sums hundreds of them
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)


def test_the_classifier_is_stored_once(graph: BundleGraph, exported: bytes) -> None:
    stored = Counter(tuple(sorted(one.dims)) for one in onnx.load_from_string(exported).graph.initializer)
    # The head's shape is that of the class means too.
    weights = [one for name, one in graph.model.named_parameters() if one.ndim > 1 and not name.startswith("head")]
    assert len(weights) == 5
    assert [stored[tuple(sorted(one.shape))] for one in weights] == [1] * 5
    assert not any("classifier" in name for name in graph.state_dict())
    assert list(graph.detectors.parameters()) == []


def test_nothing_but_standard_operators_is_used(exported: bytes) -> None:
    assert {node.domain for node in onnx.load_from_string(exported).graph.node} == {""}


@pytest.mark.parametrize("position", range(len(DETECTORS)), ids=list(DETECTORS))
def test_each_score_has_a_gradient_to_the_image(graph: BundleGraph, position: int) -> None:
    floats = from_8_bit(images(seed=1)[:20]).requires_grad_()
    _, _, scores = graph.score(floats)
    (gradient,) = torch.autograd.grad(scores[:, position].sum(), floats)
    assert gradient.isfinite().all()
    assert (gradient != 0).flatten(1).any(dim=1).all()
