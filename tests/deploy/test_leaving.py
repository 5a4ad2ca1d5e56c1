"""Of a batch any subset leaves at any stage, and the others never notice; a queue with that fault is found out."""

from deploy.leaving import STAGES, leave_at_random
from service.batching import Batcher
from service.lanes import Waiting


def test_who_leaves_touches_nobody() -> None:
    left = leave_at_random(range(200))
    assert left.wrong == []
    assert left.batches == 200
    assert left.stayed > 800
    assert min(left.by_stage[stage] for stage in STAGES) > 100


class FailsTogether(Batcher):
    """Answers nobody of a batch when one has left it: what a server did that is in use elsewhere."""

    def _form(self) -> list[Waiting]:
        batch = super()._form()
        return batch if len(batch) in (1, 8) else []


class Swaps(Batcher):
    """Answers in the wrong order when one has left a batch."""

    def _form(self) -> list[Waiting]:
        batch = super()._form()
        if 1 < len(batch) < 8:
            batch[0].image, batch[-1].image = batch[-1].image, batch[0].image
        return batch


def test_a_queue_that_swaps_answers_is_found_out() -> None:
    assert any("got the answer of" in line for line in leave_at_random(range(10), kind=Swaps).wrong)


def test_a_queue_that_leaves_calls_open_is_found_out() -> None:
    left = leave_at_random(range(3), kind=FailsTogether, patience_s=0.3)
    assert any("waits for ever" in line for line in left.wrong)
    assert any("left open" in line for line in left.wrong)
