"""Known vulnerabilities of what constraints.txt installs, by pip-audit: `make audit`.

Fails when there is one that deploy/audit.toml does not excuse. Where the advisories cannot be reached it says so in one
line and does not fail, so that work goes on without a network; in CI, give `--must-run`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

__all__ = ["Finding", "Report", "main", "read_excused"]

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parent / "constraints.txt"
EXCUSED = HERE / "audit.toml"
LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One vulnerability of one package."""

    package: str
    version: str
    ids: tuple[str, ...]
    """Its names in several databases."""
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        fix = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no version without it"
        return f"{self.package} {self.version}: {' '.join(self.ids)}; {fix}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found out."""

    findings: tuple[Finding, ...] = ()
    audited: int = 0
    """Packages that were looked up."""
    skipped: tuple[str, ...] = ()
    """Packages that the advisories do not know."""
    failure: str = ""
    """Why nothing was found out."""


def read_excused(path: Path, today: date) -> frozenset[str]:
    """The ids that are excused today.

    Raises:
        ValueError: an entry lacks its id, its reason or its day.
    """
    excused = set()
    for entry in tomllib.loads(path.read_text("utf-8")).get("ignore", []):
        if not (entry.get("id") and entry.get("reason") and type(entry.get("until")) is date):
            raise ValueError(f"{path}: expected id, reason and until (a day) in each [[ignore]], got {entry}")
        if entry["until"] >= today:
            excused.add(str(entry["id"]))
    return frozenset(excused)


def _report(command: Sequence[str]) -> Report:
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as out:  # a pipe would be held open by what it starts
            run = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, timeout=LIMIT_S, check=False
            )
            out.seek(0)
            entries: list[dict[str, Any]] = json.load(out)["dependencies"]
    except subprocess.TimeoutExpired:
        return Report(failure=f"no answer within {LIMIT_S:g} s")
    except OSError as error:
        return Report(failure=str(error))
    except (ValueError, KeyError, TypeError):
        lines = run.stderr.decode("utf-8", "replace").strip().splitlines()
        return Report(failure=lines[-1] if lines else f"pip-audit ended with {run.returncode} and no report")
    audited = [entry for entry in entries if "skip_reason" not in entry]
    if not audited:  # pip-audit itself calls this "No known vulnerabilities found"
        return Report(failure="the advisories of not one package could be looked up")
    return Report(
        findings=tuple(_finding(entry, one) for entry in audited for one in entry.get("vulns", ())),
        audited=len(audited),
        skipped=tuple(str(entry["name"]) for entry in entries if "skip_reason" in entry),
    )


def _finding(entry: dict[str, Any], one: dict[str, Any]) -> Finding:
    return Finding(
        package=str(entry["name"]),
        version=str(entry.get("version", "")),
        ids=(str(one["id"]), *map(str, one.get("aliases", ()))),
        fixed_in=tuple(map(str, one.get("fix_versions", ()))),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Audits; prints what was found.

    Returns:
        1 when there is a vulnerability that is not excused, or with `--must-run` when there was no audit; else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description=__doc__)
    parser.add_argument("--constraints", type=Path, default=CONSTRAINTS, metavar="FILE")
    parser.add_argument("--excused", type=Path, default=EXCUSED, metavar="FILE")
    parser.add_argument("--must-run", action="store_true", help="fail where the advisories cannot be reached")
    parser.add_argument("--command", default="", metavar="PROGRAM", help="in place of pip-audit")
    options = parser.parse_args(arguments)
    excused = read_excused(options.excused, datetime.now(UTC).date())
    program = [options.command] if options.command else [sys.executable, "-m", "pip_audit"]
    asked = ["--requirement", str(options.constraints), "--no-deps", "--disable-pip"]
    form = ["--format", "json", "--progress-spinner", "off", "--timeout", "5"]
    report = _report([*program, *asked, *form])
    if report.failure:
        print(f"audit: not done: {report.failure}")
        return 1 if options.must_run else 0
    open_ones = [finding for finding in report.findings if not excused.intersection(finding.ids)]
    for finding in open_ones:
        print(f"audit: {finding}")
    print(
        f"audit: {report.audited} packages looked up, {len(report.findings)} vulnerabilities, "
        f"{len(report.findings) - len(open_ones)} of them excused in {options.excused.name}"
    )
    if report.skipped:
        print(f"audit: unknown to the advisories: {', '.join(report.skipped)}")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main())
