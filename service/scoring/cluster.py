"""A run on a Ray cluster: its nodes read, decode and score, this process writes."""

import logging
import os
import pickle
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import ray
import ray.data
from ray.exceptions import RayError, RayTaskError

from service.errors import AdvsentryError, SetupError
from service.scoring.chunks import Reading, chunks
from service.scoring.decoding import Columns, Decoder
from service.scoring.inputs import Piece
from service.scoring.job import Run
from service.scoring.scorer import Scorer

__all__ = ["score_on_ray"]

ATTEMPTS = 3
"""At the pieces of which rows were lost, beyond what Ray computes again by itself."""
WINDOW_FILES = 10**6
"""Names of files that are handed to the cluster at a time, in whole pieces."""
PIECES_EACH = 64
"""Pieces of such a window for each of the cluster's processors, at most."""
KNOCK_S = 10.0
BLOCK_BYTES = 8 * 2**20
"""Of decoded images that wait for the graph together; smaller ones than Ray's let the graph start earlier."""


def score_on_ray(run: Run, address: str) -> None:
    """Scores the open pieces of a run.

    Args:
        address: of a cluster, HOST:PORT or `auto`; `local` starts one on this machine.

    Raises:
        AdvsentryError: there is no cluster, a node cannot read an input or use the bundle, or rows stay lost.
    """
    _knock(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell others of the run
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters is said in our own lines
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SetupError(f"--ray {address}: no cluster answers: {str(error).splitlines()[0]}") from error
    try:
        cpus = _processors()
        for window in _windows(run.open_pieces(), PIECES_EACH * cpus):
            _score_window(run, window, cpus)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself waits for minutes, then ends the process."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise SetupError(f"--ray {address}: no cluster answers there: {error}") from error


def _windows(pieces: Iterable[Piece], most: int) -> Iterator[list[Piece]]:
    window: list[Piece] = []
    files = 0
    for piece in pieces:
        window.append(piece)
        files += len(piece.entries)
        if files >= WINDOW_FILES or len(window) == most:
            yield window
            window, files = [], 0
    if window:
        yield window


def _processors() -> int:
    found = int(ray.cluster_resources().get("CPU", 0))
    if found < 2:
        raise SetupError(
            f"--ray: expected a cluster of 2 processors or more, one to decode and one to score, got {found}"
        )
    return found


def _score_window(run: Run, window: list[Piece], cpus: int) -> None:
    left, said = window, ""
    for _ in range(ATTEMPTS):
        try:
            for columns in _rows(run, left, cpus):
                run.shards.add(columns)
                run.progress.add(columns)
        except RayTaskError as error:  # our own code, on a node
            cause = error.cause
            raise (cause if isinstance(cause, AdvsentryError) else SetupError(f"--ray: {cause!r}")) from error
        except RayError as error:
            said = f": {str(error).splitlines()[0]}"
        left = [piece for piece in left if not run.ledger.has_ended(piece.number)]
        if not left:
            return
    raise SetupError(f"--ray: the cluster lost rows {ATTEMPTS} times{said}; go on by the same command")


def _rows(run: Run, pieces: list[Piece], cpus: int) -> Iterator[Columns]:
    """Scored rows, in any order."""
    job = run.job
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.target_max_block_size = BLOCK_BYTES
    threads = job.threads or 1
    on_gpu = job.device == "cuda"
    gpus = int(ray.cluster_resources().get("GPU", 0))
    most_scorers = gpus if on_gpu else cpus // (2 * threads)
    orders = [{"order": pickle.dumps((piece, run.ledger.shards(piece.number)))} for piece in pieces]
    scored = (
        ray.data.from_items(orders, override_num_blocks=len(orders))
        .map_batches(
            _decoded,
            batch_size=1,
            fn_kwargs={"bundle": run.bundle, "reading": job.reading},
            compute=ray.data.TaskPoolStrategy(size=job.workers or None),
            num_cpus=1,
            max_retries=-1,  # however many nodes are lost; and unlike tasks are not fused, so that both go on at once
        )
        .map_batches(
            Scorer,
            batch_size=job.batch,
            fn_constructor_kwargs={
                "bundle": run.bundle,
                "alpha": job.alpha,
                "mode": job.mode,
                "device": job.device,
                "threads": threads,
                "calibration_id": run.calibration_id,
            },
            num_cpus=threads,
            num_gpus=1 if on_gpu else None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, most_scorers)),
        )
    )
    yield from scored.iter_batches(batch_size=None, batch_format="numpy")


def _decoded(orders: "dict[str, np.ndarray[Any, Any]]", bundle: str, reading: Reading) -> Iterator[Columns]:
    """On a node: the rows of pieces, chunk by chunk."""
    decoder = Decoder(bundle, reading.root)
    for order in orders["order"]:
        piece, finished = pickle.loads(order)
        _check_seen(piece, reading.root)
        yield from map(decoder, chunks(piece, reading, finished))


def _check_seen(piece: Piece, root: str) -> None:
    """Refuses to make a million rows with an error on a node that lacks the disk of the inputs."""
    first = next((entry for entry in piece.entries if entry.size), None)
    if first is not None and not os.path.exists(os.path.join(root, first.path)):
        raise SetupError(
            f"--ray: {first.path}: not found on a node; the inputs must be at the same place on every node, and the "
            "bundle too"
        )
