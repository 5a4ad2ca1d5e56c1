"""What a bundle answers to streams, as the history wants to know it."""

from collections.abc import Iterable, Sequence

import numpy as np

from service.detection.engine import Engine
from service.history.types import Query
from training.history.traffic import Stream

__all__ = ["queries_of"]

BATCH = 256


def queries_of(engine: Engine, streams: Sequence[Stream]) -> list[list[Query]]:
    """The queries of each stream; images of several streams run in one batch."""
    made: list[list[Query]] = [[] for _ in streams]
    waiting: list[tuple[int, int]] = []
    for place in ((number, row) for number, stream in enumerate(streams) for row in range(len(stream.images))):
        waiting.append(place)
        if len(waiting) == BATCH:
            _answer(engine, streams, waiting, made)
            waiting = []
    if waiting:
        _answer(engine, streams, waiting, made)
    return made


def _answer(
    engine: Engine, streams: Sequence[Stream], places: Iterable[tuple[int, int]], made: Sequence[list[Query]]
) -> None:
    places = list(places)
    measured = engine.measure(np.stack([streams[number].images[row] for number, row in places]))
    labels, margins = measured.labels.tolist(), measured.margins.tolist()
    p_values = measured.fused_p_value.tolist()
    for position, (number, row) in enumerate(places):
        stream = streams[number]
        made[number].append(
            Query(
                client=stream.clients[row],
                image=stream.images[row],
                embedding=measured.outputs.embedding[position],
                label=labels[position],
                margin=margins[position],
                p_value=p_values[position],
                now=stream.times[row],
            )
        )
