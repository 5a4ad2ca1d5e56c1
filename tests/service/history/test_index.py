import numpy as np
import pytest

from service.history import postings
from service.history.entries import shortened
from service.history.postings import EMPTY, PLACES, Postings
from service.history.projections import PROBES, TABLES, Projections, of_client


def keys(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


def slots(*values: int) -> np.ndarray:
    return np.array(values)


def found(index: Postings, keys: np.ndarray) -> list[int]:
    every = index.find(keys[None])[0]
    return sorted(every[every != EMPTY].tolist())


def test_what_was_added_is_found_until_it_is_removed() -> None:
    index = Postings(1000, 3, np.random.default_rng(0))
    index.add(keys(5, 70, 900, 5, 71, 901), slots(1, 1, 1, 2, 2, 2))
    assert found(index, keys(5, 70)) == [1, 1, 2]
    index.remove(np.stack([keys(5, 70, 900), keys(5, 71, 901)]), slots(1, 2))
    assert not found(index, keys(5, 70, 71, 900, 901))
    assert (index.slots() == EMPTY).all()


@pytest.mark.parametrize("at_once", [1, 3, 10])
def test_a_list_is_bounded_and_a_newcomer_always_gets_in(at_once: int) -> None:
    index = Postings(1000, 3, np.random.default_rng(0))
    for start in range(0, 100, at_once):
        newcomers = np.arange(start, start + at_once)
        index.add(np.full(at_once, 5, np.uint32), newcomers)
        held = found(index, keys(5))
        assert set(held) & set(newcomers.tolist())
        assert len(held) == min(start + at_once, PLACES)


def test_half_full_next_to_nothing_is_lost() -> None:
    generator = np.random.default_rng(0)
    index = Postings(2000, 50, generator)
    sketches = generator.integers(1, 2**32, (2000, 50), dtype=np.uint32)
    for start in range(0, 1000, 50):
        index.add(sketches[start : start + 50].ravel(), np.arange(start, start + 50).repeat(50))
    counts = [found(index, sketches[slot]).count(slot) for slot in range(1000)]
    assert np.mean(counts) > 49
    assert min(counts) > 40


def test_rows_in_the_order_of_use_hold_what_rows_in_their_places_do(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(0).integers(1, 2**32, (1000, 8), dtype=np.uint32)
    growing, sizes = Postings(1000, 8, np.random.default_rng(1)), list[int]()
    in_place = Postings(1000, 8, np.random.default_rng(1))
    for start in range(0, 1000, 20):
        rows, slots = keys[start : start + 20], np.arange(start, start + 20)
        growing.add(rows.ravel(), slots.repeat(8))
        with monkeypatch.context() as patched:
            patched.setattr(postings, "PACKED", 0)
            in_place.add(rows.ravel(), slots.repeat(8))
        np.testing.assert_array_equal(growing.slots(), in_place.slots())
        if start % 60 == 0:
            for index in (growing, in_place):
                index.remove(rows[::2], slots[::2])
        sizes.append(growing.nbytes)
    assert sizes == sorted(sizes)
    assert sizes[0] < in_place.nbytes / 3
    assert sizes[-1] == in_place.nbytes


def test_a_slot_of_very_many_is_found() -> None:
    index = Postings(2**24, 1, np.random.default_rng(0))
    index.add(keys(5, 5, 6), slots(0, 2**24 - 1, 2**16))
    assert found(index, keys(5)) == [0, 2**24 - 1]
    assert found(index, keys(6)) == [2**16]


def near(generator: np.random.Generator, distance: float, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    one = generator.standard_normal((400, dimensions))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    step = generator.standard_normal(one.shape)
    step *= distance / np.linalg.norm(step, axis=1, keepdims=True)
    return shortened(one), shortened(one + step)


@pytest.mark.parametrize(("distance", "least", "most"), [(0.05, 0.999, 1.0), (0.1, 0.97, 1.0), (0.8, 0.0, 0.05)])
def test_near_embeddings_share_a_table_and_far_ones_do_not(distance: float, least: float, most: float) -> None:
    projections = Projections(128, 0.1, np.random.default_rng(0))
    one, other = near(np.random.default_rng(1), distance, 128)
    entered, looked = projections.own_keys(one), projections.keys(other)
    np.testing.assert_array_equal(entered, projections.keys(one)[:, :TABLES])
    np.testing.assert_array_equal(entered[:1], projections.own_keys(one[:1]))
    share = (np.tile(entered, PROBES) == looked).any(axis=1).mean()
    assert least <= share <= most


def test_clients_have_cells_of_their_own() -> None:
    cells = np.random.default_rng(0).integers(0, 2**32, (2, TABLES), dtype=np.uint32)
    clients = np.array([7, 8], np.uint64)
    assert not (of_client(cells[:1], clients[:1]) == of_client(cells[:1], clients[1:])).any()
    np.testing.assert_array_equal(of_client(cells, clients)[0], of_client(cells[0], clients[0]))
