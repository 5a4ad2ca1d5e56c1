"""An image's answer is the same bits alone and in any batch, at any place, for every bundle that ships."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.detection.bundle import SHIPPED, load_bundle
from service.detection.graph import Graph
from service.detection.types import Bytes8, Outputs

BUNDLES = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
LARGEST = 64


class Whole:
    """A bundle's graph, images, and the answers of each image alone."""

    def __init__(self, name: str, threads: int) -> None:
        bundle = load_bundle(SHIPPED / name)
        shape = bundle.manifest.input
        self.graph = Graph(bundle.graph, bundle.graph_shape, threads=threads)
        size = (LARGEST, shape.height, shape.width, shape.channels)
        self.images: Bytes8 = np.random.default_rng(5).integers(0, 256, size, dtype=np.uint8)
        self.alone = [self.graph.run(image[None]) for image in self.images]


@pytest.fixture(scope="module", params=[(name, threads) for name in BUNDLES for threads in (1, 2)], ids=str)
def whole(request: pytest.FixtureRequest) -> Whole:
    return Whole(*request.param)


def same(found: Outputs, row: int, alone: Outputs) -> bool:
    fields = ("logits", "embedding", "scores")
    return all(np.array_equal(getattr(found, field)[row], getattr(alone, field)[0]) for field in fields)


@pytest.mark.parametrize("batch", [2, 3, 5, 8, 16, 31, 32, 33, 63, 64])
def test_each_place_of_a_batch_gives_the_answer_of_the_image_alone(whole: Whole, batch: int) -> None:
    found = whole.graph.run(whole.images[:batch])
    assert [place for place in range(batch) if not same(found, place, whole.alone[place])] == []


@settings(max_examples=8, deadline=None)
@given(picked=st.lists(st.integers(0, LARGEST - 1), min_size=1, max_size=LARGEST))
def test_whoever_its_neighbours_are(whole: Whole, picked: list[int]) -> None:
    found = whole.graph.run(whole.images[picked])
    assert [place for place, image in enumerate(picked) if not same(found, place, whole.alone[image])] == []
