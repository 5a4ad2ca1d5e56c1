"""R-12 and R-20: processes that die and bundles that change, under load."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from deploy.reliability.callers import channel, closed, codes, run_loop
from deploy.reliability.check import Check, Figures, NotRun
from deploy.reliability.process import Serving
from deploy.reliability.rig import Rig, images_of, messages_of
from protos import detection_pb2 as pb
from service.client import Client
from service.detection.bundle import load_bundle, write_bundle
from service.rpc.convert import SERVICE
from service.settings import setting_fields

__all__ = ["CHECKS"]

WORKERS = 2
CHANNELS = 8
PATIENCE_S = 20.0


def _needs(*settings: str) -> None:
    if missing := set(settings) - setting_fields().keys():
        raise NotRun(f"this server has no setting {', '.join(sorted(missing))}")


def _children(pid: int) -> list[int]:
    """Processes that a process has started and that are there, dead ones that nobody asked after among them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]


def _serves(pid: int) -> bool:
    """Whether a process runs the service, which has threads; helpers of Python's own have none."""
    return len(os.listdir(f"/proc/{pid}/task")) > 1


def _is_dead(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    return False


def _all_serve(running: Serving) -> bool:
    return running.metrics().total("advsentry_processes", state="serving") == WORKERS


async def _calls(target: str, messages: list[bytes], ended: threading.Event) -> list[Counter[str]]:
    """Statuses by channel, each on a connection of its own."""

    async def caller(found: Counter[str]) -> None:
        async with channel(target) as made:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = made.unary_unary(f"/{SERVICE}/Detect")
            while not ended.is_set():
                try:
                    await method(messages[found.total() % len(messages)], timeout=PATIENCE_S)
                    found["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    found[error.code().name] += 1
                    await asyncio.sleep(0.02)

    counts: list[Counter[str]] = [Counter() for _ in range(CHANNELS)]
    await asyncio.gather(*map(caller, counts))
    return counts


@contextlib.contextmanager
def _under_load(rig: Rig, running: Serving) -> Iterator[list[Counter[str]]]:
    """Statuses by channel, complete when it ends."""
    counts: list[Counter[str]] = []
    ended = threading.Event()
    messages = messages_of(images_of(rig.bundle, 16))
    thread = threading.Thread(target=lambda: counts.extend(run_loop(_calls(running.target, messages, ended))))
    thread.start()
    try:
        time.sleep(0.5)
        yield counts
        time.sleep(0.5)
    finally:
        ended.set()
        thread.join(PATIENCE_S + 10)


def killed(rig: Rig) -> Figures:
    """R-12."""
    _needs("workers")
    back_s, zombies, untouched, otherwise, hit = [], 0, CHANNELS, 0, 0
    with rig.server(workers=WORKERS, threads=1) as running:
        supervisor = running.process.pid
        for _ in range(rig.scaled(test=1, quick=3, full=20)):
            while not _all_serve(running):
                time.sleep(0.02)
            before = [pid for pid in _children(supervisor) if _serves(pid)]
            with _under_load(rig, running) as counts:
                os.kill(before[0], signal.SIGKILL)
                begun = time.monotonic()
                while _all_serve(running):  # it is not noticed yet
                    time.sleep(0.002)
                while time.monotonic() - begun < PATIENCE_S and not _all_serve(running):
                    time.sleep(0.02)
                back_s.append(time.monotonic() - begun)
            zombies += sum(map(_is_dead, _children(supervisor)))
            untouched = min(untouched, sum(set(found) == {"OK"} for found in counts))
            hit = max(hit, max(found["UNAVAILABLE"] for found in counts))
            otherwise += sum(found.total() - found["OK"] - found["UNAVAILABLE"] for found in counts)
        status = running.terminate(60)
    return {
        "kills": len(back_s),
        "back_after_s": max(back_s),
        "zombies": zombies,
        "connections_untouched_at_least": untouched,
        "unavailable_on_one_connection_at_most": hit,
        "otherwise_ended": otherwise,
        "exit_status": status,
    }


def _reload(running: Serving) -> int:
    command = [sys.executable, "-m", "service", "reload", "--admin", f"http://{running.metrics_address}"]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode


def _put(source: Path, path: Path, version: str) -> None:
    """Writes a bundle with another version over what is there."""
    loaded = load_bundle(source)
    files = {name: (source / name).read_bytes() for name in loaded.manifest.files}
    write_bundle(path, dataclasses.replace(loaded.manifest, version=version), files, replace=path.exists())


def _version(target: str, message: bytes) -> str:
    with grpc.insecure_channel(target) as made:
        method: Any = made.unary_unary(f"/{SERVICE}/Detect", response_deserializer=pb.DetectResponse.FromString)
        return str(method(message, timeout=PATIENCE_S).meta.model_version)


def reloaded(rig: Rig) -> Figures:
    """R-20."""
    _needs("admin")
    path = rig.folder / "reloaded"
    shutil.rmtree(path, ignore_errors=True)
    _put(rig.bundle, path, "1")
    message = messages_of(images_of(rig.bundle, 1))[0]
    failed = wrong = 0
    resident = []
    with rig.server(path, admin="on") as running:
        run_loop(closed(running.target, [message], callers=8, seconds=1))
        with _under_load(rig, running) as counts:
            for number in range(rig.scaled(test=2, quick=10, full=100)):
                _put(rig.bundle, path, f"{number + 2}")
                failed += _reload(running) != 0
                wrong += _version(running.target, message) != f"{number + 2}"
                resident.append(running.rss_mb())
        again = run_loop(closed(running.target, [message], callers=1, seconds=0.5))
        with Client(running.target) as client:
            unwell = not client.is_serving()
    total = sum(counts, Counter())
    return {
        "reloads": len(resident),
        "reloads_failed": failed,
        "calls": total.total(),
        "errors": total.total() - total["OK"] + len(again) - codes(again)["OK"],
        "wrong_version": wrong,
        "rss_growth_mb": resident[-1] - resident[0],
        "not_serving_afterwards": float(unwell),
    }


CHECKS = (
    Check(
        number="R-12",
        text=f"kill -9 of one of {WORKERS} processes under load",
        asked={
            "back_after_s": "<= 5",
            "zombies": "= 0",
            "connections_untouched_at_least": ">= 1",
            "otherwise_ended": "= 0",
            "exit_status": "= 0",
        },
        timed=frozenset({"back_after_s", "connections_untouched_at_least"}),
        run=killed,
    ),
    Check(
        number="R-20",
        text="a new version of the bundle, again and again, under load",
        asked={
            "reloads_failed": "= 0",
            "errors": "= 0",
            "wrong_version": "= 0",
            "rss_growth_mb": "<= 20",
            "not_serving_afterwards": "= 0",
        },
        run=reloaded,
        is_quick=True,
    ),
)
