"""`make bench-serving`: our service, the bare onnxruntime session and the model servers of others, in one run.

Each server has one core and runs its graph on one thread; the client has another core. All are up at once and loaded
one after the other, in rounds, so that what else happens on the machine falls on each alike; a ratio is the median of
the rounds' ratios. The peers serve the same file of the graph and answer with what it gives; ours calibrates, judges
and hides besides.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import grpc

from deploy.bench import Bare, bare_elsewhere, random_images
from deploy.bench_serving_figures import Figures, Tried, table
from deploy.load import Load, Unary, batch_calls, detect_calls, stream_load, unary_load
from deploy.open_loop import Arrivals, OpenLoad, arrivals, highest_rate, open_load
from deploy.result_file import write_result
from deploy.server_process import Server, echoing, server
from deploy.serving_peers.oip import infer_calls
from deploy.serving_peers.systems import KSERVE, MLSERVER, Peer, is_installed, peer
from service.detection.bundle import Bundle, find_bundle, load_bundle
from service.detection.types import Bytes8
from service.errors import AdvsentryError, SetupError

DEFAULTS = ("gtsrb", "mnist", "digits")
PEERS = ("mlserver", "kserve")
SEED = 0
IN_FLIGHT = 32
BATCHES_IN_FLIGHT = 2
WARM_UP_S = 0.5
ARRIVALS: tuple[Arrivals, ...] = ("constant", "poisson")
SHARE = 0.7
"""Of the closed loop's rate: where the tail is looked at."""
MOST = 1.3
"""Times the closed loop's rate: no open loop gets there."""
PROBES = 7
LEAST_BATCH = 16
"""Smaller ones cost our handlers more than they save the graph."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured how long."""

    seconds: float
    """For each load."""
    rounds: int
    objective_ms: float
    max_batch: int | None
    """Of our server; None for the size at which the bare session is fastest, as `advsentry tune` would find it."""
    peers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to call a server that is up."""

    text: str
    server: Server
    load: Callable[[float], Load]
    """In a closed loop, for so many seconds."""
    calls: Unary | None = None
    """None where calls are not single images."""


def main() -> int:
    """Runs the benchmark; gives the exit status."""
    options = _options()
    plan = Plan(
        seconds=options.seconds,
        rounds=options.rounds,
        objective_ms=options.objective_ms,
        max_batch=options.max_batch,
        peers=() if options.no_peers else _installed(),
    )
    started = time.monotonic()
    metrics: dict[str, float] = {}
    data: dict[str, str] = {}
    try:
        for path in [find_bundle(name) for name in options.bundle or DEFAULTS]:
            bundle = load_bundle(path)
            name = bundle.manifest.name
            figures = _measure(path, bundle, plan)
            print(table(name, figures, plan.objective_ms), end="\n\n", flush=True)
            metrics |= figures.metrics(name)
            data[name] = bundle.manifest.files["model.onnx"].sha256[:12]
            if options.result:  # after each bundle, so that an early end leaves those that are done
                write_result(
                    options.result,
                    name="serving",
                    module="deploy.bench_serving",
                    recipe={**asdict(plan), "peers": " and ".join(plan.peers) or "none"},
                    seed=SEED,
                    seconds=time.monotonic() - started,
                    data=data,
                    metrics=metrics,
                )
    except AdvsentryError as error:
        print(f"bench_serving: error: {error}", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_serving", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--bundle",
        action="append",
        help=f"a directory or a shipped name, once or more; left out: {', '.join(DEFAULTS)}",
    )
    parser.add_argument("--seconds", type=float, default=2.5, help="for each load (2.5)")
    parser.add_argument("--rounds", type=int, default=3, help="over all servers (3)")
    parser.add_argument("--objective-ms", type=float, default=50.0, help="that p99 has to keep (50)")
    parser.add_argument("--max-batch", type=int, help="our server's; left out: the size best for the bare session")
    parser.add_argument("--no-peers", action="store_true", help="only ours and the bare session")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    return parser.parse_args()


def _installed() -> tuple[str, ...]:
    missing = [name for name in PEERS if not is_installed(name)]
    if missing:
        print(f"{' and '.join(missing)} not measured: run deploy/serving_peers/setup.sh, then this again")
    return tuple(name for name in PEERS if name not in missing)


def _measure(path: Path, bundle: Bundle, plan: Plan) -> Figures:
    everywhere = os.sched_getaffinity(0)
    server_core, client_core = min(everywhere), max(everywhere)
    os.sched_setaffinity(0, {client_core})
    try:
        with contextlib.ExitStack() as stack:
            images = random_images(bundle, 256)
            max_batch = plan.max_batch or max(LEAST_BATCH, bare_elsewhere(path, plan.seconds, server_core).batch)
            ours = stack.enter_context(server(path, server_core, max_batch, history="off"))
            ways = _ours(ours, images)
            ways |= _echo(stack, ours, images, server_core)
            ways |= _theirs(stack, path / "model.onnx", images, plan, server_core)
            for way in ways.values():
                way.load(min(WARM_UP_S, plan.seconds))
            rounds = [_round(ways, path, plan, server_core) for _ in range(plan.rounds)]
            return _figures(ways, rounds, plan, max_batch)
    finally:
        os.sched_setaffinity(0, everywhere)


def _ours(running: Server, images: Bytes8) -> dict[str, Way]:
    one, many, infer = detect_calls(images), batch_calls(images), infer_calls(images)
    ways = {
        "stream": Way(
            text="StreamDetect, 1 stream", server=running, load=lambda seconds: stream_load(running, images, 1, seconds)
        ),
        "batch": Way(
            text=f"BatchDetect of {many.images}, {BATCHES_IN_FLIGHT} calls",
            server=running,
            load=lambda seconds: unary_load(running, many, BATCHES_IN_FLIGHT, seconds),
        ),
        "detect": _unary(f"Detect, {IN_FLIGHT} calls", running, one),
    }
    if _serves(running, infer):
        ways["infer"] = _unary(f"ModelInfer, {IN_FLIGHT} calls", running, infer)
    return ways


def _unary(text: str, running: Server, calls: Unary) -> Way:
    load = lambda seconds: unary_load(running, calls, IN_FLIGHT, seconds)  # noqa: E731
    return Way(text=text, server=running, load=load, calls=calls)


def _echo(stack: contextlib.ExitStack, ours: Server, images: Bytes8, core: int) -> dict[str, Way]:
    calls = detect_calls(images)
    running = stack.enter_context(echoing(len(_answer(ours, calls)), core))
    return {"echo": _unary(f"gRPC alone, {IN_FLIGHT} calls", running, calls)}


def _answer(running: Server, calls: Unary) -> bytes:
    with grpc.insecure_channel(running.target) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(calls.method)
        return method(calls.requests[0], timeout=10.0)


def _serves(running: Server, calls: Unary) -> bool:
    try:
        _answer(running, calls)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return False
        raise
    return True


def _theirs(stack: contextlib.ExitStack, graph: Path, images: Bytes8, plan: Plan, core: int) -> dict[str, Way]:
    calls = infer_calls(images)
    ways = {}
    for name in plan.peers:
        try:
            which = KSERVE if name == "kserve" else _best_mlserver(graph, calls, plan, core)
            running = stack.enter_context(peer(which, graph, core, calls))
        except SetupError as error:
            print(f"{name} not measured: {error}")
            continue
        ways[name] = _unary(f"{which}, {IN_FLIGHT} calls", running, calls)
    return ways


def _best_mlserver(graph: Path, calls: Unary, plan: Plan, core: int) -> Peer:
    """The way of setting it that answers the most images a second; one that does not start is passed over.

    Raises:
        SetupError: none starts.
    """
    rates = {}
    for which in MLSERVER:
        try:
            with peer(which, graph, core, calls) as running:
                unary_load(running, calls, IN_FLIGHT, min(WARM_UP_S, plan.seconds))
                rates[which] = unary_load(running, calls, IN_FLIGHT, plan.seconds / 2).images_per_s
        except SetupError as error:
            print(error)
    if not rates:
        raise SetupError("mlserver: no way of setting it starts")
    return max(rates, key=lambda which: rates[which])


@dataclass(frozen=True, kw_only=True)
class Round:
    """Each way once."""

    bare: Bare
    loads: Mapping[str, Load]


def _round(ways: Mapping[str, Way], path: Path, plan: Plan, core: int) -> Round:
    bare = bare_elsewhere(path, plan.seconds, core)
    return Round(bare=bare, loads={name: way.load(plan.seconds) for name, way in ways.items()})


def _figures(ways: Mapping[str, Way], rounds: Sequence[Round], plan: Plan, max_batch: int) -> Figures:
    tried = {}
    for name, way in ways.items():
        loads = [one.loads[name] for one in rounds]
        fastest = max(load.images_per_s for load in loads)
        tried[name] = Tried(
            text=way.text,
            loads=loads,
            ratios=[one.loads[name].images_per_s / one.bare.images_per_s for one in rounds],
            start_s=way.server.start_s,
            resident_mb=way.server.resident_bytes() / 1e6,
            rate=None if way.calls is None else _highest_rate(way.server, way.calls, fastest, plan),
        )
    detect, rate = ways["detect"], tried["detect"].of_loads("images_per_s")
    assert detect.calls is not None
    assert rate is not None
    tails: dict[str, OpenLoad] = {
        kind: open_load(detect.server, detect.calls, arrivals(kind, SHARE * rate, 3 * plan.seconds, SEED))
        for kind in ARRIVALS
    }
    return Figures(
        max_batch=max_batch,
        session_images_per_s=median(one.bare.images_per_s for one in rounds),
        session_us=median(one.bare.cpu_us for one in rounds),
        tried=tried,
        tails=tails,
    )


def _highest_rate(running: Server, calls: Unary, fastest: float, plan: Plan) -> float:
    def p99_ms(rate: float) -> float:
        return open_load(running, calls, arrivals("constant", rate, plan.seconds, SEED)).p99_ms

    return highest_rate(p99_ms, MOST * fastest, plan.objective_ms, PROBES)


if __name__ == "__main__":
    sys.exit(main())
