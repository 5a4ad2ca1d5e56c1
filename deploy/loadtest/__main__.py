"""A load test: calls that come whether or not the last ones were answered.

    python -m deploy.loadtest --bundle gtsrb
    python -m deploy.loadtest --target HOST:PORT --rate 500 --ca ca.pem --token-file camera.token

Without --target it serves a bundle itself, on one core, with the client on another, and measures its capacity first:
images a second that a core answers when 32 calls are always under way. Profiles are shares of that capacity, or of
--rate: `constant`, 0.7 of it; `steps`, from 0.25 to 1.2; `burst`, five times as many as it bears, between two calm
times. Prints a table, and draws latency over time with --picture FILE.svg.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.loadtest.figures import figures, flat, table
from deploy.loadtest.profiles import PROFILES, Phase, due, phases
from deploy.loadtest.sending import Door, Sent, send
from deploy.open_loop import Arrivals
from deploy.reliability.callers import capacity, run_loop
from deploy.reliability.rig import images_of, messages_of
from deploy.result_file import write_result
from deploy.server_process import server
from service.client.credentials import channel_credentials, read_token, token_metadata
from service.detection.bundle import find_bundle, load_bundle
from service.detection.types import Integers
from service.errors import AdvsentryError, SetupError, Unavailable

__all__ = ["main"]

SEED = 0
IMAGES = 64
BUSY = 0.9
"""Share of its core from which on the client is what is measured."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the test; gives the exit status."""
    options = _options(arguments)
    began = time.monotonic()
    try:
        if bool(options.target) != bool(options.rate):
            raise SetupError(
                "--target and --rate go together: give the calls a second that stand for 1 in the profiles"
            )
        path = find_bundle(options.bundle)
        bundle = load_bundle(path)
        messages = messages_of(images_of(path, IMAGES))
        with _door(options, path) as door:
            full = options.rate or capacity(door.target, messages, seconds=options.seconds)
            print(f"1 stands for {full:.0f} calls a second, {options.arrivals} arrivals", flush=True)
            runs, metrics = {}, {"capacity_per_s": full}
            for profile in options.profile or PROFILES:
                plan = phases(profile, full, options.seconds)
                runs[profile], numbers = _run(door, messages, plan, options)
                found = figures(runs[profile], numbers, plan)
                print(f"\n{table(profile, plan, found)}", flush=True)
                metrics |= flat(profile, plan, found) | {f"{profile}_client_share": runs[profile].client_share}
    except (AdvsentryError, RuntimeError, OSError) as error:
        print(f"loadtest: error: {error}", file=sys.stderr)
        return 1
    for profile, sent in runs.items():
        if sent.client_share > BUSY:
            print(f"{profile}: the client took {sent.client_share:.0%} of its core; its latencies are the client's")
    if options.picture:
        from deploy.loadtest.picture import draw  # matplotlib comes with it, and is only wanted here

        draw(options.picture, runs, f"{bundle.manifest.name}, 1 = {full:.0f} calls a second")
    if options.result:
        write_result(
            options.result,
            name="loadtest",
            module="deploy.loadtest",
            recipe={"seconds": options.seconds, "arrivals": options.arrivals, "deadline_s": options.deadline_s},
            seed=SEED,
            seconds=time.monotonic() - began,
            data={bundle.manifest.name: bundle.manifest.files["model.onnx"].sha256[:12]},
            metrics=metrics,
        )
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.loadtest", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="gtsrb", help="what is served, or what the target serves (gtsrb)")
    parser.add_argument("--target", default="", metavar="HOST:PORT", help="a server that runs; takes --rate")
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second that stand for 1 in the profiles")
    parser.add_argument(
        "--profile", action="append", choices=sorted(PROFILES), help="once or more; left out: every one"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of a step; the whole takes twelve times that (10)")
    parser.add_argument("--arrivals", choices=["constant", "poisson"], default="poisson", help="(poisson)")
    parser.add_argument("--deadline-s", type=float, default=1.0, help="of a call (1)")
    parser.add_argument("--connections", type=int, default=16, help="that take turns (16)")
    parser.add_argument("--max-batch", type=int, default=16, help="of the server that is started (16)")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="use TLS; PEM file of the target's roots")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file that holds your token")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="an SVG or a PNG to draw")
    parser.add_argument("--result", type=Path, metavar="FILE", help="a file for docs/results")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _door(options: argparse.Namespace, bundle: Path) -> Iterator[Door]:
    """The target's, or that of a server on a core of its own.

    Raises:
        AdvsentryError: it does not start, or a file of the client is wrong.
    """
    if options.target:
        credentials = channel_credentials(ca=options.ca)
        metadata = token_metadata(read_token(options.token_file), options.target, credentials)
        yield Door(target=options.target, credentials=credentials, metadata=metadata)
        return
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(everywhere)})
    try:
        with server(bundle, min(everywhere), options.max_batch) as running:
            yield Door(target=running.target)
    finally:
        os.sched_setaffinity(0, everywhere)


def _run(
    door: Door, messages: Sequence[bytes], plan: Sequence[Phase], options: argparse.Namespace
) -> tuple[Sent, Integers]:
    """The calls of a profile, and the phase of each.

    Raises:
        Unavailable: the target is not reached.
    """
    kind: Arrivals = options.arrivals
    moments, numbers = due(plan, kind, SEED)
    calls = send(door, messages, moments, deadline_s=options.deadline_s, connections=options.connections)
    try:
        return run_loop(calls), numbers
    except TimeoutError as error:
        raise Unavailable(f"no server answers at {door.target}") from error


if __name__ == "__main__":
    sys.exit(main())
