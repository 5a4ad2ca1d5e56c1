"""A run: what it is told, what it finds, and what every way of running it shares."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from service.detection.bundle import SHIPPED, find_bundle
from service.detection.engine import Engine
from service.detection.images import ImageLimits
from service.detection.processors import cpu_quota
from service.detection.providers import Device
from service.detection.verdict import RevealMode
from service.errors import SetupError
from service.scoring.archives import image_column
from service.scoring.chunks import Reading
from service.scoring.inputs import Piece, Survey, cut, survey
from service.scoring.ledger import Ledger, Totals
from service.scoring.progress import Progress
from service.scoring.scorer import applied_alpha
from service.scoring.shards import Shards
from service.scoring.tables import TableMaker

__all__ = ["Job", "Run", "run_job"]

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """What `advsentry score` is told.

    Raises:
        SetupError: a number is out of range.
    """

    inputs: tuple[Path, ...]
    out: Path
    bundle: str
    alpha: float | None = None
    mode: RevealMode = RevealMode.SCORES
    with_probabilities: bool = True
    column: str = ""
    batch: int = 64
    """Images in one run of the graph at most."""
    shard_images: int = 20_000
    device: Device = "cpu"
    threads: int = 0
    """Of one run of the graph; 0 takes all processors."""
    workers: int = 0
    """Processes that decode; 0 takes one for each processor."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("batch", 1, 4096),
            ("shard_images", 1, 10**7),
            ("threads", 0, 1024),
            ("workers", 0, 1024),
        ):
            if not least <= getattr(self, name) <= most:
                flag = "--" + name.replace("_", "-")
                raise SetupError(f"{flag}: expected a whole number from {least} to {most}, got {getattr(self, name)}")

    @property
    def reading(self) -> Reading:
        """How its pieces are read."""
        return Reading(
            root=os.getcwd(),
            column=self.column,
            most_bytes=ImageLimits().max_bytes,
            most_images=self.batch,
            shard_images=self.shard_images,
        )

    @property
    def decoders(self) -> int:
        """Processes that decode."""
        return self.workers or cpu_quota()


@dataclass(frozen=True, kw_only=True)
class Run:
    """A job at work."""

    job: Job
    bundle: str
    """The bundle by a name that holds in another process, too."""
    calibration_id: str
    ledger: Ledger
    shards: Shards
    progress: Progress

    def open_pieces(self) -> Iterator[Piece]:
        """The pieces that are not finished, in order; the others are counted as done before."""
        for piece in cut(self.job.inputs, self.job.shard_images):
            if self.ledger.has_ended(piece.number):
                self.progress.pass_over(piece.weight)
            else:
                yield piece


def run_job(job: Job, progress: "Callable[[int], Progress]", score: Callable[[Run], None]) -> tuple[Totals, Totals]:
    """Checks everything that can be checked, then scores what is not finished.

    Args:
        progress: given the bytes of all inputs.
        score: adds every row of the open pieces to the shards.

    Returns:
        What is finished: before this run, and now.

    Raises:
        AdvsentryError: the bundle, an input, the output folder or a setting is wrong.
    """
    found_bundle = find_bundle(job.bundle)
    engine = Engine.load(found_bundle, threads=1)
    alpha = applied_alpha(engine, job.alpha, job.mode)
    _check_apart(job)
    found = survey(job.inputs)
    _check_column(job, found)
    manifest, calibration_id = engine.bundle.manifest, engine.bundle.calibration_id
    about = {
        "bundle": manifest.name,
        "version": manifest.version,
        "calibration_id": calibration_id,
        "alpha": alpha,
        "reveal": job.mode.value,
    }
    told = {
        "format": FORMAT,
        **about,
        "probabilities": job.with_probabilities,
        "column": job.column,
        "shard_images": job.shard_images,
        "inputs": f"of {found.files} files, {found.size} bytes, fingerprint {found.fingerprint}",
    }
    with Ledger(job.out, told) as ledger:
        before = ledger.totals
        table = TableMaker(manifest, about=about, with_probabilities=job.with_probabilities)
        with progress(found.size) as shown:
            run = Run(
                job=job,
                bundle=job.bundle if found_bundle.parent == SHIPPED else str(found_bundle.resolve()),
                calibration_id=calibration_id,
                ledger=ledger,
                shards=Shards(ledger, table, job.shard_images),
                progress=shown,
            )
            score(run)
        return before, ledger.totals


def _check_apart(job: Job) -> None:
    """A folder's own results are no input of the next run."""
    out = job.out.resolve()
    for path in job.inputs:
        if out.is_relative_to(path.resolve()):
            raise SetupError(f"--out {job.out}: lies in the input {path}; choose a place outside it")


def _check_column(job: Job, found: Survey) -> None:
    """Of the first Parquet file; what is wrong with another one is said in its row."""
    if found.first_parquet is None:
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(found.first_parquet)
    except (pa.ArrowException, OSError):
        return
    image_column(schema, job.column, found.first_parquet)
