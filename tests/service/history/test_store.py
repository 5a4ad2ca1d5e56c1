from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.entries import ANONYMOUS, Entry, Near, shortened
from service.history.history import History
from service.history.postings import EMPTY
from service.history.projections import Projections
from service.history.recent import RECENT
from service.history.search import compared
from service.history.store import Store
from tests.service.history import toy

DIMENSIONS = 16
LINES = [Projections(DIMENSIONS, 0.05, np.random.default_rng(number)) for number in range(2)]


def entry(seed: int, *, client: int = 1, now: float = 0.0) -> Entry:
    generator = np.random.default_rng(seed)
    embedding = generator.standard_normal(DIMENSIONS).astype(np.float32)
    sketch = np.sort(generator.integers(1, 2**32, 50, dtype=np.uint32))
    short = shortened(embedding / np.linalg.norm(embedding))
    cells, own_cells = (lines.keys(short[None])[0] for lines in LINES)
    return Entry(
        client=client,
        digest=seed + 1 << 32,
        generation=0,
        sketches=(sketch,),
        cells=cells,
        own_cells=own_cells,
        embedding=short,
        label=0,
        margin=0.0,
        marks=0,
        now=now,
    )


def store(**bounds: float) -> Store:
    everyone, own = LINES
    return Store(
        Bounds(**{"entries": 256, "client_share": 1.0, **bounds}),
        DIMENSIONS,
        np.random.default_rng(0),
        lambda rows: (everyone.own_keys(rows), own.own_keys(rows)),
    )


def nothing(slots: np.ndarray) -> np.ndarray:
    return np.ones(len(slots), np.int64)


def keep(kept: Store, one: Entry, worth: Callable[[np.ndarray], np.ndarray] = nothing) -> int:
    """As the history does, one by one."""
    wait(kept, one.now)
    slot, _ = kept.put(one)
    kept.push_out(one.client, worth)
    if len(kept.recent) == RECENT:
        kept.settle()
    return slot


def wait(kept: Store, now: float) -> None:
    if kept.is_later(now):
        kept.settle()
        kept.advance(now)


def nearest(kept: Store, one: Entry) -> tuple[Near, Near]:
    """Of all, settled."""
    kept.settle()
    other = replace(one, digest=one.digest + 1)
    found = compared(kept, [other])[0]
    return found.own, found.everyone


def twin(kept: Store, one: Entry) -> int:
    return compared(kept, [one])[0].twin


def test_a_kept_query_is_the_nearest_to_itself_in_both_views_and_scopes() -> None:
    kept = store()
    slots = [keep(kept, entry(seed, client=1 + seed % 2)) for seed in range(100)]
    for seed in (0, 57):
        own, everyone = nearest(kept, entry(seed, client=1 + seed % 2))
        for near in (own, everyone):
            assert (near.by_pixels, near.matches, near.by_embedding) == (slots[seed], 50, slots[seed])
            assert near.distance < 1e-3
        other, _ = nearest(kept, entry(seed, client=2 - seed % 2))
        assert slots[seed] not in (other.by_pixels, other.by_embedding)
        assert twin(kept, entry(seed)) == slots[seed]
    assert twin(kept, entry(12345)) == -1


def test_nobody_is_no_client() -> None:
    kept = store()
    slot = keep(kept, entry(0, client=ANONYMOUS))
    own, everyone = nearest(kept, entry(0, client=ANONYMOUS))
    assert own.by_pixels == own.by_embedding == -1
    assert everyone.by_pixels == slot


def test_a_window_later_nothing_is_found_and_all_is_cleared() -> None:
    kept = store(window_s=100.0)
    for seed in range(200):
        keep(kept, entry(seed, now=seed / 10))
    assert nearest(kept, entry(7))[1].matches == 50
    wait(kept, 100.0 + 20.0 + 7.0)
    assert nearest(kept, entry(7))[1].matches == 0
    assert twin(kept, entry(7)) == -1
    assert len(kept) == kept.count(1) == 0
    kept.settle()
    assert all((postings.slots() == EMPTY).all() for postings in kept.index.postings)


def test_a_window_is_kept_whole() -> None:
    kept = store(window_s=100.0)
    keep(kept, entry(0, now=0.0))
    keep(kept, entry(1, now=6.0))
    wait(kept, 106.0)
    assert nearest(kept, entry(1))[1].matches == 50


def test_it_is_asked_whether_a_query_lasts_without_setting_the_clock() -> None:
    kept = store(window_s=100.0)
    slots = [keep(kept, entry(seed, now=0.0)) for seed in range(RECENT + 1)]
    for slot in (slots[0], slots[-1]):  # settled, and recent
        assert kept.lasts(slot, 99.0)
        assert not kept.lasts(slot, 120.0)
    assert len(kept) == RECENT + 1


def test_the_clock_never_goes_back() -> None:
    kept = store(window_s=100.0)
    keep(kept, entry(0, now=1000.0))
    keep(kept, entry(1, now=3.0))
    assert nearest(kept, entry(1))[1].matches == 50


def test_a_flood_pushes_out_itself_and_nobody_else() -> None:
    kept = store(entries=512)
    quiet = [entry(seed, client=2) for seed in range(64)]
    for one in quiet:
        keep(kept, one)
    for seed in range(1000, 2200):
        keep(kept, entry(seed, client=3))
    assert len(kept) == 512
    assert kept.count(2) == 64
    assert all(nearest(kept, one)[0].matches > 40 for one in quiet)


def test_many_clients_push_out_those_who_have_most() -> None:
    kept = store(entries=512)
    for seed in range(400):
        keep(kept, entry(seed, client=2))
    for seed in range(1000, 2200):
        keep(kept, entry(seed, client=seed))
    assert kept.count(2) < 100


def test_a_client_has_his_share_and_no_more() -> None:
    kept = store(entries=512, client_share=0.25)
    for seed in range(400):
        keep(kept, entry(seed, client=2))
    assert kept.count(2) == len(kept) == 128


def test_what_is_worth_most_stays() -> None:
    kept = store(entries=512, client_share=0.25)
    trail = {keep(kept, entry(seed, client=2)) for seed in range(40)}

    def worth(slots: np.ndarray) -> np.ndarray:
        return np.where(np.isin(slots, list(trail)), 40, 1)

    for seed in range(1000, 2500):
        keep(kept, entry(seed, client=2), worth)
        assert all(kept.bucket[slot] > 0 or kept.recent.place(slot) >= 0 for slot in trail)


def test_a_flood_does_not_push_out_the_trail_of_its_sender(calibration: Calibration) -> None:
    bounds = Bounds(entries=512, client_share=0.5)
    history = History(calibration, dimensions=toy.DIMENSIONS, bounds=bounds)
    for query in toy.stream(np.stack(toy.asked(toy.square, 60, 100)), "a", start=0.0):
        history.observe(query)
    trail = [slot for slot in range(60 + RECENT) if history.own.of[slot] >= 0]
    assert len(trail) > 40
    flood = toy.stream(toy.pictures(np.random.default_rng(5), 600), "a", start=100.0)
    history.observe_all(flood)
    assert history.store.count(history.number("a")) == 256
    stays = (history.store.bucket[trail] > 0) & (history.store.since[trail] < 100.0)
    assert stays.sum() > 0.9 * len(trail)


def test_another_secret_takes_over_with_an_overlap(calibration: Calibration) -> None:
    bounds = Bounds(entries=2000, window_s=100.0, rotate_s=400.0)
    history = History(calibration, dimensions=toy.DIMENSIONS, bounds=bounds)
    generator = np.random.default_rng(0)
    seen = []
    for second in range(0, 1200, 4):
        image = toy.pictures(generator, 1)[0]
        history.observe(toy.query(image, "a", float(second)))
        edited = image.copy()
        edited[:4, :4] = 0
        seen.append(history.observe(toy.query(edited, "a", second + 1.0)))
        seen.append(history.observe(toy.query(image, "a", second + 2.0)))
    assert all(one.own and one.own.pixel_links for one in seen[0::2])
    assert all(one.is_repeat for one in seen[1::2])
    assert history.generations == (2, 3)


@pytest.mark.parametrize("later", [350.0, 450.0, 750.0, 3950.0])
def test_a_secret_that_was_replaced_unseen_leaves_nothing_behind(calibration: Calibration, later: float) -> None:
    bounds = Bounds(entries=2000, window_s=100.0, rotate_s=400.0)
    history = History(calibration, dimensions=toy.DIMENSIONS, bounds=bounds)
    images = toy.pictures(np.random.default_rng(0), 40)
    for start in (0.0, 350.0, later):  # under one secret; two; then, after a while without any query, others
        for query in toy.stream(images[:20], "a", start=start, every=0.01):
            history.observe(query)
    assert history.generations == bounds.generations(later)
    assert len(history.store.sketches) == len(history.generations)
    edited = images[:20].copy()
    edited[:, :4, :4] = 0
    seen = [history.observe(query) for query in toy.stream(edited, "a", start=later + 1, every=0.01)]
    assert all(one.own and one.own.pixel_links for one in seen)


def test_an_entry_made_before_the_secret_was_replaced_is_still_taken(calibration: Calibration) -> None:
    history = History(calibration, dimensions=toy.DIMENSIONS, bounds=Bounds(window_s=100.0, rotate_s=400.0))
    images = toy.pictures(np.random.default_rng(0), 3)
    history.observe(toy.query(images[0], "a", 399.0))
    late = history.keyed([toy.query(images[1], "a", 399.5)])
    history.observe(toy.query(images[2], "a", 400.5))
    assert history.generations == (1,)
    history.apply(late)
    edited = images[1].copy()
    edited[:4, :4] = 0
    seen = history.observe(toy.query(edited, "a", 401.0))
    assert seen.own
    assert seen.own.pixel_links == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"window_s": 0.0}, "window"),
        ({"client_share": 0.01}, "share"),
        ({"rotate_s": 3600.0}, "two windows"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        Bounds(**wrong)


def test_too_little_memory_is_refused_with_what_an_entry_takes() -> None:
    with pytest.raises(SetupError, match="bytes"):
        Bounds(max_bytes=100_000).capacity(256)
