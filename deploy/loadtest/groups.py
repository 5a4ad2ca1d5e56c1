"""What a fleet's query history takes, by how many processes share one: tables of docs/history.md, by `make docs`.

The page's table of one server's throughput (history-serving.json, deploy.bench_history_serving) is placed here, too.

Computed from what was measured: the fleet's rates and processes (docs/results/fleet.json, deploy.loadtest.fleet), and
what a query costs a process that gets it, one that follows, and Redis (shared-history.json,
deploy.bench_shared_history). Calls come one by one at the day's peak, which is the dearest.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.bench_history_serving_figures import page_table
from deploy.loadtest.page import RESULTS, page, table

__all__ = ["Group", "current_page", "group", "most_per_s", "tables"]

PAGE = RESULTS.parent / "history.md"
SIZES = (1, 2, 4, 8)
SHARE = 0.2
"""Of a core, that a history may take from its process."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Processes that share one history."""

    groups: int
    """Of them in the fleet."""
    per_s: float
    """Queries of one group."""
    share: float
    """Of a core, in each process."""
    process_gb: float
    """Of memory, in each process."""
    redis_gb: float
    """Of memory, in all Redis servers together; as the next three."""
    commands_per_s: float
    network_mb_per_s: float
    redis_cores: float


def group(size: int, fleet: Mapping[str, Any], shared: Mapping[str, float]) -> Group:
    """The figures of groups of so many processes; one alone needs no Redis.

    Args:
        fleet: the content of fleet.json.
        shared: the metrics of shared-history.json.
    """
    found, window_s = fleet["metrics"], fleet["recipe"]["history_s"]
    peak, processes = found["peak_images_per_s"], math.ceil(found["cores_detect"])
    groups = math.ceil(processes / size)
    per_s = peak / groups
    own_us = shared["batch_1_us" if size > 1 else "batch_1_alone_us"]
    redis_per_s = peak if size > 1 else 0.0
    others = size - 1
    sent = shared["batch_1_in_bytes"] + shared["batch_1_out_bytes"] + others * shared["reader_out_bytes"]
    return Group(
        groups=groups,
        per_s=per_s,
        share=per_s * (own_us + others * shared["catch_up_us"]) / size / 1e6,
        process_gb=per_s * window_s * shared["replica_bytes"] / 1e9,
        redis_gb=redis_per_s * window_s * shared["entry_bytes"] / 1e9,
        commands_per_s=redis_per_s * shared["batch_1_commands"],
        network_mb_per_s=redis_per_s * sent / 1e6,
        redis_cores=redis_per_s * shared["batch_1_redis_us"] / 1e6,
    )


def most_per_s(shared: Mapping[str, float]) -> float:
    """Queries a second of a group, however large, that take no more than `SHARE` of a core in each process."""
    return 1e6 * SHARE / shared["catch_up_us"]


def current_page() -> str:
    """The page that the committed results give; as it is where they are not there."""
    made: dict[str, str] = {}
    serving, shared = RESULTS / "history-serving.json", RESULTS / "shared-history.json"
    if serving.exists():
        made["history-serving"] = page_table(json.loads(serving.read_text(encoding="utf-8")))
    if shared.exists():
        fleet = json.loads((RESULTS / "fleet.json").read_text(encoding="utf-8"))
        made |= tables(json.loads(shared.read_text(encoding="utf-8")), fleet)
    return page(PAGE.read_text(encoding="utf-8"), made, name=PAGE.name)


def tables(result: Mapping[str, Any], fleet: Mapping[str, Any]) -> dict[str, str]:
    """By name, of the contents of shared-history.json and fleet.json."""
    shared = result["metrics"]
    source = f"* {result['machine']}; commit {result['commit']}; `{result['command']}`"
    costs = [
        f"| microseconds of a core for a query | {shared['batch_1_us']:,.0f} | {shared['batch_32_us']:,.0f} |",
        f"| the same of a process alone | {shared['batch_1_alone_us']:,.0f} | {shared['batch_32_alone_us']:,.0f} |",
        f"| Redis commands for a query | {shared['batch_1_commands']:.1f} | {shared['batch_32_commands']:.1f} |",
        f"| bytes to Redis and back | {shared['batch_1_in_bytes']:,.0f}; {shared['batch_1_out_bytes']:,.0f} | "
        f"{shared['batch_32_in_bytes']:,.0f}; {shared['batch_32_out_bytes']:,.0f} |",
        f"| microseconds of Redis' own | {shared['batch_1_redis_us']:,.0f} | {shared['batch_32_redis_us']:,.0f} |",
    ]
    entries = f"{shared['catch_up_entries']:,.0f}"
    further = [
        f"| bytes that each other process reads for a query | {shared['reader_out_bytes']:,.0f} |",
        f"| bytes of a query in Redis; in each process | {shared['entry_bytes']:,.0f}; "
        f"{shared['replica_bytes']:,.0f} |",
        f"| microseconds of a core for a query of another process | {shared['catch_up_us']:,.0f} |",
        f"| seconds in which a new process caught up with {entries} | {shared['catch_up_s']:.0f} |",
        f"| queries a second that take {SHARE:g} of a core in each process | {most_per_s(shared):,.0f} |",
    ]
    rows = [_row(size, group(size, fleet, shared)) for size in SIZES]
    day, window_s = fleet["recipe"]["images_per_day"], fleet["recipe"]["history_s"]
    peak = fleet["metrics"]["peak_images_per_s"]
    head = (
        "| processes that share | groups | queries/s of one | share of a core each | GB in each process | "
        "GB in Redis | commands/s | network, MB/s | Redis' cores |"
    )
    assumed = f"* {day:,.0f} queries a day, {peak:,.0f} a second at the peak, each kept for {window_s:g} s"
    return {
        "shared-costs": table("| | one by one | batches of 32 |", costs, source),
        "shared-further": table("| | |", further),
        "shared-fleet": table(head, rows, assumed),
    }


def _row(size: int, one: Group) -> str:
    cells = [
        f"{size}",
        f"{one.groups:,.0f}",
        f"{one.per_s:,.0f}",
        f"{one.share:.2f}",
        f"{one.process_gb:.1f}",
        f"{one.redis_gb:,.0f}",
        f"{one.commands_per_s:,.0f}",
        f"{one.network_mb_per_s:,.0f}",
        f"{one.redis_cores:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Writes the page."""
    PAGE.write_text(current_page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
