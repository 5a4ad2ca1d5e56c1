"""Kinds of benign streams: what people and programs send that have no attack in mind, each from one or a few things.

A new one: a function here and a line in KINDS. All but random traffic are like an attack in one way: their queries are
near each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from service.detection.types import Bytes8
from training.changes import Change, by_image, cropped, gaussian, jpeg, moved, scaled, shrunk, turned
from training.history.pools import Things

__all__ = ["KINDS", "OWN", "RANDOM", "TRACKS", "Kind"]

RANDOM, TRACKS, OWN = "random", "tracks", "own"
"""Kinds that are handled apart; those of the last are no made ones, but an operator's."""
Draws = np.random.Generator
Make = Callable[[Things, int, Draws], Bytes8]
"""Things, how many images, draws: the images of a stream in their order."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of them."""

    title: str
    make: Make
    pace_s: tuple[float, float]
    """Seconds between two queries, from and to; each stream has a pace of its own."""
    images_a_thing: int = 0
    """One thing for so many images; 0: one for the whole stream."""
    has_many_clients: bool = False

    def things(self, count: int) -> int:
        """How many a stream of so many images takes."""
        return -(-count // self.images_a_thing) if self.images_a_thing else 1


def _one(thing: Bytes8, draws: Draws) -> Bytes8:
    """(1, H, W, C): any image of it."""
    place = int(draws.integers(len(thing)))
    return thing[place : place + 1]


def _changing(change: Callable[[Draws], Change]) -> Make:
    """One image, each time changed anew."""

    def make(things: Things, count: int, draws: Draws) -> Bytes8:
        image = _one(things[0], draws)
        return np.concatenate([change(draws)(image, draws) for _ in range(count)])

    return make


def _jpeg(draws: Draws) -> Change:
    return by_image(jpeg(int(draws.integers(30, 96))))


def _crop(draws: Draws) -> Change:
    return by_image(cropped(*draws.uniform(0, 0.15, 4).tolist()))


def _turn(draws: Draws) -> Change:
    return by_image(turned(draws.uniform(-10, 10)))


def _light(draws: Draws) -> Change:
    return scaled(draws.uniform(0.7, 1.3), around=float(draws.choice([0.0, 0.5])))


def _size(draws: Draws) -> Change:
    return by_image(shrunk(draws.uniform(0.4, 0.95)))


def _camera(draws: Draws) -> Change:
    return gaussian(draws.uniform(1, 3) / 255)


def _move(draws: Draws) -> Change:
    def move(images: Bytes8, _: Draws) -> Bytes8:
        farthest = [max(1, round(0.1 * side)) for side in images.shape[1:3]]
        down, across = (int(draws.integers(-far, far + 1)) for far in farthest)
        return moved(down, across)(images, draws)

    return move


_ALL = (_jpeg, _crop, _turn, _light, _size, _camera, _move)


def _several(draws: Draws) -> Change:
    """One to three of the others, one after the other."""
    chosen = [_ALL[place](draws) for place in draws.permutation(len(_ALL))[: draws.integers(1, 4)]]

    def change(images: Bytes8, again: Draws) -> Bytes8:
        for one in chosen:
            images = one(images, again)
        return images

    return change


def _random(things: Things, count: int, draws: Draws) -> Bytes8:
    return np.concatenate([_one(thing, draws) for thing in things[:count]])


def _retries(things: Things, count: int, draws: Draws) -> Bytes8:
    images = np.concatenate([_one(thing, draws) for thing in things])
    return images[np.sort(draws.integers(0, len(images), count))]


def _ladder(things: Things, count: int, draws: Draws) -> Bytes8:
    image = _one(things[0], draws)
    qualities = np.linspace(95, 30, count).round().astype(int).tolist()
    return np.concatenate([by_image(jpeg(quality))(image, draws) for quality in qualities])


def _noise(things: Things, count: int, draws: Draws) -> Bytes8:
    """A camera of one quality before a still scene."""
    return gaussian(draws.uniform(1, 4) / 255)(np.repeat(_one(things[0], draws), count, axis=0), draws)


def _burst(draws: Draws) -> Change:
    shake = moved(*draws.integers(-1, 2, 2).tolist()) if draws.random() < 0.2 else moved(0, 0)
    light = scaled(draws.uniform(0.99, 1.01), around=0.0)
    return lambda images, again: gaussian(0.7 / 255)(light(shake(images, again), again), again)


def _approach(things: Things, count: int, draws: Draws) -> Bytes8:
    """A camera that comes nearer, in slowly changing light."""
    image, sides, drift = _one(things[0], draws), draws.uniform(0, 0.15, 4), draws.uniform(-0.2, 0.2)
    frames = []
    for way in np.linspace(0, 1, count).tolist():
        nearer = by_image(cropped(*(way * sides).tolist()))(image, draws)
        frames.append(gaussian(1 / 255)(scaled(1 + drift * way, around=0.0)(nearer, draws), draws))
    return np.concatenate(frames)


def _shared(draws: Draws) -> Change:
    """What sites make of a picture that people pass on: mostly nothing."""
    return (moved(0, 0), moved(0, 0), _jpeg(draws), _size(draws), _crop(draws))[int(draws.integers(5))]


def _flat(things: Things, count: int, draws: Draws) -> Bytes8:
    """Blank and grey pictures, with and without a sensor's noise, and gradients."""
    _, height, width, channels = things[0].shape
    made = []
    for _ in range(count):
        colour = draws.choice([0, 128, 255, int(draws.integers(256))]) * np.ones(channels)
        slope = draws.choice([0.0, 0.0, draws.uniform(-64, 64)]) * np.linspace(-0.5, 0.5, width)[None, :, None]
        noise = draws.normal(0, draws.choice([0.0, 1.0]), (height, width, channels))
        made.append(np.rint(colour + slope + noise).clip(0, 255).astype(np.uint8))
    return np.stack(made)


def _mixed(things: Things, count: int, draws: Draws) -> Bytes8:
    """A program that sends this and that, and one image in many versions between."""
    images, made = [_one(thing, draws) for thing in things], list[Bytes8]()
    while len(made) < count:
        other = int(draws.integers(len(images)))
        way = draws.random()
        made.append(_several(draws)(images[0], draws) if way < 0.5 else images[other])
    return np.concatenate(made)


def _tracks(things: Things, count: int, draws: Draws) -> Bytes8:
    return things[0]


_SLOW, _FAST = (2.0, 20.0), (0.05, 1.0)
KINDS: Mapping[str, Kind] = {
    RANDOM: Kind(title="random traffic", make=_random, pace_s=_SLOW, images_a_thing=1),
    "retries": Kind(title="the same images again", make=_retries, pace_s=_SLOW, images_a_thing=8),
    "jpeg_ladder": Kind(title="one image at falling JPEG qualities", make=_ladder, pace_s=_FAST),
    "crops": Kind(title="one image, cropped", make=_changing(_crop), pace_s=_FAST),
    "shifts": Kind(title="one image, moved", make=_changing(_move), pace_s=_FAST),
    "turns": Kind(title="one image, turned a little", make=_changing(_turn), pace_s=_FAST),
    "brightness": Kind(title="one image in other light", make=_changing(_light), pace_s=_FAST),
    "sizes": Kind(title="one image through thumbnails", make=_changing(_size), pace_s=_FAST),
    "noise": Kind(title="one image with a camera's noise", make=_noise, pace_s=_FAST),
    "augmentations": Kind(title="one image, augmented", make=_changing(_several), pace_s=_FAST),
    "burst": Kind(title="a burst of nearly equal frames", make=_changing(_burst), pace_s=(0.03, 0.2)),
    "approach": Kind(title="a camera coming nearer", make=_approach, pace_s=_FAST),
    "popular": Kind(title="one image from many clients", make=_changing(_shared), pace_s=_SLOW, has_many_clients=True),
    "flat": Kind(title="blank and grey images", make=_flat, pace_s=_FAST),
    "mixed": Kind(title="one client's mixture", make=_mixed, pace_s=_FAST, images_a_thing=6),
    TRACKS: Kind(title="real frames of one object", make=_tracks, pace_s=(0.03, 0.5)),
}
"""By the name that figures have."""
