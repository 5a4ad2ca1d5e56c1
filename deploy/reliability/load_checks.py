"""R-1, R-2, R-3 and R-21: what becomes of calls when there are as many as a server bears, and more."""

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence

import numpy as np

from deploy.reliability.callers import (
    Outcome,
    UnaryMethod,
    capacity,
    channel,
    codes,
    detect_once,
    paced,
    percentile_ms,
    run_loop,
)
from deploy.reliability.check import Check, Figures
from deploy.reliability.process import Serving
from deploy.reliability.rig import Rig, images_of, messages_of
from deploy.reliability.watch import Watch
from service.rpc.convert import SERVICE

__all__ = ["CHECKS"]

OBJECTIVE_MS = 250
"""The latency that R-1 holds the queue against: what a person calls at once."""
SLOW_BATCH = 8
"""For a graph of milliseconds an image: more would gain nothing and make answers wait for their run."""
DEADLINE_S = 1.0
LOOP_LAG_EVERY_S = 0.2
QUEUED_S = 0.2
"""How long R-21's image would wait."""
ROUGH_S = 1.0
"""For which R-21 measures the capacity: of it only follows how many calls to queue, three times as many as it takes."""
SHORT_S = 0.05
"""How long its caller does."""
OF_A_CONNECTION = 100
"""Calls of either kind: of more than the server's streams of a connection, gRPC refuses some."""
ENOUGH_CAME = 10
"""Of R-21's calls, whose messages the server read. On a busy machine their time may pass before that, and they show
nothing then: there are more rounds until so many came."""
MOST_ROUNDS = 20


def _measured_capacity(rig: Rig, running: Serving, messages: Sequence[bytes]) -> float:
    return capacity(running.target, messages, seconds=rig.scaled(test=1, quick=4, full=10))


def steady(rig: Rig) -> Figures:
    """R-1."""
    messages = messages_of(images_of(rig.slow, 64))
    with rig.server(rig.slow, max_batch=SLOW_BATCH, canary_s=LOOP_LAG_EVERY_S) as running:
        most = _measured_capacity(rig, running, messages)
        seconds = rig.scaled(test=2, quick=20, full=600)
        with Watch(lambda: 1000 * running.metrics().total("advsentry_loop_lag_seconds"), LOOP_LAG_EVERY_S) as lag:
            outcomes = run_loop(
                paced(
                    running.target,
                    messages,
                    rate=0.7 * most,
                    seconds=seconds,
                    deadline_s=10,
                    clients=64,
                    reads_queue_ms=True,
                )
            )
    waits_ms = [outcome.queue_ms for outcome in outcomes if outcome.code == "OK"]
    p50, p99 = percentile_ms(outcomes, 50), percentile_ms(outcomes, 99)
    return {
        "capacity_per_s": most,
        "calls": len(outcomes),
        "errors": len(outcomes) - codes(outcomes)["OK"],
        "p50_ms": p50,
        "p99_ms": p99,
        "p99_over_p50": p99 / p50,
        "queue_p99_ms": float(np.percentile(waits_ms, 99)),
        "loop_lag_p99_ms": sorted(lag.seen)[int(0.99 * len(lag.seen))],
    }


def overload(rig: Rig) -> Figures:
    """R-2."""
    messages = messages_of(images_of(rig.slow, 64))
    with rig.server(rig.slow, max_batch=SLOW_BATCH) as running:
        most = _measured_capacity(rig, running, messages)
        resident_mb = running.rss_mb()
        running.forget_peak()
        seconds = rig.scaled(test=2, quick=20, full=300)
        outcomes = run_loop(
            paced(running.target, messages, rate=3 * most, seconds=seconds, deadline_s=DEADLINE_S, clients=16)
        )
        peak_mb = running.peak_mb()
        time.sleep(2)
        normal = run_loop(paced(running.target, messages, rate=0.3 * most, seconds=2, deadline_s=10, clients=4))
    answered = [outcome for outcome in outcomes if outcome.code == "OK"]
    refused = [outcome for outcome in outcomes if outcome.code == "RESOURCE_EXHAUSTED"]
    return {
        "capacity_per_s": most,
        "calls": len(outcomes),
        "refused": len(refused),
        "goodput_of_capacity": len(answered) / seconds / most,
        "otherwise_ended": len(outcomes) - len(answered) - len(refused),
        "refused_without_pushback": sum(not outcome.has_pushback for outcome in refused),
        "refusal_p50_ms": percentile_ms(refused, 50),
        "refusal_p99_ms": percentile_ms(refused, 99),
        "refusal_longest_ms": percentile_ms(refused, 100),
        "accepted_p99_ms": percentile_ms(answered, 99),
        "rss_growth_mb": peak_mb - resident_mb,
        "errors_2_s_later": len(normal) - codes(normal)["OK"],
    }


def burst(rig: Rig) -> Figures:
    """R-3."""
    messages = messages_of(images_of(rig.slow, 64))
    with rig.server(rig.slow, max_batch=SLOW_BATCH) as running:
        most = _measured_capacity(rig, running, messages)
        before = running.metrics()
        outcomes = run_loop(
            paced(
                running.target,
                messages,
                rate=10 * most,
                seconds=rig.scaled(test=1, quick=5, full=5),
                deadline_s=DEADLINE_S,
                clients=16,
            )
        )
        ended = max(outcome.sent_s for outcome in outcomes)
        while running.metrics().total("advsentry_queue_items") > 0:
            time.sleep(0.05)
        empty_s = time.monotonic() - ended
        load = running.metrics().since(before)
    came = load.total("grpc_server_started_total", grpc_method="Detect")
    run, dropped = load.total("advsentry_batch_size_sum"), load.total("advsentry_dropped_total")
    late = [outcome for outcome in outcomes if outcome.code == "OK" and outcome.seconds > DEADLINE_S + 0.05]
    return {
        "calls": len(outcomes),
        "answered": codes(outcomes)["OK"],
        "came_to_the_server": came,
        "images_run": run,
        "images_dropped": dropped,
        "unexplained": came - run - dropped,
        "answered_after_the_deadline": len(late),
        "queue_empty_after_s": empty_s,
    }


def hopeless(rig: Rig) -> Figures:
    """R-21."""
    messages = messages_of(images_of(rig.slow, 64))
    short: list[Outcome] = []
    others: list[Outcome] = []
    with rig.server(rig.slow, max_batch=SLOW_BATCH) as running:
        most = capacity(running.target, messages, seconds=ROUGH_S)
        before = running.metrics()
        waiting = max(32, int(most * 3 * QUEUED_S))
        for _ in range(MOST_ROUNDS):
            hurried, patient = run_loop(
                _behind_others(running.target, messages, waiting, rig.scaled(test=20, quick=50, full=500))
            )
            short += hurried
            others += patient
            _wait_until_idle(running)
            load = running.metrics().since(before)
            read = load.total("grpc_server_msg_received_total", grpc_method="Detect") - len(others)
            came = max(read, load.total("advsentry_dropped_total", reason="overload"))  # refused unread
            if came >= ENOUGH_CAME:
                break
    return {
        "queued_before": waiting,
        "short_calls": len(short),
        "short_calls_that_came": came,
        "short_calls_answered": codes(short)["OK"],
        "short_calls_otherwise_ended": len(short)
        - codes(short)["DEADLINE_EXCEEDED"]
        - codes(short)["RESOURCE_EXHAUSTED"],
        "others_failed": len(others) - codes(others)["OK"],
        "images_run_for_short_calls": load.total("advsentry_batch_size_sum") - len(others),
    }


def _wait_until_idle(running: Serving) -> None:
    """Until nothing is queued or runs: what nobody waits for any more would be run last."""
    while sum(running.metrics().total(f"advsentry_{name}") for name in ("queue_items", "inflight")):
        time.sleep(0.02)


async def _behind_others(
    target: str, messages: Sequence[bytes], waiting: int, short: int
) -> tuple[list[Outcome], list[Outcome]]:
    """Calls that will not wait, sent while as many others are queued as keep the graph busy for longer."""
    async with contextlib.AsyncExitStack() as stack:
        methods: list[list[UnaryMethod]] = [[], []]
        for calls, kind in zip((waiting, short), methods, strict=True):
            for _ in range(math.ceil(calls / OF_A_CONNECTION)):
                made = await stack.enter_async_context(channel(target))
                await made.channel_ready()
                kind.append(made.unary_unary(f"/{SERVICE}/Detect"))
        patiently, hurriedly = methods
        patient = [
            asyncio.create_task(detect_once(patiently[i % len(patiently)], messages[i % len(messages)], 30))
            for i in range(waiting)
        ]
        await asyncio.sleep(QUEUED_S / 2)
        hurried = [
            asyncio.create_task(detect_once(hurriedly[i % len(hurriedly)], messages[0], SHORT_S)) for i in range(short)
        ]
        return await asyncio.gather(*hurried), await asyncio.gather(*patient)


CHECKS = (
    Check(
        number="R-1",
        text="Detect calls at 70 % of measured capacity, 64 connections, Poisson arrivals; latency objective "
        f"{OBJECTIVE_MS} ms",
        asked={
            "errors": "= 0",
            "p99_over_p50": "<= 5",
            "queue_p99_ms": f"<= {0.25 * OBJECTIVE_MS:g}",
            "loop_lag_p99_ms": "<= 20",
        },
        timed=frozenset({"p99_over_p50", "queue_p99_ms", "loop_lag_p99_ms"}),
        run=steady,
    ),
    Check(
        number="R-2",
        text="Detect calls at 3 times the capacity, deadline 1 s",
        asked={
            "goodput_of_capacity": ">= 0.9",
            "otherwise_ended": "= 0",
            "refused_without_pushback": "= 0",
            "refusal_longest_ms": "<= 50",
            "accepted_p99_ms": "<= 1000",
            "rss_growth_mb": "<= 100",
            "errors_2_s_later": "= 0",
        },
        timed=frozenset({"goodput_of_capacity", "refusal_longest_ms", "accepted_p99_ms", "otherwise_ended"}),
        run=overload,
    ),
    Check(
        number="R-3",
        text="a burst of 10 times the capacity for 5 s, deadline 1 s",
        asked={"unexplained": "= 0", "answered_after_the_deadline": "= 0", "queue_empty_after_s": "<= 3"},
        timed=frozenset({"queue_empty_after_s"}),
        run=burst,
    ),
    Check(
        number="R-21",
        text="calls with a deadline of 50 ms behind a queue of 200 ms and more",
        asked={
            "short_calls_that_came": f">= {ENOUGH_CAME}",
            "short_calls_answered": "= 0",
            "short_calls_otherwise_ended": "= 0",
            "others_failed": "= 0",
            "images_run_for_short_calls": "= 0",
        },
        run=hopeless,
        is_quick=True,
    ),
)
