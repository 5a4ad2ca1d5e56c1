"""The tables of docs/capacity.md, from docs/results/fleet.json and loadtest.json: `make docs`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.loadtest.sizing import CLIENTS

__all__ = ["current_page", "page", "table"]

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "capacity.md"
RESULTS = ROOT / "docs" / "results"
END = "<!-- end -->"


def page(text: str, tables: Mapping[str, str], *, name: str = "capacity.md") -> str:
    """A page with its tables made anew.

    Args:
        tables: by what stands in the mark before each: `<!-- made by `make docs`: NAME -->`.
        name: of the page, for the error.

    Raises:
        ValueError: the marks of a table are missing.
    """
    for title, table in tables.items():
        mark = f"<!-- made by `make docs`: {title} -->"
        before, begin, rest = text.partition(mark)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"{name}: expected {mark} and {END} around the table")
        text = f"{before}{mark}\n\n{table}\n\n{END}{after}"
    return text


def _fleet(result: Mapping[str, Any]) -> dict[str, str]:
    found, assumed = result["metrics"], result["recipe"]
    day, peak = _n(assumed["images_per_day"]), f"{assumed['peak']:g}"
    cost = [
        f"| {way} | {_n(found[f'{key}_us'])} | {_n(found[f'{key}_beside_graph_us'])} | "
        f"{found[f'{key}_core_hours_per_million']:.3g} |"
        for key, way in (("detect", "Detect"), ("batch", "BatchDetect of 64"), ("stream", "StreamDetect"))
    ]
    size = [
        f"| images a second, mean of a day of {day} | {_n(found['mean_images_per_s'])} |",
        f"| images a second at the peak, {peak} times that | {_n(found['peak_images_per_s'])} |",
        f"| share of its capacity that a process may be given, p99 within {assumed['objective_ms']:g} ms, simulated | "
        f"{found['share_simulated']:.2f} |",
        f"| the same within the objective of `serving`, measured; the smaller counts | {found['share_measured']:.2f} |",
        f"| cores for all of it by Detect, at the peak, without one of {assumed['zones']} zones | "
        f"{_n(found['cores_detect'])} |",
        f"| pods of {assumed['cores_per_pod']} cores for that; their memory, GB | {_n(found['pods'])}; "
        f"{_n(found['memory_gb'])} |",
        f"| cores for all of it in bulk, spread over the day, by BatchDetect | {_n(found['cores_batch_all_day'])} |",
        f"| the same by StreamDetect | {_n(found['cores_stream_all_day'])} |",
    ]
    if "gpus_detect" in found:
        size += [
            f"| images a second of a GPU, by Detect; BatchDetect; streams | {_n(found['gpu_detect_images_per_s'])}; "
            f"{_n(found['gpu_batch_images_per_s'])}; {_n(found['gpu_stream_images_per_s'])} |",
            f"| GPUs in the place of those cores, at the peak by Detect | {found['gpus_detect']:.1f} |",
            f"| GPUs in bulk, by BatchDetect; by StreamDetect | {found['gpus_batch_all_day']:.1f}; "
            f"{found['gpus_stream_all_day']:.1f} |",
        ]
    spread = (
        f"| spread over {found['balanced_processes']:.0f} processes | p99, ms | refused | busiest process to the mean |"
    )
    balance = [f"| by call | {found['by_call_p99_ms']:.0f} | {found['by_call_refused']:.1%} | 1 |"]
    balance += [
        f"| by connection, {clients} clients | {found[f'by_connection_{clients}_p99_ms']:.0f} | "
        f"{found[f'by_connection_{clients}_refused']:.1%} | {found[f'by_connection_{clients}_hottest']:.1f} |"
        for clients in CLIENTS
    ]
    shared = [
        f"| images to remember, of {assumed['history_s']:g} s at the peak | {_n(found['history_entries'])} |",
        *_history(found),
        f"| look-ups and writes a second | {_n(found['history_lookups_per_s'])} |",
    ]
    if "series" in found:
        shared += [
            f"| series of the pods' metrics | {_n(found['series'])} |",
            f"| samples a second, scraped every 15 s | {_n(found['samples_per_s'])} |",
        ]
    source = f"* bundle {result['data']['bundle']}; commit {result['commit']}; `{result['command']}`"
    made = {
        "fleet": table("| | |", size, source),
        "cost": table(
            "| by | microseconds of a core an image | of which beside the graph | core hours a million |", cost
        ),
        "balancing": table(spread, balance),
        "shared": table("| at the peak | |", shared),
    }
    if "model_p99_ms" in found:
        rows = [
            f"| {name} | {found[f'model_{key}_ms']:.1f} | {found[f'measured_{key}_ms']:.1f} |"
            for key, name in (("p50", "median, ms"), ("p99", "p99, ms"))
        ]
        made["model"] = table("| at 0.7 of a process's capacity | simulated | measured |", rows)
    return made


def _history(found: Mapping[str, float]) -> list[str]:
    """What they take, as measured; where it was not, by 100 bytes of an entry."""
    if "history_gb" not in found:
        return [f"| GB for each 100 bytes of an entry | {found['history_gb_for_each_100_bytes']:.3g} |"]
    return [
        f"| GB for them, at {_n(found['history_bytes'])} bytes each, as measured with "
        f"{_n(found['history_kept_when_measured'])} | {_n(found['history_gb'])} |",
        f"| cores for their look-ups, at {_n(found['history_us'])} microseconds each in batches | "
        f"{_n(found['history_cores'])} |",
    ]


def _loadtest(result: Mapping[str, Any]) -> dict[str, str]:
    found = result["metrics"]
    names = [name.removesuffix("_offered_per_s") for name in found if name.endswith("_offered_per_s")]
    rows = [
        f"| {name.replace('_', ' ')} | {_n(found[f'{name}_offered_per_s'])} | {_n(found[f'{name}_answered_per_s'])} | "
        f"{found[f'{name}_refused_share']:.1%} | {found[f'{name}_shed_share']:.1%} | "
        f"{found[f'{name}_failed_share']:.1%} | "
        f"{found[f'{name}_p50_ms']:.1f} | {found[f'{name}_p99_ms']:.1f} | {found[f'{name}_late_p99_ms']:.1f} |"
        for name in names
    ]
    head = "| phase | calls/s | answered/s | refused | shed | failed | p50, ms | p99, ms | client late, p99, ms |"
    bundle = ", ".join(result["data"])
    capacity = f"1 stands for {_n(found['capacity_per_s'])} calls a second, what one core answers in a closed loop."
    source = f"* {bundle}; {capacity} {result['machine']}; commit {result['commit']}; `{result['command']}`"
    return {"loadtest": table(head, rows, source)}


def table(head: str, rows: list[str], source: str = "") -> str:
    """A table of lines that are made already, and where its figures are from."""
    lines = [head, "|---" * (head.count("|") - 1) + "|", *rows]
    return "\n".join([*lines, "", source] if source else lines)


def _n(value: float) -> str:
    return f"{value:,.0f}"


def current_page() -> str:
    """The page that the committed results give; a table without its result stays as it is."""
    tables: dict[str, str] = {}
    for name, made in (("fleet", _fleet), ("loadtest", _loadtest)):
        path = RESULTS / f"{name}.json"
        if path.exists():
            tables |= made(json.loads(path.read_text(encoding="utf-8")))
    return page(PAGE.read_text(encoding="utf-8"), tables)


def main() -> int:
    """Writes the page."""
    PAGE.write_text(current_page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
