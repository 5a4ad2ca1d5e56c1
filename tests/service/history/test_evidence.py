import math
from dataclasses import replace

import numpy as np
import pytest

from service.errors import SetupError
from service.history.calibration import Calibration
from service.history.evidence import FALL, SHARE, Edges, Join, Rates

PLAIN = Join(matches=0, distance=0.1, is_label_flip=False, is_verdict_flip=False, is_near=False, rank=-1, size=0)


def benign() -> list[Join]:
    flips = [replace(PLAIN, distance=0.2 + number / 100, is_label_flip=True) for number in range(9)]
    pixels = [replace(PLAIN, matches=number) for number in (5, 10, 40)]
    near = [replace(PLAIN, is_near=True) for _ in range(19)]
    ranks = [replace(PLAIN, rank=rank) for rank in (0, 0, 0, 2, 2, *[8] * 31)]
    sizes = [replace(PLAIN, size=1 + number) for number in range(49)]
    return flips + pixels + near + ranks + sizes + [PLAIN] * (999 - 31 - 36 - 49)


def test_each_event_counts_as_much_as_it_is_rare_among_benign_joins() -> None:
    rates = Rates.of([benign()])

    def counts(**facts: object) -> float:
        return rates.counts(replace(PLAIN, **facts))  # type: ignore[arg-type]

    assert counts() == 0
    assert counts(is_label_flip=True, distance=0.05) == pytest.approx(math.log(1000))
    assert counts(is_label_flip=True, distance=0.5) == pytest.approx(math.log(100))
    assert counts(matches=10) == pytest.approx(math.log(1000 / 3))
    assert counts(matches=45) == pytest.approx(math.log(1000))
    assert counts(is_near=True) == pytest.approx(math.log(1000 / 20))
    assert counts(is_verdict_flip=True) == pytest.approx(math.log(1000))
    assert counts(rank=0) == pytest.approx(math.log(37 / 4))
    assert counts(rank=2) == pytest.approx(math.log(37 / 6))
    assert counts(rank=8) == 0
    assert counts(size=1) == 0
    assert counts(size=40) == pytest.approx(math.log(50 / 11))
    assert counts(size=300) == pytest.approx(math.log(50))
    assert counts(is_near=True, matches=45) == pytest.approx(math.log(50) + math.log(1000))


def test_the_evidence_of_nearly_all_benign_components_falls() -> None:
    generator = np.random.default_rng(0)
    components = [
        [replace(PLAIN, matches=int(generator.integers(0, 2 + number))) for _ in range(20)] for number in range(40)
    ]
    rates = Rates.of(components)
    sums = [sum(rates.adds(join) for join in component) for component in components]
    assert np.mean([added <= 1e-6 for added in sums]) >= SHARE
    fewer = replace(rates, allowance=0.8 * rates.allowance)
    assert np.mean([sum(fewer.adds(join) for join in component) <= 0 for component in components]) < SHARE


def test_a_harmless_join_takes_little_away() -> None:
    rates = replace(Rates.of([benign()]), allowance=2 * FALL)
    assert rates.adds(PLAIN) == -FALL
    join = replace(PLAIN, is_label_flip=True, distance=0.05)
    assert rates.adds(join) == pytest.approx(math.log(1000) - rates.allowance)


def test_shared_pixels_count_less_in_a_crowd() -> None:
    rates = Rates.of([benign()])
    join = replace(PLAIN, matches=45)
    assert rates.counts(join) - rates.counts(join, crowd=10.0) == pytest.approx(math.log(10))
    assert rates.counts(join, crowd=1e9) == 0


def edges() -> Edges:
    return Edges(matches=5, radius=0.3, entries=1000, dimension=8.0, margin=0.1, p_value=0.02, alpha=0.01, beside=0.9)


def test_a_p_value_is_a_rank_in_which_a_stream_counts_as_one() -> None:
    streams = [[0.0, 9.0, 9.0, 9.0], [0.0] * 10, [7.0, 0.0], [0.0]]
    calibration = Calibration.ranked(edges(), Rates.of([]), streams)
    assert calibration.streams == 4
    assert calibration.p_value(0.0) == 1.0
    assert calibration.p_value(7.0) == pytest.approx((1 + 3 / 4 + 1 / 2) / 5)
    assert calibration.p_value(8.0) == pytest.approx((1 + 3 / 4) / 5)
    assert calibration.p_value(10.0) == pytest.approx(1 / 5)
    assert calibration.p_value(0.01) == pytest.approx(math.exp(-0.01)), "however few have so much"


def test_the_strictest_of_several_kinds_keeps_the_promise_for_each() -> None:
    still = Calibration.ranked(edges(), Rates.of([]), [[0.0]] * 9)
    loud = Calibration.ranked(edges(), Rates.of([]), [[0.0, 7.0], *[[0.0]] * 2, [9.0]])
    strictest = Calibration.strictest([still, loud])
    assert strictest.streams == 4
    for evidence in (0.0, 5.0, 7.0, 8.0, 9.0, 10.0):
        assert strictest.rank(evidence) == pytest.approx(max(still.rank(evidence), loud.rank(evidence)))
    again = Calibration.strictest([loud])
    np.testing.assert_allclose(again.statistics, loud.statistics)
    np.testing.assert_allclose(again.weights, loud.weights)


def test_a_level_that_cannot_be_reached_is_refused_with_the_streams_that_it_wants() -> None:
    calibration = Calibration.ranked(edges(), Rates.of([]), [[0.0]] * 99)
    calibration.check_level(0.01)
    for level, says in ((0.005, "199 streams"), (0.0, "between 0 and 1"), (float("nan"), "between 0 and 1")):
        with pytest.raises(SetupError, match=says):
            calibration.check_level(level)


def test_a_calibration_is_the_same_after_a_file() -> None:
    calibration = Calibration.ranked(edges(), Rates.of([benign()]), [[0.0, 1.0], [2.0]])
    again = Calibration.from_bytes(calibration.to_bytes())
    assert again.edges == calibration.edges
    assert again.rates == calibration.rates
    np.testing.assert_array_equal(again.statistics, calibration.statistics)
    np.testing.assert_array_equal(again.weights, calibration.weights)


@pytest.mark.parametrize("content", [b"", b"nothing of it"])
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected a calibration"):
        Calibration.from_bytes(content)


@pytest.mark.parametrize(
    ("row", "weights"),
    [([], []), ([2.0, 1.0], [1.0, 1.0]), ([float("nan")], [1.0]), ([1.0], [1.0, 1.0]), ([1.0], [0.0])],
)
def test_rows_that_are_no_ranks_are_refused(row: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Calibration(edges=edges(), rates=Rates.of([]), statistics=np.array(row), weights=np.array(weights))


def test_a_component_with_evidence_is_joined_from_farther_off_up_to_twice_as_far() -> None:
    one = edges()
    assert one.beside_of(0.0) == one.beside
    assert one.beside_of(2.0) == pytest.approx(one.beside * math.exp(2.0 / one.dimension))
    assert one.beside_of(1e6) == pytest.approx(2 * one.beside)
