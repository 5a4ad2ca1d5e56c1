"""A small world with known answers: pictures, a classifier of them, benign streams and two attacks."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from service.history.types import Query

SIDE = 24
DIMENSIONS = 24
CLASSES = 6
POOL = 4
SCALE = 6.0

Image = np.ndarray
Ask = Callable[[Image], tuple[int, float]]


@cache
def signs() -> np.ndarray:
    """(CLASSES, SIDE, SIDE, 3): what the pictures of a class have in common."""
    generator = np.random.default_rng(11)
    return np.stack([_canvas(generator, SIDE) for _ in range(CLASSES)])


@cache
def _lines() -> np.ndarray:
    return np.random.default_rng(13).standard_normal((3 * (SIDE // POOL) ** 2, DIMENSIONS))


def _embeddings(images: np.ndarray) -> np.ndarray:
    middle = signs().mean(axis=0)
    pools = (images - middle).reshape(-1, SIDE // POOL, POOL, SIDE // POOL, POOL, 3).mean(axis=(2, 4))
    found = np.tanh(pools.reshape(len(images), -1) @ _lines() / 400)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def answers(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, H, W, 3) images to embeddings, labels, and margins of the two largest probabilities."""
    embedding = _embeddings(images)
    logits = SCALE * embedding @ _embeddings(signs()).T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    top = np.sort(shares / shares.sum(axis=1, keepdims=True), axis=1)
    return embedding.astype(np.float32), logits.argmax(axis=1), top[:, -1] - top[:, -2]


@cache
def _usual_margins() -> np.ndarray:
    return np.sort(answers(pictures(np.random.default_rng(12), 500))[2])


def query(image: Image, client: str, now: float) -> Query:
    """As the service would tell the history; p ranks the margin, as a detector of images between classes does."""
    return stream(image[None], client, start=now)[0]


def stream(images: np.ndarray, client: str, *, start: float, every: float = 1.0) -> list[Query]:
    embeddings, labels, margins = answers(images)
    usual = _usual_margins()
    return [
        Query(
            client=client,
            image=image,
            embedding=embedding,
            label=int(label),
            margin=float(margin),
            p_value=float((1 + np.searchsorted(usual, margin)) / (1 + len(usual))),
            now=start + every * number,
        )
        for number, (image, embedding, label, margin) in enumerate(
            zip(images, embeddings, labels, margins, strict=True)
        )
    ]


def _canvas(generator: np.random.Generator, side: int) -> np.ndarray:
    """Smooth colours with some edges and fine texture, (side, side, 3) from 0 to 255."""
    coarse = generator.uniform(0, 255, (side // 6 + 3, side // 6 + 3, 3))
    places = np.linspace(0, len(coarse) - 1.001, side)
    low, part = places.astype(int), (places % 1)[:, None]
    rows = coarse[low] * (1 - part[..., None]) + coarse[low + 1] * part[..., None]
    smooth = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255)


def pictures(generator: np.random.Generator, count: int) -> np.ndarray:
    """Unrelated images, each of some class."""
    made = [_seen(sign, _canvas(generator, SIDE)) for sign in signs()[generator.integers(0, CLASSES, count)]]
    return np.stack(made).astype(np.uint8)


def frames(generator: np.random.Generator, count: int, *, speed: float = 0.5) -> np.ndarray:
    """A camera that follows a sign before a gliding scene, with the noise of its sensor; at speed 0 it stands still."""
    sign = signs()[generator.integers(0, CLASSES)]
    scene, light = _canvas(generator, SIDE + int(speed * count) + 2), generator.uniform(-0.003, 0.003)
    made = []
    for number in range(count):
        place, part = divmod(speed * number, 1)
        low, high = (scene[row : row + SIDE, row : row + SIDE] for row in (int(place), int(place) + 1))
        seen = _seen(sign, low * (1 - part) + high * part) * (1 + light * number)
        made.append(_rounded(seen + generator.normal(0, 2, seen.shape)))
    return np.stack(made)


def _seen(sign: np.ndarray, scene: np.ndarray) -> np.ndarray:
    return 0.6 * sign + 0.4 * scene


class Asked(Exception):
    """The attack has had all its questions."""


def asked(attack: Callable[[Ask, np.random.Generator, Image, Image], None], budget: int, seed: int) -> list[Image]:
    """The first images that an attack asks about."""
    generator = np.random.default_rng(seed)
    image = pictures(generator, 1)[0]
    label = answers(image[None])[1][0]
    other = next(one for one in _endless(generator) if answers(one[None])[1][0] != label)
    images: list[Image] = []

    def ask(one: Image) -> tuple[int, float]:
        if len(images) == budget:
            raise Asked
        images.append(one)
        _, labels, margins = answers(one[None])
        return int(labels[0]), float(margins[0])

    try:
        attack(ask, generator, image, other)
    except Asked:
        return images
    raise AssertionError("the attack ended early")


def _endless(generator: np.random.Generator) -> Iterator[Image]:
    while True:
        yield pictures(generator, 1)[0]


def square(ask: Ask, generator: np.random.Generator, image: Image, other: Image) -> None:
    """Random search over squares at the corners of the Linf ball (Andriushchenko et al. 2020), on the margin."""
    eps = 8
    stripes = generator.choice([-eps, eps], (1, SIDE, 3))
    best = _rounded(image + stripes * np.ones((SIDE, 1, 1)))
    label, least = ask(best)
    while True:
        side = 7
        row, column = generator.integers(0, SIDE - side, 2)
        tried = best.astype(float)
        tried[row : row + side, column : column + side] = image[row : row + side, column : column + side]
        tried[row : row + side, column : column + side] += generator.choice([-eps, eps], 3)
        found, margin = ask(_rounded(tried))
        if found == label and margin < least:
            best, least = _rounded(tried), margin


def noise(ask: Ask, generator: np.random.Generator, image: Image, other: Image) -> None:
    """A gradient of the margin from noise around the image, in pairs, and a step (Ilyas et al. 2018, NES)."""
    point = image.astype(float)
    while True:
        changes = generator.standard_normal((10, *image.shape)) * 2.0
        slopes = [ask(_rounded(point + change))[1] - ask(_rounded(point - change))[1] for change in changes]
        point = np.clip(point - 2.0 * np.sign(np.tensordot(slopes, changes, axes=1)), 0, 255)


def waves(ask: Ask, generator: np.random.Generator, image: Image, other: Image) -> None:
    """One wave over the whole image after the other, kept when it lowers the margin (Guo et al. 2019, SimBA-DCT)."""
    best, (label, least) = image.astype(float), ask(image)
    places = np.pi * (np.arange(SIDE) + 0.5) / SIDE
    while True:
        down, across = generator.integers(0, 6, 2)
        wave = np.cos(down * places)[:, None, None] * np.cos(across * places)[None, :, None]
        wave = 8.0 * wave * generator.choice([0.0, 1.0], 3)
        for tried in (best + wave, best - wave):
            found, margin = ask(_rounded(tried))
            if found == label and margin < least:
                best, least = tried, margin
                break


def far(ask: Ask, generator: np.random.Generator, image: Image, other: Image) -> None:
    """The boundary attack with probes that reach eight times as far."""
    boundary(ask, generator, image, other, reach=24.0)


def boundary(ask: Ask, generator: np.random.Generator, image: Image, other: Image, *, reach: float = 3.0) -> None:
    """Bisection to the boundary, a gradient from noise there, a step, and so on (Chen et al. 2020, HopSkipJump)."""
    label, _ = ask(image)
    point, start = other.astype(float), image.astype(float)
    while True:
        low, high = 0.0, 1.0
        for _ in range(6):
            middle = (low + high) / 2
            low, high = (middle, high) if ask(_rounded(start + middle * (point - start)))[0] == label else (low, middle)
        point = start + high * (point - start)
        noise = generator.standard_normal((20, *image.shape)) * reach
        signs = np.array([1.0 if ask(_rounded(point + one))[0] != label else -1.0 for one in noise])
        gradient = np.tensordot(signs - signs.mean(), noise, axes=1)
        step = np.linalg.norm(point - start) / 3 / max(1e-9, np.linalg.norm(gradient))
        while ask(_rounded(point + step * gradient))[0] == label and step > 1e-6:
            step /= 2
        point = np.clip(point + step * gradient, 0, 255)


def _rounded(image: np.ndarray) -> Image:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
