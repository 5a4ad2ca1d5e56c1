import numpy as np
import pytest

from service.history.postings import PLACES, Postings
from service.history.projections import TABLES, Projections, of_client


def keys(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


def test_what_was_added_is_found_until_it_is_removed() -> None:
    index = Postings(1000, 3, np.random.default_rng(0))
    index.add(keys(5, 70, 900), 1)
    index.add(keys(5, 71, 901), 2)
    assert sorted(index.find(keys(5, 70))) == [1, 1, 2]
    index.remove(np.stack([keys(5, 70, 900), keys(5, 71, 901)]), np.array([1, 2]))
    assert not len(index.find(keys(5, 70, 71, 900, 901)))
    assert (index.table == np.uint32(0xFFFFFFFF)).all()


def test_a_list_is_bounded_and_a_newcomer_always_gets_in() -> None:
    index = Postings(1000, 3, np.random.default_rng(0))
    for slot in range(100):
        index.add(keys(5), slot)
        found = index.find(keys(5))
        assert slot in found
        assert len(found) == min(slot + 1, PLACES)


def test_half_full_next_to_nothing_is_lost() -> None:
    generator = np.random.default_rng(0)
    index = Postings(2000, 50, generator)
    sketches = generator.integers(1, 2**32, (2000, 50), dtype=np.uint32)
    for slot in range(1000):
        index.add(sketches[slot], slot)
    found = [np.count_nonzero(index.find(sketches[slot]) == slot) for slot in range(1000)]
    assert np.mean(found) > 49
    assert min(found) > 40


def near(generator: np.random.Generator, distance: float, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    one = generator.standard_normal((400, dimensions))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    step = generator.standard_normal(one.shape)
    step *= distance / np.linalg.norm(step, axis=1, keepdims=True)
    return one.astype(np.float32), (one + step).astype(np.float32)


@pytest.mark.parametrize(("distance", "least", "most"), [(0.05, 0.999, 1.0), (0.1, 0.97, 1.0), (0.8, 0.0, 0.05)])
def test_near_embeddings_share_a_table_and_far_ones_do_not(distance: float, least: float, most: float) -> None:
    projections = Projections(128, 0.1, np.random.default_rng(0))
    one, other = near(np.random.default_rng(1), distance, 128)
    share = (projections.keys(one) == projections.keys(other)).any(axis=1).mean()
    assert least <= share <= most


def test_clients_have_cells_of_their_own() -> None:
    cells = np.random.default_rng(0).integers(0, 2**32, (2, TABLES), dtype=np.uint32)
    clients = np.array([7, 8], np.uint64)
    assert not (of_client(cells[:1], clients[:1]) == of_client(cells[:1], clients[1:])).any()
    np.testing.assert_array_equal(of_client(cells, clients)[0], of_client(cells[0], clients[0]))
