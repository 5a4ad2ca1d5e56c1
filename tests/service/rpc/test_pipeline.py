"""What a call comes to before its images are decoded."""

from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from service.detection.engine import Engine
from service.errors import DeadlinePassed
from service.metrics import Metrics
from service.rpc.pipeline import Pipeline, Policy, Queue


@pytest.mark.parametrize("left_s", [0.0, -3.0])
def test_a_deadline_that_has_passed_is_told_before_anything_is_done(engine: Engine, left_s: float) -> None:
    queue, metrics = cast(Queue, None), Metrics(CollectorRegistry())  # nothing gets as far as the queue
    made = Pipeline(engine, queue, ThreadPoolExecutor(1), policy=Policy(), metrics=metrics)
    with pytest.raises(DeadlinePassed, match="before the call was read"):
        made.deadline(left_s, images=3)
    assert metrics.registry.get_sample_value("advsentry_dropped_total", {"reason": "deadline"}) == 3
