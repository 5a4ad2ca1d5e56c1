import numpy as np
import pytest

from service.history.components import SAMPLE, Components, Member


def member(label: int = 0, *, client: int = 1, is_adversarial: bool = False, now: float = 0.0) -> Member:
    return Member(client=client, label=label, is_adversarial=is_adversarial, is_near=False, now=now)


def join(components: Components, slot: int, others: list[int], **facts: object) -> int:
    root = components.joined([(other, member()) for other in others])
    components.add(slot, root, member(**facts))  # type: ignore[arg-type]
    return root


def test_two_near_queries_are_a_component_and_a_third_may_join_two() -> None:
    components = Components(100, b"seed")
    first, second = join(components, 1, [0]), join(components, 3, [2])
    assert first != second
    root = join(components, 4, [1, 3], label=1)
    assert components.root(first) == components.root(second) == root
    row = components.row(root)
    assert (row["size"], row["label_flips"]) == (5, 1)
    assert components.sizes(np.array([0, 4, 9])).tolist() == [5, 5, 1]


def test_flips_are_counted_between_one_query_and_the_next() -> None:
    components = Components(100, b"seed")
    for slot, label in enumerate([0, 1, 0, 0, 1], start=1):
        root = join(components, slot, [slot - 1], label=label, is_adversarial=slot == 3)
    row = components.row(root)
    assert (row["label_flips"], row["verdict_flips"]) == (4 - 1, 2)


def test_what_expires_takes_its_share_of_the_evidence_along_and_what_is_pushed_out_does_not() -> None:
    components = Components(100, b"seed")
    for slot in range(1, 10):
        root = join(components, slot, [slot - 1])
    components.row(root)["evidence"] = 10.0
    assert (components.evidence(1), components.evidence(50)) == (10.0, 0.0)
    components.forget(np.array([0, 1, 2]), is_expired=False)
    assert components.row(root)["evidence"] == 10.0
    components.forget(np.array([3, 4, 5]), is_expired=True)
    assert components.row(root)["evidence"] == pytest.approx(10.0 * 4 / 7)
    assert components.row(root)["size"] == 4


def test_rebuilding_keeps_components_and_gives_ids_back() -> None:
    components = Components(100, b"seed")
    join(components, 1, [0])
    join(components, 3, [2])
    root = join(components, 4, [1, 3])
    lone = join(components, 6, [5])
    components.row(root)["evidence"] = 3.0
    components.forget(np.array([5, 6]), is_expired=True)
    components.rebuild()
    assert {components.root(int(components.of[slot])) for slot in range(5)} == {root}
    assert components.row(root)["evidence"] == 3.0
    assert components.of[6] == -1
    again = {components.joined([(7, member())]), components.joined([(8, member())])}
    assert lone in again


def test_ids_never_run_out() -> None:
    components = Components(20, b"seed")
    generator = np.random.default_rng(0)
    used: list[int] = []
    for _ in range(500):
        if len(used) > 17:
            gone = used.pop(0)
            components.forget(np.array([gone]), is_expired=True)
        slot = next(slot for slot in generator.permutation(20).tolist() if slot not in used)
        if used and generator.random() < 0.6:
            join(components, slot, list({used[int(generator.integers(len(used)))] for _ in range(2)}))
        used.append(slot)
        in_any = [slot for slot in used if components.of[slot] >= 0]
        sizes: dict[int, int] = {}
        for slot in in_any:
            root = components.root(int(components.of[slot]))
            sizes[root] = sizes.get(root, 0) + 1
        assert all(components.row(root)["size"] == size for root, size in sizes.items())


def test_a_query_in_no_component_is_alone_when_the_first_component_is_gone() -> None:
    components = Components(100, b"seed")
    join(components, 1, [0])
    components.forget(np.array([0, 1]), is_expired=True)
    components.rebuild()
    assert components.sizes(np.array([0, 7])).tolist() == [1, 1]


def test_clients_are_counted_roughly() -> None:
    components = Components(100, b"seed")
    for slot in range(1, 21):
        root = join(components, slot, [slot - 1], client=slot * 2654435761)
    assert 14 <= components.clients(root) <= 28


def test_of_exchangeable_margins_each_rank_is_as_likely_as_another() -> None:
    components, generator = Components(1000, b"seed"), np.random.default_rng(0)
    counts = np.zeros(SAMPLE + 1)
    for slot in range(0, 600, 2):
        root = join(components, slot, [slot + 1])
        ranks = [components.ranked(root, margin) for margin in generator.uniform(size=30).tolist()]
        assert ranks[:SAMPLE] == [-1] * SAMPLE
        counts += np.bincount(ranks[SAMPLE:], minlength=SAMPLE + 1)
    assert (counts / counts.sum()).tolist() == pytest.approx([1 / (SAMPLE + 1)] * (SAMPLE + 1), abs=0.03)


def test_margins_that_fall_have_the_least_rank() -> None:
    components = Components(100, b"seed")
    root = join(components, 1, [0])
    assert [components.ranked(root, 1 / (1 + number)) for number in range(100)][SAMPLE:] == [0] * (100 - SAMPLE)
