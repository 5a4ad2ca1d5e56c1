import pytest

from training.schedule import learning_rate


def rates(schedule: str, steps: int = 100) -> list[float]:
    return [learning_rate(schedule, 0.4, step, steps) for step in range(steps)]  # type: ignore[arg-type]


def test_constant_stays() -> None:
    assert set(rates("constant")) == {0.4}


def test_cosine_falls_from_its_peak_to_near_0() -> None:
    falling = rates("cosine")
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == pytest.approx(0.4, rel=1e-3)
    assert 0 < falling[-1] < 1e-4


def test_one_cycle_rises_for_a_quarter_and_then_falls() -> None:
    cycle = rates("one-cycle")
    assert cycle[0] == pytest.approx(0.4 / 25, rel=0.5)
    assert cycle[:25] == sorted(cycle[:25])
    assert cycle[25:] == sorted(cycle[25:], reverse=True)
    assert max(cycle) == pytest.approx(0.4, rel=1e-2)
    assert 0 < cycle[-1] < 1e-3


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_a_run_of_one_step_has_a_rate(schedule: str) -> None:
    assert rates(schedule, steps=1)[0] > 0
