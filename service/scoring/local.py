"""A run on this machine: processes decode, one thread runs the graph, this one reads and writes, all at once.

Processes and not threads, because most of what a small image costs is Python, which runs in one thread at a time.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import TypeVar

from service.errors import SetupError
from service.scoring.chunks import Chunk, Reading, chunks
from service.scoring.decoding_process import decode, start_decoding
from service.scoring.job import Run
from service.scoring.scorer import Scorer

__all__ = ["ahead", "score_here"]

GRAPH_DEPTH = 2
"""Chunks that the graph's thread has: the one that runs, and the next."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def score_here(run: Run) -> None:
    """Scores the open pieces of a run.

    Raises:
        AdvsentryError: the bundle or the device fails, or an output cannot be written.
    """
    job, reading = run.job, run.job.reading
    scorer = Scorer(
        bundle=run.bundle,
        alpha=job.alpha,
        mode=job.mode,
        device=job.device,
        threads=job.threads,
        calibration_id=run.calibration_id,
    )
    with ExitStack() as stack:
        decoders = ProcessPoolExecutor(
            job.decoders,
            mp_context=multiprocessing.get_context("spawn"),  # a fork would copy the graph's threads half
            initializer=start_decoding,
            initargs=(run.bundle, reading.root),
        )
        stack.callback(decoders.shutdown, cancel_futures=True)
        graph = ThreadPoolExecutor(1, thread_name_prefix="graph")
        stack.callback(graph.shutdown, cancel_futures=True)
        decoded = ahead(decoders, decode, _open_chunks(run, reading), 2 * job.decoders + 2)
        try:
            for columns in ahead(graph, scorer, decoded, GRAPH_DEPTH):
                run.shards.add(columns)
                run.progress.add(columns)
        except BrokenProcessPool as error:
            raise SetupError(
                "a process that decodes was ended from outside, perhaps for want of memory; go on by the same command, "
                "perhaps with fewer --workers"
            ) from error


def ahead(executor: Executor, function: Callable[[Given], Made], given: Iterable[Given], depth: int) -> Iterator[Made]:
    """What a function makes of each, in order, with so many of them under way and no more."""
    waiting: deque[Future[Made]] = deque()
    for one in given:
        waiting.append(executor.submit(function, one))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _open_chunks(run: Run, reading: Reading) -> Iterator[Chunk]:
    for piece in run.open_pieces():
        yield from chunks(piece, reading, run.ledger.shards(piece.number))
