"""`advsentry score`: its arguments, and what it says at the end."""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from service.detection.verdict import RevealMode
from service.errors import SetupError

if TYPE_CHECKING:
    from service.scoring.job import Run
    from service.scoring.ledger import Totals

__all__ = ["add_score_arguments", "score"]


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Scores images by the million, by the code that the server uses, into Parquet files with one row an image. The "
        "same command goes on where it was stopped. Progress goes to standard error. Exit status 1 when an image has "
        "an error in its row."
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="a folder, .zip, .tar (.gz, .bz2, .xz), .parquet, an image, or a .txt with one path a line",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--bundle", required=True, help="directory or shipped name")
    parser.add_argument("--alpha", type=float, metavar="A", help="share of clean images that may be called adversarial")
    parser.add_argument(
        "--reveal",
        choices=[mode.value for mode in RevealMode],
        default=RevealMode.SCORES.value,
        metavar="MODE",
        help=f"what the rows hold, one of {', '.join(RevealMode)} (scores: everything, exactly)",
    )
    parser.add_argument("--top-only", action="store_true", help="leave the column of all classes' probabilities out")
    parser.add_argument("--column", default="", help="of the images in Parquet files (the only one that it can be)")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images in one run of the graph (64)")
    parser.add_argument("--shard-images", type=int, default=20_000, metavar="N", help="rows of one file (20000)")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="what runs the graph (cpu)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of one run of the graph (all processors)")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that decode images (one for each processor)"
    )
    parser.add_argument(
        "--ray", default="", metavar="ADDRESS", help="a Ray cluster, HOST:PORT or auto; local starts one here"
    )
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")


def score(options: argparse.Namespace) -> tuple[str, bool]:
    """Scores, and gives what is to be printed, and whether every image was scored.

    Raises:
        AdvsentryError: the bundle, an input, the output folder or a setting is wrong, or a package is missing.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise SetupError("score: pyarrow is not installed, which reads and writes Parquet; install advsentry[score]")
    from service.scoring.job import Job, run_job
    from service.scoring.progress import Progress

    job = Job(
        inputs=tuple(options.inputs),
        out=options.out,
        bundle=options.bundle,
        alpha=options.alpha,
        mode=RevealMode(options.reveal),
        with_probabilities=not options.top_only,
        column=options.column,
        batch=options.batch,
        shard_images=options.shard_images,
        device=options.device,
        threads=options.threads,
        workers=options.workers,
    )
    started = time.monotonic()
    before, now = run_job(job, Progress, _engine(options.ray))
    seconds = time.monotonic() - started
    told = _json(before, now, seconds, options.out) if options.json else _text(before, now, options.out)
    return told, not now.errors


def _engine(ray: str) -> "Callable[[Run], None]":
    """What scores: this machine, or a cluster at an address."""
    if not ray:
        from service.scoring.local import score_here

        return score_here
    if importlib.util.find_spec("ray") is None:
        raise SetupError("--ray: Ray is not installed; install advsentry[cluster]")
    from service.scoring.cluster import score_on_ray

    return lambda run: score_on_ray(run, ray)


def _json(before: "Totals", now: "Totals", seconds: float, out: Path) -> str:
    here = now.images - before.images
    told = {**asdict(now), "images_this_run": here, "seconds": seconds, "images_per_s": here / seconds}
    return json.dumps({**told, "out": str(out)}, ensure_ascii=False)


def _text(before: "Totals", now: "Totals", out: Path) -> str:
    earlier = f", {before.images:,} of them by an earlier run" if before.images else ""
    why = ", which the column error tells" if now.errors else ""
    return (
        f"{now.images:,} images{earlier}: {now.adversarial:,} adversarial, {now.errors:,} with an error{why}; "
        f"{now.shards:,} file(s) in {out}"
    )
