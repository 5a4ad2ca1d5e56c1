"""R-11 and R-15: ends and beginnings."""

import contextlib
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import numpy as np
from grpc_health.v1 import health_pb2

from deploy.reliability.check import Check, Figures
from deploy.reliability.process import Serving
from deploy.reliability.rig import BARE, Rig, images_of, messages_of
from service.client import Client
from service.detection.types import Bytes8
from service.rpc.convert import SERVICE

__all__ = ["CHECKS"]

LAME_DUCK_S = 0.5
DRAIN_S = 10.0
GRACE_S = LAME_DUCK_S + DRAIN_S + 5
_ENDING: Final[dict[str, Any]] = {
    "lame_duck_s": LAME_DUCK_S,
    "drain_s": DRAIN_S,
    "environment": {"PYTHONFAULTHANDLER": "1"},  # so that one that outlives its grace says where it hangs
}
CALLERS = 4
STEADY_PAUSE_S = 0.05
"""Between the calls that the first one is compared with: it comes when nobody has called for about as long, and meets
caches that others have filled and threads that sleep, as each of these does. Calls one right after the other find
everything at hand."""


class NeverEnds(Exception):
    """A server does not end after SIGTERM; its text has the stacks of its threads."""


class _Watched:
    """A server as a client knows it that honours health: Watch says whether to go there."""

    def __init__(self, running: Serving) -> None:
        self.running = running
        self.channel = grpc.insecure_channel(running.target, options=[("grpc.use_local_subchannel_pool", 1)])
        self.detect: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/{SERVICE}/Detect")
        self.is_serving = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        watch: grpc.UnaryStreamMultiCallable[bytes, health_pb2.HealthCheckResponse] = self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        with contextlib.suppress(grpc.RpcError):
            for status in watch(health_pb2.HealthCheckRequest(service="ready").SerializeToString()):
                if status.status == health_pb2.HealthCheckResponse.SERVING:
                    self.is_serving.set()
                else:
                    self.is_serving.clear()
        self.is_serving.clear()


@dataclass(kw_only=True)
class _Calls:
    """What several callers met."""

    codes: Counter[str] = field(default_factory=Counter)
    lost_in_flight: int = 0
    """Sent while the server was still there to take them, and not answered."""


def _call_for_ever(
    choose: Callable[[], _Watched | None], messages: Sequence[bytes], found: _Calls, ended: threading.Event
) -> None:
    number = 0
    while not ended.is_set():
        chosen = choose()
        if chosen is None:
            time.sleep(0.005)
            continue
        number += 1
        has_process = chosen.running.process.poll() is None and chosen.is_serving.is_set()
        try:
            chosen.detect(messages[number % len(messages)], timeout=20)
            found.codes["OK"] += 1
        except grpc.RpcError as error:
            found.codes[error.code().name] += 1
            found.lost_in_flight += has_process


@contextlib.contextmanager
def _callers(choose: Callable[[], _Watched | None], messages: Sequence[bytes]) -> Iterator[_Calls]:
    found, ended = _Calls(), threading.Event()
    threads = [
        threading.Thread(target=_call_for_ever, args=(choose, messages, found, ended), daemon=True)
        for _ in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


def _end(running: Serving) -> int:
    """Sends SIGTERM and gives the exit status.

    Raises:
        NeverEnds: it outlived its grace.
    """
    try:
        return running.terminate(GRACE_S)
    except subprocess.TimeoutExpired:
        running.process.send_signal(signal.SIGABRT)
        running.process.wait(10)
        raise NeverEnds(f"a server outlived its grace of {GRACE_S:g} s:\n{running.log[-4000:]}") from None


def _rolling(rig: Rig, restarts: int) -> tuple[_Calls, Counter[int]]:
    """A new server beside the old one, then the old one's end; callers go where health says SERVING."""
    known: list[_Watched] = []
    statuses: Counter[int] = Counter()

    def choose() -> _Watched | None:
        return next((one for one in reversed(known) if one.is_serving.is_set()), None)

    messages = messages_of(images_of(rig.bundle, 16))
    with contextlib.ExitStack() as servers, _callers(choose, messages) as found:
        for _ in range(restarts + 1):
            running = servers.enter_context(rig.server(**_ENDING))
            made = _Watched(running)
            made.is_serving.wait(20)
            known.append(made)
            if len(known) > 1:
                old = known[-2]
                statuses[_end(old.running)] += 1
                old.channel.close()
                known.remove(old)
    return found, statuses


def _abrupt(rig: Rig, restarts: int, command: tuple[str, ...] | None = None) -> tuple[Counter[str], int, Counter[int]]:
    """Callers who do not ask: statuses, calls that a serving server took and did not answer, exit statuses.

    Args:
        command: of a server without health; the rig's when None.
    """
    messages = messages_of(images_of(rig.bundle, 16))
    total: Counter[str] = Counter()
    lost = 0
    statuses: Counter[int] = Counter()
    for _ in range(restarts):
        with rig.server(command=command, **_ENDING) as running:
            made = _Watched(running)
            grpc.channel_ready_future(made.channel).result(20)
            if command is None:
                made.is_serving.wait(20)
            with _callers(lambda made=made: made, messages) as found:  # type: ignore[misc]
                time.sleep(0.3)
                statuses[_end(running)] += 1
            made.channel.close()
            total += found.codes
            lost += found.lost_in_flight
    return total, lost, statuses


def _second_signal(rig: Rig) -> tuple[int, float]:
    """Exit status and seconds until it came."""
    with rig.server(lame_duck_s=30) as running:
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        begun = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        return running.process.wait(20), time.monotonic() - begun


def restarts(rig: Rig) -> Figures:
    """R-11."""
    count, without = rig.scaled(test=2, quick=12, full=200), rig.scaled(test=1, quick=5, full=50)
    honouring, statuses = _rolling(rig, count)
    codes, lost, abrupt_statuses = _abrupt(rig, without)
    control, _, _ = _abrupt(rig, without, BARE)
    second_status, second_s = _second_signal(rig)
    ends = statuses + abrupt_statuses
    return {
        "restarts": count,
        "calls": honouring.codes.total(),
        "failed": honouring.codes.total() - honouring.codes["OK"],
        "restarts_without_health": without,
        "calls_without_health": codes.total(),
        "lost_in_flight": lost,
        "cancelled_by_grpc": codes["CANCELLED"],
        "control_cancelled_by_grpc": control["CANCELLED"],
        "otherwise_ended": codes.total() - codes["OK"] - codes["UNAVAILABLE"] - codes["CANCELLED"],
        "exit_statuses_not_0": ends.total() - ends[0],
        "second_signal_exit_status": second_status,
        "second_signal_s": second_s,
    }


def _timed(running: Serving, client: Client, image: Bytes8) -> tuple[float, float]:
    """Seconds of one call, and of the server's processors for it."""
    cpu_s, called = running.cpu_s(), time.perf_counter()
    client.detect(image)
    seconds = time.perf_counter() - called
    return seconds, running.cpu_s() - cpu_s


def _after_pauses(running: Serving, client: Client, images: Bytes8) -> list[tuple[float, float]]:
    """As `_timed`, each call as the first one is made: nobody has called for a while, then health says SERVING."""
    calls = []
    for image in images:
        time.sleep(STEADY_PAUSE_S)
        client.is_serving()
        calls.append(_timed(running, client, image))
    return calls


def cold_start(rig: Rig) -> Figures:
    """R-15."""
    starts, firsts, steady, busy = [], [], [], []
    images = images_of(rig.bundle, rig.scaled(test=16, quick=48, full=128))
    for _ in range(rig.scaled(test=1, quick=6, full=20)):
        begun = time.monotonic()
        with rig.server() as running, Client(running.target) as client:
            while not client.is_serving():
                time.sleep(0.005)
            starts.append(time.monotonic() - begun)
            firsts.append(_timed(running, client, images[0]))
            without_pauses = [_timed(running, client, image) for _ in range(3) for image in images]
            busy.append(np.median(without_pauses[len(images) :], axis=0))
            steady.append(np.median(_after_pauses(running, client, images), axis=0))
    (first, first_cpu), (first_of_busy, _) = (
        np.median(np.divide(firsts, others), axis=0).tolist() for others in (steady, busy)
    )
    return {
        "starts": len(starts),
        "serving_after_s": float(np.median(starts[1:] or starts)),  # the first filled the page cache
        "slowest_start_s": max(starts),
        "first_call_of_steady": first,
        "first_call_cpu_of_steady": first_cpu,
        "first_call_of_busy": first_of_busy,
    }


CHECKS = (
    Check(
        number="R-11",
        text=f"SIGTERM under load (lame duck {LAME_DUCK_S:g} s): rolling restarts with callers who honour health, "
        "restarts with callers who do not, also of gRPC without the service (control), a second signal",
        asked={
            "failed": "= 0",
            "lost_in_flight": "= 0",
            "cancelled_by_grpc": "= 0",
            "otherwise_ended": "= 0",
            "exit_statuses_not_0": "= 0",
            "second_signal_exit_status": "= 1",
            "second_signal_s": "<= 1",
        },
        timed=frozenset({"second_signal_s", "cancelled_by_grpc"}),
        run=restarts,
        is_quick=True,
    ),
    Check(
        number="R-15",
        text="start to SERVING with the model in the page cache, and the first call beside later ones that come one by "
        "one, in time and in the server's processor time; and beside calls without a pause (busy)",
        asked={"serving_after_s": "<= 2", "first_call_of_steady": "<= 1.5", "first_call_cpu_of_steady": "<= 1.5"},
        timed=frozenset({"serving_after_s", "first_call_of_steady"}),
        run=cold_start,
    ),
)
