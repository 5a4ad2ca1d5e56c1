import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from training.attacks.adaptive import Found, Traced, joined, union_of

INF = float("inf")


def result(scores: list[float], margins: list[float], trace: Tensor | None = None) -> Traced:
    """Two images that are told apart by their value, the first score."""
    count = len(scores)
    found = torch.tensor([margin < 0 for margin in margins])
    trace = torch.where(found, torch.tensor(scores), INF).view(1, 1, count) if trace is None else trace
    return Traced(
        images=torch.full((count, 1, 1, 1), scores[0]),
        found=found,
        scores=torch.tensor(scores),
        margins=torch.tensor(margins),
        steps=torch.zeros(count, dtype=torch.long),
        trace=trace,
    )


def test_success_at_every_threshold_follows_from_one_run() -> None:
    found = result([0.3, 0.1], [-1.0, 2.0])
    assert found.accepted_and_wrong(0.3).tolist() == [True, False]
    assert found.accepted_and_wrong(0.29).tolist() == [False, False]


def test_convergence_points() -> None:
    trace = torch.tensor([[[INF, 5.0], [4.0, 6.0], [3.0, INF]], [[2.0, INF], [INF, INF], [INF, 1.0]]])
    found = result([2.0, 1.0], [-1.0, -1.0], trace)
    assert found.best_scores().tolist() == [2.0, 1.0]
    assert found.best_scores(restarts=1).tolist() == [3.0, 5.0]
    assert found.best_scores(restarts=1, steps=0).tolist() == [INF, 5.0]
    assert found.best_scores(steps=1).tolist() == [2.0, 5.0]


@pytest.mark.parametrize(("steps", "restarts"), [(3, 1), (-1, 1), (1, 3), (1, 0)])
def test_more_than_was_run_cannot_be_told(steps: int, restarts: int) -> None:
    found = result([2.0], [-1.0], torch.zeros(2, 3, 1))
    with pytest.raises(SetupError, match="convergence: expected 0 to 2 steps and 1 to 2 restarts, got"):
        found.best_scores(steps=steps, restarts=restarts)


def test_the_best_fools_then_is_least_suspicious_then_is_nearest() -> None:
    far = result([1.0, 0.0, 5.0, 0.0], [-1.0, 3.0, -1.0, 3.0])
    near = result([2.0, 9.0, 4.0, 0.0], [-9.0, -0.1, -1.0, 2.0])
    union = union_of({"far": far, "near": near})
    assert union.by.tolist() == [0, 1, 1, 1]
    assert union.scores.tolist() == [1.0, 9.0, 4.0, 0.0]
    assert union.found.tolist() == [True, True, True, False]
    assert union.margins.tolist() == pytest.approx([-1.0, -0.1, -1.0, 2.0])
    assert union.images.flatten().tolist() == [1.0, 2.0, 2.0, 2.0]


def test_which_attack_alone_succeeded() -> None:
    union = union_of({"a": result([1.0, 0.0, 5.0], [-1.0, 3.0, -1.0]), "b": result([2.0, 9.0, 4.0], [-9.0, -1.0, 1.0])})
    alone = {name: rows.tolist() for name, rows in union.alone(1.5).items()}
    assert alone == {"a": [True, False, False], "b": [False, False, False]}
    alone = {name: rows.tolist() for name, rows in union.alone(9.0).items()}
    assert alone == {"a": [False, False, True], "b": [False, True, False]}


def test_of_equals_the_first_counts() -> None:
    union = union_of({"a": result([1.0], [-1.0]), "b": result([1.0], [-2.0])})
    assert union.by.tolist() == [0]


def test_runs_of_different_length_are_joined() -> None:
    short = result([4.0], [-1.0], torch.tensor([[[INF], [4.0]]]))
    long = result([3.0], [-1.0], torch.tensor([[[6.0], [INF], [5.0]], [[INF], [3.0], [INF]]]))
    both = joined([short, long])
    assert both.trace.flatten(1).tolist() == [[6.0, 4.0, 5.0], [INF, 3.0, INF]]
    assert both.scores.tolist() == [3.0]
    assert short.trace.flatten().tolist() == [INF, 4.0]


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(SetupError, match="results: expected at least one to join, got none"):
        joined([])
    with pytest.raises(SetupError, match="union: expected results on the same images, got none"):
        union_of({})


def test_results_on_different_images_cannot_be_joined() -> None:
    found: Found = result([1.0], [-1.0])
    with pytest.raises(SetupError, match="union: expected results on the same images, got a 1, b 2; join what one"):
        union_of({"a": found, "b": result([1.0, 2.0], [-1.0, 1.0])})
