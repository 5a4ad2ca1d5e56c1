"""The toy proof: searches are noticed within 50 queries, benign traffic is not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.calibrate import calibrate
from service.history.calibration import Calibration
from service.history.components import Components
from service.history.evidence import STRAY, Join
from service.history.history import History
from service.history.types import NOBODY, Observation, Query
from tests.service.history import toy
from tests.service.history.conftest import ALPHA, benign_streams

LEVEL = 0.05
BUDGET = 50
LONGEST = 40
"""Of the calibration's streams."""
SEEDS = range(100, 105)


def new(calibration: Calibration, **bounds: float) -> History:
    return History(
        calibration, dimensions=toy.DIMENSIONS, bounds=Bounds(**{"entries": 5000, **bounds}), secret=b"s" * 32
    )


def traffic(seed: int, count: int) -> list[Query]:
    images = toy.pictures(np.random.default_rng(seed), count)
    queries = toy.stream(images, "", start=0.0)
    return [replace(query, client=f"customer {number % 5}") for number, query in enumerate(queries)]


def first_flag(history: History, images: list[np.ndarray], clients: Callable[[int], str]) -> int:
    """Of an attack's queries among as many of random traffic: the first that is flagged."""
    for number, (image, other) in enumerate(zip(images, traffic(55, len(images)), strict=True), start=1):
        history.observe(other)
        if history.observe(toy.query(image, clients(number), float(number))).p_value <= LEVEL:
            return number
    return len(images) + 1


@pytest.mark.parametrize("attack", [toy.square, toy.boundary, toy.far])
@pytest.mark.parametrize("clients", [1, 10], ids=["one account", "ten accounts"])
def test_a_search_is_noticed_within_fifty_queries(
    calibration: Calibration, attack: Callable[..., None], clients: int
) -> None:
    firsts = [
        first_flag(new(calibration), toy.asked(attack, BUDGET, seed), lambda number: f"account {number % clients}")
        for seed in SEEDS
    ]
    assert np.median(firsts) <= BUDGET
    assert min(firsts) > 2, "a near query or two are no search"


@pytest.mark.parametrize("attack", [toy.noise, toy.waves])
def test_a_search_by_noise_over_the_whole_image_is_noticed_by_its_length(
    calibration: Calibration, attack: Callable[..., None]
) -> None:
    budget = LONGEST + 20
    firsts = [first_flag(new(calibration), toy.asked(attack, budget, seed), lambda _: "one") for seed in SEEDS]
    assert max(firsts) <= budget


def test_of_a_client_with_much_traffic_a_component_is_as_large_as_its_share_of_it(calibration: Calibration) -> None:
    """By chance some of very many unrelated images hang together."""
    sizes = []

    class Listening(History):
        def _added(self, components: Components, root: int, join: Join, crowd: float) -> float:
            sizes.append((components is self.own, join.size))
            return super()._added(components, root, join, crowd)

    history = Listening(calibration, dimensions=toy.DIMENSIONS)
    history.observe_all([replace(query, client="one") for query in traffic(7, 80)])
    sizes.clear()
    history.observe_all(toy.stream(toy.frames(np.random.default_rng(1), 20, speed=0.0), "one", start=100.0))
    own = [size for is_own, size in sizes if is_own]
    assert own[-1] == 19 - 99 // STRAY
    assert not any(size for is_own, size in sizes if not is_own)


def test_noise_on_a_background_makes_no_component_of_different_things(calibration: Calibration) -> None:
    """Nor do labels flip between the clients whose images share it."""
    generator, history = np.random.default_rng(8), new(calibration)
    background = generator.integers(0, 256, (toy.SIDE, toy.SIDE, 3))
    seen = []
    for number in range(60):
        image = toy.pictures(generator, 1)[0]
        image[: toy.SIDE // 2] = background[: toy.SIDE // 2]
        seen.append(history.observe(toy.query(image, f"client {number}", float(number))))
    assert flagged(seen) == 0.0


def test_a_search_without_an_identity_is_noticed_among_everyones_queries(calibration: Calibration) -> None:
    history = new(calibration)
    images = toy.asked(toy.square, BUDGET, 100)
    seen = [history.observe(toy.query(image, NOBODY, float(number))) for number, image in enumerate(images)]
    assert all(one.own is None for one in seen)
    assert min(one.p_value for one in seen) <= LEVEL


def flagged(seen: list[Observation]) -> float:
    return float(np.mean([one.p_value <= LEVEL for one in seen]))


def test_unrelated_images_are_not_flagged(calibration: Calibration) -> None:
    history = new(calibration)
    assert flagged([history.observe(query) for query in traffic(3, 600)]) == 0.0


def test_videos_are_not_flagged(calibration: Calibration) -> None:
    history, seen = new(calibration), list[Observation]()
    for number in range(20):
        images = toy.frames(np.random.default_rng(200 + number), LONGEST, speed=0.5 * (number % 2))
        seen += [history.observe(query) for query in toy.stream(images, f"camera {number}", start=100.0 * number)]
    assert flagged(seen) <= 2 * LEVEL, "of the calibration's streams half are videos"
    assert max(one.own.size for one in seen if one.own) > 10, "they are components, only harmless ones"


def test_repeated_uploads_count_once_and_are_never_flagged(calibration: Calibration) -> None:
    history = new(calibration)
    image = toy.pictures(np.random.default_rng(4), 1)[0]
    seen = [history.observe(toy.query(image, "a", float(number))) for number in range(100)]
    assert [one.is_repeat for one in seen] == [False] + [True] * 99
    assert seen[-1].repeats == 99
    assert len(history) == 1
    assert flagged(seen) == 0.0


def test_a_repeat_of_a_step_is_known_for_one(calibration: Calibration) -> None:
    history, images = new(calibration), toy.asked(toy.square, 70, 102)
    seen = [history.observe(toy.query(image, f"account {at}", 1.0 * at)) for at, image in enumerate(images)]
    is_step = [any(scope is not None and scope.added > 0 for scope in (one.own, one.everyone)) for one in seen]
    assert 10 < sum(is_step) < len(seen)
    assert seen[-1].everyone is not None
    for settles in (False, True):
        again = [history.observe(toy.query(image, "another", 70.0)) for image in images]
        assert all(one.is_repeat for one in again)
        assert [one.step >= 0 for one in again] == is_step
        assert again[int(np.flatnonzero(is_step)[-1])].step == seen[-1].everyone.number
        if not settles:
            history.store.settle()


def test_components_that_begin_and_become_one_are_told(calibration: Calibration) -> None:
    history = new(calibration)
    known: set[int] = set()
    for seed in SEEDS:
        for at, image in enumerate(toy.asked(toy.square, BUDGET, seed)):
            found = history.observe(toy.query(image, f"account {at}", float(at))).everyone
            if found is None:
                continue
            assert found.is_new == (found.number not in known)
            assert known.issuperset(found.absorbed)
            known = (known | {found.number}) - set(found.absorbed)
    assert known == {history.everyone.root(number) for number in history.everyone.of.tolist() if number >= 0}


def test_repeats_do_not_hide_a_search(calibration: Calibration) -> None:
    history = new(calibration)
    seen = []
    for number, image in enumerate(toy.asked(toy.square, BUDGET, 101)):
        seen += [history.observe(toy.query(image, "a", number + part / 4)) for part in range(3)]
    assert min(one.p_value for one in seen if not one.is_repeat) <= LEVEL


def test_flat_images_are_never_flagged(calibration: Calibration) -> None:
    history = new(calibration)
    seen = []
    for number in range(100):
        image = np.full((toy.SIDE, toy.SIDE, 3), 40 + number, np.uint8)
        seen.append(history.observe(toy.query(image, "a", float(number))))
    assert all(one.is_low_entropy for one in seen)
    assert flagged(seen) == 0.0


def test_a_batch_is_seen_as_its_queries_one_by_one(calibration: Calibration) -> None:
    queries = toy.stream(np.stack(toy.asked(toy.square, 30, 102)), "a", start=0.0)
    one_by_one, together = new(calibration), new(calibration)
    expected = [one_by_one.observe(query) for query in queries]
    assert together.observe_all(queries) == expected


def test_histories_of_one_secret_that_apply_the_same_entries_are_equal(calibration: Calibration) -> None:
    writer, reader = new(calibration), new(calibration)
    queries = toy.stream(np.stack(toy.asked(toy.square, 30, 102)), "a", start=0.0)
    assert writer.keyed(queries)[0].client != 0
    assert len(writer) == 0, "making entries changes nothing"
    for query in queries:
        entries = writer.keyed([query])
        assert reader.apply(entries) == writer.apply(entries)


def test_a_flood_does_not_hide_a_search_by_the_same_client(calibration: Calibration) -> None:
    history = new(calibration, entries=1024, client_share=0.25)
    images = toy.asked(toy.square, BUDGET, 103)
    noise = np.random.default_rng(6).integers(0, 256, (20 * BUDGET, toy.SIDE, toy.SIDE, 3), dtype=np.uint8)
    flood = toy.stream(noise, "a", start=0.0, every=0.05)
    least = 1.0
    for number, query in enumerate(toy.stream(np.stack(images), "a", start=0.0)):
        least = min(least, history.observe(query).p_value)
        history.observe_all(flood[20 * number : 20 * number + 20])
    assert least <= LEVEL


def test_forgiving_drops_the_evidence_and_not_the_queries(calibration: Calibration) -> None:
    history = new(calibration)
    images = toy.asked(toy.square, BUDGET, 104)
    for number, image in enumerate(images[:-1]):
        seen = history.observe(toy.query(image, "a", float(number)))
    kept = len(history)
    assert seen.p_value <= LEVEL
    assert seen.everyone is not None
    assert history.forgive("somebody else") == set()
    assert seen.everyone.number in history.forgive("a")
    after = history.observe(toy.query(images[-1], "a", 60.0))
    assert after.p_value > LEVEL
    assert len(history) == kept + 1
    assert after.own
    assert after.own.size > 10


def test_the_calibrations_own_streams_are_flagged_as_often_as_promised(calibration: Calibration) -> None:
    """On fresh streams of the same kinds; the share scatters, since the queries of a stream go together."""
    calibration.check_level(LEVEL)
    seen = list[Observation]()
    for seed in range(9, 15):
        history = new(calibration)
        for stream in benign_streams(seed, 24):
            seen += history.observe_all(stream)
    assert flagged(seen) <= 2 * LEVEL


def test_a_calibration_of_too_little_is_refused() -> None:
    with pytest.raises(SetupError, match="200 unrelated"):
        calibrate(traffic(1, 10), [traffic(2, 10)], alpha=ALPHA)
