"""R-22: what others have of a server while one caller sends as much as it can."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from deploy.reliability.callers import codes, paced, percentile_ms, run_loop
from deploy.reliability.check import Check, Figures
from deploy.reliability.rig import Rig, images_of, messages_of
from service.rpc.call import Scope
from service.tokens import new_token

__all__ = ["CHECKS"]

RATE = 20
"""Calls a second of the modest one."""
AFTER_S = 0.5
"""For which the greedy one goes on when the others were timed."""
FIRST_S = 1
"""Of calls that nobody counts: the server's and the client's first ones are slower."""


@contextlib.contextmanager
def _greedy(kind: str, rig: Rig, target: str, token: str, seconds: float, images: list[int]) -> Iterator[None]:
    """A greedy caller in a process of its own; adds how many images it sent."""
    command = [sys.executable, "-m", "deploy.reliability.greedy", kind, target, token, str(rig.bundle)]
    with subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(AFTER_S)
            yield
            images.append(int(process.stdout.readline()))
        finally:
            process.kill()


def fairness(rig: Rig) -> Figures:
    """R-22."""
    rounds, seconds = rig.scaled(test=1, quick=3, full=20), rig.scaled(test=1, quick=4, full=15)
    greedy, modest = new_token("greedy", [Scope.DETECT]), new_token("modest", [Scope.DETECT])
    identities = rig.folder / "fairness.toml"
    identities.write_text(greedy.entry + modest.entry, encoding="utf-8")
    messages = messages_of(images_of(rig.bundle, 16))
    metadata = (("authorization", f"Bearer {modest.token}"),)
    p99_ms: dict[str, list[float]] = {name: [] for name in ("alone", "unary", "stream")}
    times: dict[str, list[float]] = {"unary": [], "stream": []}
    failed = 0
    with rig.server(identities=identities) as running:

        def timed(kind: str, seed: int, seconds: float = seconds) -> int:
            outcomes = run_loop(
                paced(
                    running.target,
                    messages,
                    rate=RATE,
                    seconds=seconds,
                    deadline_s=10,
                    clients=2,
                    seed=seed,
                    metadata=metadata,
                )
            )
            p99_ms[kind].append(percentile_ms(outcomes, 99))
            return len(outcomes) - codes(outcomes)["OK"]

        timed("alone", -1, FIRST_S)
        p99_ms["alone"].clear()
        for number in range(rounds):
            failed += timed("alone", number)
            for kind, found in times.items():
                images: list[int] = []
                lasts = seconds + 2 * AFTER_S
                with _greedy(kind, rig, running.target, greedy.token, lasts, images):
                    failed += timed(kind, number)
                found.append(images[0] / lasts / RATE)
    medians = {name: float(np.median(found)) for name, found in p99_ms.items()}
    return {
        **{f"{kind}_times_the_traffic": float(np.median(found)) for kind, found in times.items()},
        **{f"{name}_p99_ms": value for name, value in medians.items()},
        **{f"{kind}_p99_of_alone": medians[kind] / medians["alone"] for kind in times},
        "failed": failed,
    }


CHECKS = (
    Check(
        number="R-22",
        text=f"{RATE} calls a second of one caller, alone and beside another, in a process of its own, who always has "
        "32 calls or 4 full streams under way; medians of rounds in turns",
        asked={"unary_p99_of_alone": "<= 2", "stream_p99_of_alone": "<= 2", "failed": "= 0"},
        timed=frozenset({"unary_p99_of_alone", "stream_p99_of_alone"}),
        run=fairness,
    ),
)
