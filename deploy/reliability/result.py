"""The rows of a run: printed, kept in docs/results/reliability.json, and as a table in docs/reliability.md."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deploy.reliability.check import Check, Judged, Verdict
from deploy.reliability.rig import Rig, Size
from deploy.result_file import write_result

__all__ = ["Row", "read_rows", "short", "table", "write_rows"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check and what came of it."""

    number: str
    text: str
    asked: Mapping[str, str]
    judged: Judged
    size: str
    seconds: float
    commit: str = ""
    """Of the code that ran; empty until it is written."""

    @classmethod
    def of(cls, check: Check, judged: Judged, *, size: Size, seconds: float) -> Self:
        """The row of a check that just ran."""
        return cls(number=check.number, text=check.text, asked=check.asked, judged=judged, size=size, seconds=seconds)

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """As `dataclasses.asdict` made it."""
        judged = Judged(**{**value["judged"], "verdict": Verdict(value["judged"]["verdict"])})
        return cls(**{**value, "judged": judged})

    def lines(self) -> list[str]:
        """For people."""
        head = f"{self.number:<5} {self.judged.verdict:<8} {self.text} ({self.size}, {self.seconds:.0f} s)"
        rows = [
            f"      {name:<34} {value:>12.6g} {self.asked.get(name, ''):>10}"
            + ("  MISSED" if name in self.judged.missed else "")
            for name, value in self.judged.figures.items()
        ]
        absent = [name for name in self.judged.missed if name not in self.judged.figures]
        why = [f"      {self.judged.why}"] if self.judged.why else []
        return [head, *(row.rstrip() for row in rows), *(f"      {name} was not measured" for name in absent), *why]


def write_rows(path: Path, rows: Sequence[Row], rig: Rig, *, seconds: float) -> None:
    """Writes the rows; those of other checks that the file holds already are kept."""
    from training.evaluation.provenance import commit  # torch comes with it: seconds, and only wanted here

    kept = {row.number: row for row in read_rows(path)} if path.exists() else {}
    made = commit()
    kept |= {row.number: dataclasses.replace(row, commit=made) for row in rows}
    merged = sorted(kept.values(), key=lambda row: int(row.number.removeprefix("R-")))
    write_result(
        path,
        name="reliability",
        module="deploy.reliability",
        recipe={"size": "/".join(sorted({row.size for row in merged})), "bundle": rig.bundle.name},
        seed=0,
        seconds=sum(row.seconds for row in merged) if len(merged) > len(rows) else seconds,
        data={"bundle": rig.bundle.name, "resizing": rig.resizing.name},
        arguments=_arguments(sys.argv[1:], is_part=len(merged) > len(rows), sizes={row.size for row in merged}),
        metrics={f"{row.number}_{name}": value for row in merged for name, value in row.judged.figures.items()},
        further={"checks": [dataclasses.asdict(row) for row in merged]},
    )


def _arguments(given: Sequence[str], *, is_part: bool, sizes: Collection[str]) -> list[str]:
    """Those that make every row of the file: a run of some rows does not name them, since others stand there, too.

    Nor does it name its size where others have another, which each row names.

    >>> _arguments(["--size", "quick", "--only", "R-2,R-9"], is_part=True, sizes={"quick"})
    ['--size', 'quick']
    >>> _arguments(["--size", "full", "--only=R-9", "--bundle", "mnist"], is_part=True, sizes={"quick", "full"})
    ['--size', 'SIZE', '--only', 'ROW', '--bundle', 'mnist']
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--only")
    parser.add_argument("--size")
    known, kept = parser.parse_known_args(given)
    size, only = ("SIZE", "ROW") if len(sizes) > 1 else (known.size, None if is_part else known.only)
    return [*(["--size", size] if size else []), *(["--only", only] if only else []), *kept]


def read_rows(path: Path) -> list[Row]:
    """The rows of a result file."""
    return [Row.read(value) for value in json.loads(path.read_text(encoding="utf-8"))["checks"]]


def table(result: Mapping[str, Any]) -> str:
    """The table of docs/reliability.md."""
    rows = [Row.read(value) for value in result["checks"]]
    lines = ["| # | what | size | asked and measured | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        judged = row.judged
        cells = [
            f"{name} {short(value)}" + (f" ({row.asked[name]})" if name in row.asked else "")
            for name, value in judged.figures.items()
        ]
        what = "; ".join(cells) or judged.why
        lines.append(f"| {row.number} | {row.text} | {row.size}, {row.seconds:.0f} s | {what} | {_verdict(judged)} |")
    commits = sorted({row.commit for row in rows})
    lines += ["", f"`{result['command']}`; commit {', '.join(commits)}; {result['machine']}"]
    return "\n".join(lines)


def short(value: float) -> str:
    """A figure for people."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _verdict(judged: Judged) -> str:
    if judged.verdict is not Verdict.FAIL:
        return judged.verdict
    return f"**{Verdict.FAIL}**{': ' if judged.missed else ''}{', '.join(judged.missed)}"
