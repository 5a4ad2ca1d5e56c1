"""R-13, R-14 and R-24: faults of the graph, of the machine and of the installation."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from deploy.reliability.callers import Outcome, closed, codes, run_loop
from deploy.reliability.check import Check, Figures, NotRun
from deploy.reliability.inject import command
from deploy.reliability.process import Serving
from deploy.reliability.rig import Rig, images_of, messages_of
from service.client import Client

__all__ = ["CHECKS"]

STUCK_S = 1.0
CANARY_S = 0.5
CLOCK = Path(__file__).parent / "clock.c"


def _until(client: Client, serving: bool, most_s: float) -> float:
    """Seconds until health says so; `most_s` when it does not."""
    begun = time.monotonic()
    while (took := time.monotonic() - begun) < most_s:
        if client.is_serving() == serving:
            return took
        time.sleep(0.02)
    return most_s


def _with_fault(rig: Rig, fault: str) -> dict[str, float]:
    """What becomes of calls and of health while the graph has a fault, and after it."""
    marker = rig.folder / f"fault-{fault}"
    messages = messages_of(images_of(rig.bundle, 16))
    outcomes: list[Outcome] = []
    patience_s = rig.scaled(test=4, quick=20, full=60)  # a call that takes longer hangs
    with (
        rig.server(command=command(fault, marker), stuck_s=STUCK_S, canary_s=CANARY_S) as running,
        Client(running.target) as client,
    ):
        calling = threading.Thread(
            target=lambda: outcomes.extend(
                run_loop(closed(running.target, messages, callers=8, seconds=3 * STUCK_S, deadline_s=patience_s))
            )
        )
        try:
            marker.touch()
            calling.start()
            noticed_s = _until(client, False, patience_s)
            calling.join(patience_s + 5)
            hung = float(calling.is_alive())
        finally:
            marker.unlink()
        back_s = _until(client, True, patience_s)
        calling.join(patience_s)
        again = run_loop(closed(running.target, messages, callers=1, seconds=0.2, deadline_s=patience_s))
    counts = codes(outcomes)
    return {
        "noticed_s": noticed_s,
        "calls": len(outcomes),
        "hung": hung + counts["DEADLINE_EXCEEDED"],
        "unavailable": counts["UNAVAILABLE"],
        "internal": counts["INTERNAL"],
        "otherwise_ended": len(outcomes) - counts["UNAVAILABLE"] - counts["INTERNAL"] - counts["DEADLINE_EXCEEDED"],
        "serving_again_s": back_s,
        "errors_afterwards": len(again) - codes(again)["OK"],
    }


def faults(rig: Rig) -> Figures:
    """R-13."""
    found = {fault: _with_fault(rig, fault) for fault in ("stuck", "onnxruntime", "cuda")}
    figures = {f"{fault}_{name}": value for fault, of in found.items() for name, value in of.items()}
    limits = {"stuck": STUCK_S, "onnxruntime": CANARY_S, "cuda": CANARY_S}
    return {
        **{name: value for name, value in figures.items() if not name.endswith("_errors_afterwards")},
        "noticed_of_the_limit": max(of["noticed_s"] / limits[fault] for fault, of in found.items()),
        "stuck_not_unavailable": found["stuck"]["calls"] - found["stuck"]["unavailable"],
        "hung": sum(of["hung"] for of in found.values()),
        "otherwise_ended": sum(of["otherwise_ended"] for of in found.values()),
        "slowest_back_s": max(of["serving_again_s"] for of in found.values()),
        "errors_afterwards": sum(of["errors_afterwards"] for of in found.values()),
    }


def _calls_fail(rig: Rig, running: Serving, count: int = 50) -> int:
    """Calls of a few that fail, and 1 more when the server is not well."""
    messages = messages_of(images_of(rig.bundle, 16))
    outcomes = run_loop(closed(running.target, messages, callers=4, seconds=count / 100, deadline_s=20))
    with Client(running.target) as client:
        return len(outcomes) - codes(outcomes)["OK"] + (not client.is_serving())


def _disk_full(rig: Rig) -> int:
    """The log goes to a device that has no room."""
    with rig.server(log=Path("/dev/full"), log_level="debug", canary_s=CANARY_S) as running:
        return _calls_fail(rig, running)


def _nothing_to_write_in(rig: Rig) -> int:
    """Temporary files, home and working folder cannot be written: /proc is read-only for everybody."""
    environment = {"TMPDIR": "/proc", "HOME": "/proc", "XDG_CACHE_HOME": "/proc"}
    with rig.server(environment=environment) as running:
        return _calls_fail(rig, running)


def _no_metrics_folder(rig: Rig) -> int:
    """The folder of prometheus_client's several-process mode does not exist."""
    with rig.server(environment={"PROMETHEUS_MULTIPROC_DIR": str(rig.folder / "absent")}) as running:
        return _calls_fail(rig, running)


def _no_names(rig: Rig) -> int:
    marker = rig.folder / "fault-dns"
    with rig.server(command=command("dns", marker), canary_s=CANARY_S) as running:
        marker.touch()
        return _calls_fail(rig, running, 200)


def _jumping_clock(rig: Rig) -> tuple[int, float]:
    """Calls that fail, and how far the server's clock was from ours, in seconds."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotRun("the jumping clock is written in C, and there is no cc")
    marker, library = rig.folder / "clock-jumps", rig.folder / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(CLOCK), "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "JUMP_MARKER": str(marker)}
    with rig.server(environment=environment, canary_s=CANARY_S) as running:
        marker.touch()
        failed = _calls_fail(rig, running, rig.scaled(test=150, quick=400, full=6000))
        told = running.metrics().total("advsentry_canary_last_success_timestamp_seconds")
        return failed, abs(told - time.time())


def poor_machine(rig: Rig) -> Figures:
    """R-14."""
    failed, off_s = _jumping_clock(rig)
    return {
        "failed_with_a_full_disk": _disk_full(rig),
        "failed_with_nothing_to_write_in": _nothing_to_write_in(rig),
        "failed_without_a_metrics_folder": _no_metrics_folder(rig),
        "failed_while_the_clock_jumps": failed,
        "clock_off_s": off_s,
        "failed_without_names": _no_names(rig),
    }


@contextlib.contextmanager
def _both_wheels() -> Iterator[dict[str, str]]:
    """An environment in which both onnxruntime packages seem to be installed."""
    folder = Path(tempfile.mkdtemp())
    try:
        for name in ("onnxruntime", "onnxruntime-gpu"):
            info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        yield {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    finally:
        shutil.rmtree(folder)


def _refusal(rig: Rig, environment: dict[str, str], *flags: str) -> tuple[int, int, bool]:
    """Exit status, lines on standard error, and whether they name their reason."""
    arguments = [*rig.command, "serve", "--bundle", str(rig.bundle), "--port", "0", "--metrics-port", "0", *flags]
    done = subprocess.run(
        arguments, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, len(done.stderr.splitlines()), "advsentry: error:" in done.stderr


def refusals(rig: Rig) -> Figures:
    """R-24."""
    with _both_wheels() as environment:
        wheels = _refusal(rig, environment)
    cuda = _refusal(rig, {"CUDA_VISIBLE_DEVICES": ""}, "--device", "cuda")
    return {
        "both_wheels_exit_status": wheels[0],
        "both_wheels_lines": wheels[1],
        "cuda_absent_exit_status": cuda[0],
        "cuda_absent_lines": cuda[1],
        "without_a_reason": 2 - wheels[2] - cuda[2],
    }


CHECKS = (
    Check(
        number="R-13",
        text=f"a graph that does not come back (watchdog {STUCK_S:g} s), onnxruntime and CUDA errors on every run "
        f"(canary every {CANARY_S:g} s), planted",
        asked={
            "noticed_of_the_limit": "<= 2",
            "stuck_not_unavailable": "= 0",
            "hung": "= 0",
            "otherwise_ended": "= 0",
            "slowest_back_s": "<= 5",
            "errors_afterwards": "= 0",
        },
        timed=frozenset({"noticed_of_the_limit", "slowest_back_s"}),
        run=faults,
        is_quick=True,
    ),
    Check(
        number="R-14",
        text="log on a full disk, nothing to write in, no folder for metrics, a wall clock that jumps by an hour, no "
        "names",
        asked={
            "failed_with_a_full_disk": "= 0",
            "failed_with_nothing_to_write_in": "= 0",
            "failed_without_a_metrics_folder": "= 0",
            "failed_while_the_clock_jumps": "= 0",
            "clock_off_s": ">= 3000",
            "failed_without_names": "= 0",
        },
        run=poor_machine,
        is_quick=True,
    ),
    Check(
        number="R-24",
        text="both onnxruntime packages; CUDA asked for but absent",
        asked={
            "both_wheels_exit_status": "= 1",
            "both_wheels_lines": "= 1",
            "cuda_absent_exit_status": "= 1",
            "cuda_absent_lines": "= 1",
            "without_a_reason": "= 0",
        },
        run=refusals,
        is_quick=True,
    ),
)
