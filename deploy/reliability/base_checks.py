"""R-25: this revision beside another one, in turns on the same machine."""

import contextlib
import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deploy.reliability.callers import closed, codes, run_loop
from deploy.reliability.check import Check, Figures, NotRun
from deploy.reliability.rig import Rig, images_of, messages_of
from service.detection.bundle import HISTORY, file_entries, load_bundle, write_bundle

__all__ = ["CHECKS"]

ROOT = Path(__file__).parent.parent.parent


@contextlib.contextmanager
def _checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """A work tree of a revision.

    Raises:
        NotRun: there is no repository, or it has no such revision.
    """
    path = folder / "base"
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        raise NotRun("there is no git repository to take the base from")
    made = subprocess.run(
        [git, "-C", str(ROOT), "worktree", "add", "--detach", str(path), revision], capture_output=True, check=False
    )
    if made.returncode:
        raise NotRun(f"there is no revision {revision} here")
    try:
        yield path
    finally:
        subprocess.run([git, "-C", str(ROOT), "worktree", "remove", "--force", str(path)], check=True)


def _without_history(bundle: Path, path: Path) -> Path:
    """Writes a bundle without the query history's calibration, which the base may not know."""
    manifest = load_bundle(bundle).manifest
    files = {name: (bundle / name).read_bytes() for name in manifest.files if name != HISTORY}
    write_bundle(path, dataclasses.replace(manifest, files=file_entries(files)), files)
    return path


def _measured(rig: Rig, bundle: Path, tree: Path, seconds: float) -> tuple[float, float]:
    """Detect calls a second of the server of a work tree, and its processor time for one, in microseconds."""
    messages = messages_of(images_of(bundle, 64))
    with rig.server(bundle, environment={"PYTHONPATH": str(tree)}, tree=tree) as running:
        run_loop(closed(running.target, messages, callers=32, seconds=0.5))
        used_s = running.cpu_s()
        outcomes = run_loop(closed(running.target, messages, callers=32, seconds=seconds))
        used_s = running.cpu_s() - used_s
    answered = codes(outcomes)["OK"]
    return answered / seconds, 1e6 * used_s / answered


def beside_the_base(rig: Rig) -> Figures:
    """R-25."""
    seconds, pairs = rig.scaled(test=1, quick=3, full=20), rig.scaled(test=1, quick=3, full=15)
    ours, theirs = [], []
    with _checked_out(rig.base, rig.folder) as base:
        bundle = _without_history(rig.bundle, rig.folder / "plain")
        for _ in range(pairs):
            ours.append(_measured(rig, bundle, ROOT, seconds))
            theirs.append(_measured(rig, bundle, base, seconds))
    (rates, cpu_us), (base_rates, base_cpu_us) = np.transpose(ours), np.transpose(theirs)
    return {
        "calls_per_s": float(np.median(rates)),
        "base_calls_per_s": float(np.median(base_rates)),
        "rate_of_base": float(np.median(rates / base_rates)),
        "cpu_us_per_call": float(np.median(cpu_us)),
        "base_cpu_us_per_call": float(np.median(base_cpu_us)),
        "cpu_of_base": float(np.median(cpu_us / base_cpu_us)),
    }


CHECKS = (
    Check(
        number="R-25",
        text="Detect, 32 callers, no query history, beside the server of a base revision, in turns",
        asked={"rate_of_base": ">= 0.9", "cpu_of_base": "<= 1.1"},
        timed=frozenset({"rate_of_base", "cpu_of_base"}),
        run=beside_the_base,
    ),
)
