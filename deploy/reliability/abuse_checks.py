"""R-8: callers who hold on to a server or flood it, while others want their answers."""

import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.reliability.attackers import KINDS
from deploy.reliability.callers import Outcome, codes, paced, percentile_ms, run_loop
from deploy.reliability.check import Check, Figures
from deploy.reliability.process import Serving
from deploy.reliability.rig import Rig, images_of, messages_of

__all__ = ["CHECKS"]

RATE = 100
"""Calls a second of those who want answers."""
HANDSHAKE_S = 10
"""What a connection gets to say its greeting; see service/rpc/server.py."""
MUST_CLOSE = ("idle", "slow", "pings")
"""Whose connections the server must hang up by then; the others are calls as any."""
BRIEF_S = 6
"""How long an attack lasts that waits for nothing."""
GONE_S = 5
NICE = 10
"""Attackers share the clients' core with those who are timed: they are not to wait for that core."""


def _attack(kind: str, running: Serving, seconds: float) -> tuple[int, int]:
    """Connections that were made, and that the server closed."""
    program = Path(__file__).parent / "attackers.py"
    done = subprocess.run(
        ["nice", "-n", str(NICE), sys.executable, str(program), kind, running.target, str(seconds)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    made, closed = done.stdout.split()
    return int(made), int(closed)


def _wanting(running: Serving, messages: list[bytes], seconds: float, seed: int) -> list[Outcome]:
    return run_loop(paced(running.target, messages, rate=RATE, seconds=seconds, deadline_s=10, clients=8, seed=seed))


def abused(rig: Rig) -> Figures:
    """R-8."""
    messages = messages_of(images_of(rig.bundle, 16))
    seconds = rig.scaled(test=HANDSHAKE_S + 3, quick=HANDSHAKE_S + 3, full=60)
    pings_s = rig.scaled(test=BRIEF_S, quick=BRIEF_S, full=60)  # hung up at the third; no greeting is waited for
    lasting = {"idle": seconds, "slow": seconds, "pings": pings_s}
    figures: dict[str, float] = {}
    failed = left_open = 0
    calmest = math.inf
    with rig.server() as running, ThreadPoolExecutor(1) as pool:
        _wanting(running, messages, 1, 0)
        before = running.descriptors()
        kinds = ("idle",) if rig.scaled(test=1, quick=0, full=0) else tuple(KINDS)
        for seed, kind in enumerate(kinds, start=2):
            lasts = lasting.get(kind, BRIEF_S)
            calm = percentile_ms(_wanting(running, messages, 3, -seed), 99)  # each anew: the machine may have changed
            calmest = min(calm, calmest)
            attack = pool.submit(_attack, kind, running, lasts)
            outcomes = _wanting(running, messages, lasts - 1, seed)
            made, closed = attack.result()
            failed += len(outcomes) - codes(outcomes)["OK"]
            figures[f"{kind}_p99_of_calm"] = percentile_ms(outcomes, 99) / calm
            if kind in MUST_CLOSE:
                left_open += made - closed
        gone = time.monotonic() + GONE_S
        while running.descriptors() > before and time.monotonic() < gone:
            time.sleep(0.1)
        leaked = running.descriptors() - before
        logged = running.errors_logged()
    return {
        "calm_p99_ms": calmest,
        **figures,
        "worst_p99_of_calm": max(figures.values()),
        "failed": failed,
        "connections_left_open": left_open,
        "descriptors_leaked": leaked,
        "errors_logged": logged,
    }


CHECKS = (
    Check(
        number="R-8",
        text="1 000 idle connections, greetings of a byte a second, calls reset at once, pings without end, streams "
        "that never go on; beside 100 calls a second of others",
        asked={
            "worst_p99_of_calm": "<= 2",
            "failed": "= 0",
            "connections_left_open": "= 0",
            "descriptors_leaked": "<= 5",
            "errors_logged": "= 0",
        },
        timed=frozenset({"worst_p99_of_calm"}),
        run=abused,
    ),
)
