"""Images of any size through the door: the answer is that of the resized image."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from service.client import Client
from service.detection.engine import Engine
from service.detection.images import MAX_STRETCH, ImageLimits
from service.errors import AdvsentryError, ErrorReason, InvalidRequest
from service.metrics import Metrics
from service.rpc.convert import Picture
from service.rpc.pipeline import Pipeline, Policy, Queue
from tests import tiny
from tests.service.bad_images import bomb, encoded
from tests.service.running import running


@pytest.fixture(scope="module")
def client(resizing: Engine) -> Iterator[Client]:
    with running(resizing) as server, Client(server.ports.grpc) as made:
        yield made


def large(size: tuple[int, int]) -> np.ndarray:
    """A clean image, blown up, with noise."""
    height, width = size
    image = np.asarray(Image.fromarray(tiny.images(1)[0, :, :, 0]).resize((width, height), Image.Resampling.NEAREST))
    noise = np.random.default_rng(0).integers(0, 40, size)
    return np.asarray(image + noise, np.uint8)[:, :, None]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (20, 30), (300, 400)], ids=str)
def test_the_answer_is_that_of_the_resized_image(client: Client, resizing: Engine, size: tuple[int, int]) -> None:
    image = large(size)
    assert resizing.resizer is not None
    expected = client.detect(resizing.resizer.run(image))
    file = encoded(Image.fromarray(image[:, :, 0]), "PNG")
    assert client.detect(image) == expected
    assert client.detect(file) == expected
    assert client.detect_batch([image, file]) == [expected, expected]
    assert list(client.detect_stream([file, image, file])) == [expected] * 3


def test_the_model_info_says_whether_other_sizes_are_taken(client: Client, engine: Engine) -> None:
    assert client.info().takes_other_sizes
    with running(engine) as server, Client(server.ports.grpc) as other:
        assert not other.info().takes_other_sizes


def test_a_bomb_is_refused_and_the_next_one_served(client: Client) -> None:
    found = list(client.detect_stream([bomb(9000), large((30, 30))]))
    assert isinstance(found[0], InvalidRequest)
    assert found[0].reason is ErrorReason.TOO_MANY_PIXELS
    assert not isinstance(found[1], Exception)


@pytest.mark.parametrize("size", [(2, 201), (2_000_000, 1), (1, 20_000_000)], ids=str)
def test_absurd_proportions_are_refused_before_decoding(client: Client, size: tuple[int, int]) -> None:
    file = encoded(Image.new("L", size[::-1]), "PNG")
    pixels = np.zeros((*size, 1), np.uint8)
    found = list(client.detect_stream([file, large((30, 30)), large((2, 200))]))
    assert isinstance(found[0], InvalidRequest)
    assert found[0].reason is ErrorReason.WRONG_SIZE
    assert f"within {MAX_STRETCH} times the model's 8 x 8, got {size[0]} x {size[1]}" in str(found[0])
    assert not any(isinstance(one, Exception) for one in found[1:])
    batch = client.detect_batch([large((30, 30)), file, *([pixels] if pixels.size < 2**20 else [])])
    assert [isinstance(one, InvalidRequest) for one in batch] == [False] + [True] * (len(batch) - 1)


def test_what_nobody_foresaw_of_an_image_fails_that_one_alone(
    resizing: Engine, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resizing.resizer is not None
    run = resizing.resizer.run

    def fails(image: np.ndarray) -> np.ndarray:
        if image.shape[0] == 31:
            raise RuntimeError("narrowing")
        return run(image)

    monkeypatch.setattr(resizing.resizer, "run", fails)
    good, bad = large((30, 30)), large((31, 31))
    expected = client.detect(good)
    for found in (client.detect_batch([good, bad, good]), list(client.detect_stream([good, bad, good]))):
        assert [found[0], found[2]] == [expected, expected]
        assert "the server's log says why" in str(found[1])
    with pytest.raises(AdvsentryError, match="could not be decoded; the server's log says why"):
        client.detect(bad)


def picture(image: np.ndarray) -> Picture:
    height, width, channels = image.shape
    return Picture(data=image.tobytes(), mime_type="", size=(height, width, channels))


def pipeline(engine: Engine, max_pixels: int = 25_000_000) -> Pipeline:
    policy = Policy(images=ImageLimits(max_pixels=max_pixels))
    queue = cast(Queue, None)  # nothing gets that far
    return Pipeline(engine, queue, ThreadPoolExecutor(2), policy=policy, metrics=Metrics(CollectorRegistry()))


def test_what_takes_long_leaves_the_loop(resizing: Engine, engine: Engine) -> None:
    few_bytes = Picture(data=bomb(1000), mime_type="", size=None)
    assert len(few_bytes.data) < 1000
    made = pipeline(resizing)
    assert not made.decoder.decodes_inline(few_bytes)
    assert not made.decoder.decodes_inline(picture(large((300, 400))))
    assert made.decoder.decodes_inline(picture(large((20, 30))))
    assert made.decoder.decodes_inline(Picture(data=b"no image", mime_type="", size=None))
    assert pipeline(engine).decoder.decodes_inline(few_bytes)  # refused by its header


def test_images_that_fill_the_budget_of_pixels_are_decoded_one_after_another(resizing: Engine) -> None:
    image = large((300, 400))
    made = pipeline(resizing, max_pixels=300 * 400)

    async def scene() -> list[np.ndarray]:
        return list(await asyncio.gather(*(made.decoder.decode(picture(image)) for _ in range(8))))

    assert resizing.resizer is not None
    expected = resizing.resizer.run(image)
    assert all(np.array_equal(found, expected) for found in asyncio.run(scene()))


def test_one_image_beyond_the_budget_of_pixels_is_refused(resizing: Engine) -> None:
    made = pipeline(resizing, max_pixels=1000)
    with pytest.raises(InvalidRequest, match="at most 1000 pixels, got 300 x 400 = 120000"):
        asyncio.run(made.decoder.decode(picture(large((300, 400)))))
