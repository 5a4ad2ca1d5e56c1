"""Benign streams: what each kind makes, and how they are mixed into hours."""

from collections import defaultdict

import numpy as np
import pytest

from service.detection.types import Bytes8
from training.history.kinds import KINDS, TRACKS
from training.history.traffic import HOURS_APART_S, Stream, traffic

POOL = 60


def pool(channels: int, frames: int = 1) -> list[Bytes8]:
    """Things of so many images, which are told apart by the level that they are around."""
    draws = np.random.default_rng(0)
    return [(3 * number + draws.integers(0, 60, (frames, 12, 10, channels))).astype(np.uint8) for number in range(POOL)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_kind_makes_as_many_images_as_asked(name: str, channels: int) -> None:
    kind = KINDS[name]
    things = pool(channels)[: kind.things(20)]
    images = kind.make(things, 20, np.random.default_rng(1))
    assert images.dtype == np.uint8
    assert images.shape == (1 if name == TRACKS else 20, 12, 10, channels)
    assert np.array_equal(images, kind.make(things, 20, np.random.default_rng(1)))


def test_kinds_are_of_one_thing_but_not_of_one_image() -> None:
    (thing,) = pool(3)[30:31]
    for name in (
        "jpeg_ladder",
        "crops",
        "shifts",
        "turns",
        "brightness",
        "sizes",
        "noise",
        "augmentations",
        "approach",
    ):
        images = KINDS[name].make([thing], 20, np.random.default_rng(2)).astype(int)
        assert len({image.tobytes() for image in images}) > 5, name
        assert abs(images - thing.astype(int)).mean() < 45, f"{name}: no longer the same thing"


def test_a_track_comes_in_order() -> None:
    track = pool(1, frames=9)[0]
    assert np.array_equal(KINDS[TRACKS].make([track], 30, np.random.default_rng(0)), track)


def hours(streams: list[Stream]) -> dict[int, list[Stream]]:
    found: defaultdict[int, list[Stream]] = defaultdict(list)
    for stream in streams:
        found[int(stream.times[0] // HOURS_APART_S)].append(stream)
    return found


def test_a_thing_is_in_one_stream_of_an_hour_at_most_and_hours_lie_apart() -> None:
    things = pool(1)
    of = {thing.tobytes(): number for number, thing in enumerate(things)}
    made = list(traffic(things, ["random", "retries"] * 6, seed=3))
    by_hour = hours(made)
    assert len(by_hour) > 1, "the pool is too small for one hour"
    for streams in by_hour.values():
        used = [{of[image.tobytes()] for image in stream.images} for stream in streams]
        assert sum(map(len, used)) == len(set.union(*used))
    ends = {hour: max(stream.times[-1] for stream in streams) for hour, streams in by_hour.items()}
    starts = {hour: min(stream.times[0] for stream in streams) for hour, streams in by_hour.items()}
    assert all(starts[hour + 1] - ends[hour] > 2 * 3600 for hour in range(len(by_hour) - 1))


def test_streams_are_the_same_again_and_others_with_another_seed() -> None:
    first, again, other = (list(traffic(pool(1), list(KINDS), seed=seed)) for seed in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.images, two.images)
        assert (one.kind, one.clients, one.times) == (two.kind, two.clients, two.times)
        assert len(one.images) == len(one.clients) == len(one.times)
        assert list(one.times) == sorted(one.times)
    assert any(one.times != two.times for one, two in zip(first, other, strict=True))
    assert [stream.kind for stream in first] == list(KINDS)


def test_only_a_popular_image_has_many_clients() -> None:
    for stream in traffic(pool(1), list(KINDS), seed=7):
        assert (len(set(stream.clients)) > 1) == (stream.kind == "popular")


def test_tracks_come_from_their_own_things() -> None:
    tracks = pool(1, frames=9)
    (stream,) = traffic(pool(1), [TRACKS], seed=0, tracks=tracks)
    assert any(np.array_equal(stream.images, track) for track in tracks)
