"""An image's answer is the same whether it is answered alone or with others, and each is counted once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.detection.engine import Engine
from service.detection.types import Scored
from service.detection.verdict import RevealMode, Shown, Wish
from service.metrics import Metrics
from service.rpc.pipeline import Applied, Pipeline, Policy, Queue
from tests import tiny

BATCH = 5


def pipeline(engine: Engine) -> Pipeline:
    made = Metrics(CollectorRegistry())
    return Pipeline(engine, cast(Queue, None), ThreadPoolExecutor(1), policy=Policy(), metrics=made)


def rows(engine: Engine, seed: int = 0) -> list[Scored]:
    images = np.random.default_rng(seed).integers(0, 256, (BATCH, tiny.SIDE, tiny.SIDE, 1), dtype=np.uint8)
    measured = engine.measure(images)
    return [Scored(measured, row, 0.001, 0.002, BATCH) for row in range(BATCH)]


def answer(pipe: Pipeline, scored: list[Scored], applied: Applied) -> Shown:
    return asyncio.run(pipe.answer(scored, applied))


def counted(pipe: Pipeline) -> dict[tuple[str, ...], float]:
    """What does not hang on time."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in pipe.metrics.registry.collect()
        for sample in family.samples
        if family.name.startswith("advsentry_") and "seconds" not in family.name
        if sample.value and not sample.name.endswith("_created")
    }


def test_alone_or_together_an_image_gets_one_answer_and_is_counted_once(engine: Engine) -> None:
    scored, applied = rows(engine), Applied(0.05, Wish(), RevealMode.SCORES)
    alone, together = pipeline(engine), pipeline(engine)
    whole = answer(together, scored, applied)
    for i, one in enumerate(scored):
        assert answer(alone, [one], applied).detections() == [whole.detection(i)]
    assert counted(alone) == pytest.approx(counted(together), nan_ok=True)  # shares of too few images are NaN


def test_callers_of_one_batch_get_what_each_asked_for(engine: Engine) -> None:
    pipe, scored = pipeline(engine), rows(engine)
    hidden = answer(pipe, [scored[0]], Applied(0.05, Wish(), RevealMode.DECISION))
    shown = answer(pipe, [scored[0]], Applied(0.05, Wish(top_k=1), RevealMode.SCORES))
    assert hidden.p_values is None
    assert shown.p_values is not None
    assert len(shown.classes[0]) == 1


def test_the_next_batch_is_judged_anew(engine: Engine) -> None:
    pipe, applied = pipeline(engine), Applied(0.05, Wish(), RevealMode.SCORES)
    for seed in range(3):
        scored = rows(engine, seed)
        assert (
            answer(pipe, [scored[1]], applied).detections()
            == answer(pipeline(engine), scored, applied).detections()[1:2]
        )
