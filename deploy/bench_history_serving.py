"""What the query history costs the service: images a second with it, over those without.

    python -m deploy.bench_history_serving [--bundle gtsrb ...] [--own-images] [--result FILE]

Servers of one bundle, each on one core with one graph thread: without a history, with one that begins empty, with one
that is full, and, where its mode makes answers wait, one in that mode. All are up at once, and several clients with
identities, on another core, send each of them the same images in turns, so that what else happens on the machine falls
on all; a share is the median of the rounds' shares. No server gets an image twice: that would cost the history next to
nothing.

The history works beside the answers, and falls behind where images come faster than it compares them. So a turn's time
ends when it has seen them all. What it had no room for it did not see; `..._observed`, the share that it saw, says
whether a figure is one of a history that saw everything. The run fails when a server has not kept what it saw.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from deploy.bench import bare_elsewhere
from deploy.bench_history_serving_figures import FULL, OBSERVE, OFF, Figures, table
from deploy.bench_serving import LEAST_BATCH, SEED
from deploy.distinct_images import DistinctImages
from deploy.history_filling import filled
from deploy.load import BATCH_ITEMS
from deploy.load_once import WAYS, Turn, turn
from deploy.reliability.metrics_page import read_metrics
from deploy.result_file import write_result
from deploy.server_process import Server, serving
from service.detection.bundle import Bundle, find_bundle, load_bundle
from service.detection.types import Bytes8
from service.errors import AdvsentryError, SetupError
from service.history import snapshot
from service.history.bounds import Bounds
from service.rpc.call import Scope
from service.settings import Settings
from service.tokens import add_entry, new_token
from service.watching.observer import TELL_S
from training.config import recipe_from_dict
from training.data import load_data

DEFAULTS = ("gtsrb", "digits")
"""A graph that takes most of an image's time, and one that takes next to none of it."""
CLIENTS = 4
STEP = CLIENTS * BATCH_ITEMS
"""Images of a turn are a multiple of it, so that all clients send as many."""
MODES = ("annotate", "silent")
MOST_WAIT_S = 10.0
"""For the metrics to say what is kept."""
ROOM = 0.9
"""Of the bound, that all turns together may fill: a history that began empty does not get full."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured how long."""

    seconds: float
    """For each turn, about."""
    rounds: int
    max_batch: int | None
    """None for the size at which the bare session is fastest, as `advsentry tune` would find it."""
    modes: tuple[str, ...]
    """Beside observing."""
    entries: int
    """Bound of the history."""
    measured: int
    """Images that the graph ran on, to make of them all that the full history begins with."""


USUAL = Plan(
    seconds=1.0,
    rounds=5,
    max_batch=None,
    modes=("annotate",),
    entries=Settings.history_entries,
    measured=8192,
)
QUICK = Plan(seconds=0.01, rounds=1, max_batch=LEAST_BATCH, modes=(), entries=4096, measured=256)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; gives the exit status."""
    options = _options(arguments)
    plan = _plan(options)
    started = time.monotonic()
    metrics: dict[str, float] = {}
    data: dict[str, object] = {"quick": True} if options.quick else {}
    try:
        for path in [find_bundle(name) for name in options.bundle or DEFAULTS]:
            bundle = load_bundle(path)
            name = bundle.manifest.name
            pool = _own_images(bundle) if options.own_images else None
            images = DistinctImages(bundle.manifest.input, SEED, pool)
            figures = _measure(path, bundle, plan, images)
            print(table(name, figures), end="\n\n", flush=True)
            metrics |= figures.metrics(name)
            data[name] = bundle.manifest.files["model.onnx"].sha256[:12]
            data[f"{name} images"] = "scikit-learn's" if pool is None else f"{len(pool)} of its data"
    except AdvsentryError as error:
        print(f"bench_history_serving: error: {error}", file=sys.stderr)
        return 1
    if options.result:
        write_result(
            options.result,
            name="history-serving",
            module="deploy.bench_history_serving",
            recipe={**asdict(plan), "modes": " and ".join(plan.modes) or "none", "clients": CLIENTS},
            seed=SEED,
            seconds=time.monotonic() - started,
            data=data,
            metrics=metrics,
            arguments=arguments,
        )
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_history_serving", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--bundle",
        action="append",
        help=f"a directory or a shipped name, once or more; left out: {', '.join(DEFAULTS)}",
    )
    parser.add_argument("--seconds", type=float, help=f"for each turn, about ({USUAL.seconds:g})")
    parser.add_argument("--rounds", type=int, help=f"over all servers ({USUAL.rounds})")
    parser.add_argument("--max-batch", type=int, help="the servers'; left out: the size best for the bare session")
    parser.add_argument(
        "--mode", action="append", choices=MODES, help=f"beside observing; left out: {', '.join(USUAL.modes)}"
    )
    parser.add_argument(
        "--own-images",
        action="store_true",
        help="draw from the images of the bundle's own data, in the folder ADVSENTRY_DATA; else from what scikit-learn "
        "brings",
    )
    parser.add_argument("--quick", action="store_true", help="only to see that it runs: its figures say nothing")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    return parser.parse_args(arguments)


def _plan(options: argparse.Namespace) -> Plan:
    chosen = {name: getattr(options, name) for name in ("seconds", "rounds", "max_batch")}
    chosen["modes"] = tuple(dict.fromkeys(options.mode)) if options.mode else None
    return replace(
        QUICK if options.quick else USUAL, **{name: value for name, value in chosen.items() if value is not None}
    )


def _own_images(bundle: Bundle) -> Bytes8 | None:
    """(N, H, W, C), of all parts; None where scikit-learn's digits are the data, which are few.

    Raises:
        SetupError: the bundle does not tell its recipe, or the data are not there.
    """
    manifest = bundle.manifest
    if not manifest.training:
        raise SetupError(f"{manifest.name}: expected a bundle with its recipe in the manifest, got one without")
    name = recipe_from_dict(manifest.training).data.set
    if name == "digits":
        return None
    folder = os.environ.get("ADVSENTRY_DATA")
    found = load_data(name, Path(folder) if folder else None)
    return np.concatenate([found.train.images, found.test.images])


def _measure(path: Path, bundle: Bundle, plan: Plan, images: DistinctImages) -> Figures:
    everywhere = os.sched_getaffinity(0)
    server_core, client_core = min(everywhere), max(everywhere)
    max_batch = plan.max_batch or max(LEAST_BATCH, bare_elsewhere(path, plan.seconds, server_core).batch)
    bounds = Bounds(entries=plan.entries)
    capacity = CLIENTS * int(bounds.client_share * bounds.capacity(bundle.manifest.embedding_dim))
    names = [f"client {number}" for number in range(CLIENTS)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        history = filled(path, bounds, images, names, measured=plan.measured, seed=SEED)
        snapshot.save(history, folder / "full")
        kept = len(history)
        del history
        tokens = _tokens(names, folder / "identities.toml")
        stack.callback(os.sched_setaffinity, 0, everywhere)
        os.sched_setaffinity(0, {client_core})
        flags: list[object] = ["--threads", 1, "--max-batch", max_batch, "--history-entries", plan.entries]
        flags += ["--identities", folder / "identities.toml", "--history"]
        modes: dict[str, list[object]] = {OFF: [OFF], OBSERVE: [OBSERVE]}
        modes[FULL] = [OBSERVE, "--history-snapshot", folder / "full"]
        modes |= {mode: [mode] for mode in plan.modes}
        servers = {
            name: stack.enter_context(serving(path, *flags, *words, core=server_core)) for name, words in modes.items()
        }
        rig = Rig(servers, images, tokens)
        first = [rig.round(dict.fromkeys(WAYS, STEP)) for _ in range(2)]
        most = (ROOM * capacity - len(first) * len(WAYS) * STEP) / (len(WAYS) * plan.rounds)
        counts = {way: _count(first[-1][OFF, way].images_per_s * plan.seconds, most) for way in WAYS}
        rounds = [rig.round(counts, is_turned=number % 2 == 1) for number in range(plan.rounds)]
        entries = {name: kept if name == FULL else 0 for name in servers if name != OFF}
        for (name, _), one in (item for turns in (*first, *rounds) for item in turns.items() if item[0][0] != OFF):
            entries[name] = min(capacity, entries[name] + one.observed)
        _check_kept(servers, entries)
        return Figures(max_batch=max_batch, rounds=rounds, entries=entries)


def _tokens(names: Sequence[str], identities: Path) -> list[str]:
    """Those of new clients, who may be told scores, and so of flags."""
    made = [new_token(name, [Scope.DETECT, Scope.SCORES]) for name in names]
    for one in made:
        add_entry(identities, one.entry)
    return [one.token for one in made]


class Rig:
    """Servers that are up, that without a history first, and what is sent to them."""

    def __init__(self, servers: Mapping[str, Server], images: DistinctImages, tokens: Sequence[str]) -> None:
        self._servers, self._images, self._tokens = servers, images, tokens

    def round(self, counts: Mapping[str, int], *, is_turned: bool = False) -> dict[tuple[str, str], Turn]:
        """New images, so many for each way, the same to each server: turns by server and way.

        Args:
            is_turned: whether the last server comes first.
        """
        turns = {}
        for name, way in WAYS.items():
            requests = way.requests(self._images.take(counts[name]))
            for server in sorted(self._servers, key=list(self._servers).index, reverse=is_turned):
                turns[server, name] = turn(
                    self._servers[server], way, requests, counts[name], self._tokens, has_history=server != OFF
                )
        return {(server, name): turns[server, name] for server in self._servers for name in WAYS}


def _count(images: float, most: float) -> int:
    """As many as are wished for, so that each client sends as many and a history that began empty does not get full."""
    return max(STEP, int(min(images, most)) // STEP * STEP)


def _check_kept(servers: Mapping[str, Server], expected: Mapping[str, int]) -> None:
    """Looks whether each history kept what it saw; an image that came again it would only count.

    Raises:
        SetupError: one did not.
    """
    for name, count in expected.items():
        began = time.monotonic()
        while (kept := read_metrics(servers[name].metrics).total("advsentry_history_entries")) != count:
            if time.monotonic() - began > MOST_WAIT_S:
                raise SetupError(
                    f"the history of the server `{name}` was to have kept {count} queries, and has {kept:.0f}"
                )
            time.sleep(TELL_S)  # as often it is told anew


if __name__ == "__main__":
    sys.exit(main())
