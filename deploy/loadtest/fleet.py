"""What a fleet for so many images a day needs, simulated from measured figures.

    python -m deploy.loadtest.fleet
    python -m deploy.loadtest.fleet --images-per-day 1e8 --bundle digits --result docs/results/fleet.json

What an image costs, and memory, are read from docs/results/serving.json, series from reliability.json, rates of a GPU
from gpu.json (`python -m deploy.cuda_check`) and what the query history costs from history.json (`python -m
deploy.bench_history`) where they are there. A load test's latencies (loadtest.json), where there
are any, are held against the same queue, simulated. Everything that is assumed and not measured is a flag, and stands
in the result.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.loadtest.sizing import SEED, Assumed, fleet
from deploy.result_file import write_result
from service.errors import AdvsentryError, SetupError

__all__ = ["load", "main"]

RESULTS = Path(__file__).parent.parent.parent / "docs" / "results"


def load(bundle: str, folder: Path = RESULTS) -> dict[str, Mapping[str, float]]:
    """Metrics by the name of their file; a load test of another bundle is left out.

    Raises:
        SetupError: nothing was measured.
    """
    found = {}
    for name in ("serving", "reliability", "loadtest", "gpu", "history"):
        path = folder / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            if name != "loadtest" or bundle in result["data"]:
                found[name] = result["metrics"]
    if "serving" not in found:
        raise SetupError(
            f"{folder / 'serving.json'}: not there; run python -m deploy.bench_serving --result FILE first"
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Simulates; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.loadtest.fleet", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="gtsrb", help="whose measured figures count (gtsrb)")
    parser.add_argument("--images-per-day", type=float, default=1e9, help="(1e9)")
    parser.add_argument("--peak", type=float, default=2.0, help="largest rate of a day to its mean (2)")
    parser.add_argument("--zones", type=int, default=3, help="without one of which the peak is borne (3)")
    parser.add_argument("--objective-ms", type=float, default=250.0, help="that p99 of single calls keeps (250)")
    parser.add_argument("--deadline-s", type=float, default=1.0, help="of a call (1)")
    parser.add_argument("--cores-per-pod", type=int, default=2, help="(2)")
    parser.add_argument("--skew", type=float, default=1.0, help="the n-th largest client has 1 / n^SKEW (1)")
    parser.add_argument("--history-s", type=float, default=3600.0, help="for which queries are remembered (3600)")
    parser.add_argument("--result", type=Path, metavar="FILE", help="a file for docs/results")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    named = {name: value for name, value in vars(options).items() if name not in ("bundle", "result")}
    try:
        if options.zones < 2:
            raise SetupError(f"--zones: expected 2 or more, so that one may be lost, got {options.zones}")
        found = load(options.bundle)
        metrics = fleet(options.bundle, Assumed(**named), found)
    except AdvsentryError as error:
        print(f"fleet: error: {error}", file=sys.stderr)
        return 1
    width = max(map(len, metrics))
    print("\n".join(f"{name:<{width}} {value:>16,.6g}" for name, value in metrics.items()))
    if options.result:
        write_result(
            options.result,
            name="fleet",
            module="deploy.loadtest.fleet",
            recipe=named,
            seed=SEED,
            seconds=time.monotonic() - began,
            data={"bundle": options.bundle, "figures": " ".join(found)},
            metrics=metrics,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
