"""R-4: who leaves a batch touches nobody."""

from deploy.leaving import leave_at_random
from deploy.reliability.check import Check, Figures
from deploy.reliability.rig import Rig

__all__ = ["CHECKS"]


def leaving(rig: Rig) -> Figures:
    """R-4."""
    left = leave_at_random(range(rig.scaled(test=100, quick=2000, full=20_000)))
    for line in left.wrong[:20]:
        print(f"R-4: {line}")
    return {
        "batches": left.batches,
        "stayed": left.stayed,
        **{f"left_{stage}": count for stage, count in left.by_stage.items()},
        "least_left_at_a_stage": min(left.by_stage.values()),
        "wrong": len(left.wrong),
    }


CHECKS = (
    Check(
        number="R-4",
        text="a batch of 8 of which any subset is cancelled while it is queued, forming, running or done, by seeds; "
        "answers of the others, futures left open, errors logged",
        asked={"wrong": "= 0", "least_left_at_a_stage": ">= 50"},
        run=leaving,
        is_quick=True,
    ),
)
