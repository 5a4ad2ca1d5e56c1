"""The rows of a run are kept, taken up again, and told in a table."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.reliability import front, page
from deploy.reliability.check import Check, Judged, Verdict
from deploy.reliability.result import Row, read_rows, table, write_rows
from deploy.reliability.rig import Rig, Size
from deploy.reliability.sheet import SHEET
from deploy.results import FIELDS

CHECK = Check(number="R-2", text="calls", asked={"errors": "= 0"}, run=lambda rig: {"errors": 1.0})


def row(number: str, errors: float) -> Row:
    check = dataclasses.replace(CHECK, number=number)
    return Row.of(check, check.judged({"errors": errors, "calls": 12345.0}), size=Size.QUICK, seconds=3.2)


def test_a_later_run_replaces_its_rows_and_keeps_the_others(tmp_path: Path) -> None:
    path, rig = tmp_path / "reliability.json", Rig(folder=tmp_path)
    write_rows(path, [row("R-2", 1), row("R-10", 0)], rig, seconds=6.4)
    write_rows(path, [row("R-2", 0)], rig, seconds=3.2)
    assert [(one.number, one.judged.verdict) for one in read_rows(path)] == [("R-2", "pass"), ("R-10", "pass")]
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value.keys() >= set(FIELDS)
    assert value["metrics"] == {"R-2_errors": 0, "R-2_calls": 12345, "R-10_errors": 0, "R-10_calls": 12345}


def test_the_table_says_what_was_missed_and_why_a_row_did_not_run() -> None:
    rows = [
        row("R-2", 1),
        Row.of(CHECK, Judged(verdict=Verdict.NOT_RUN, why="no docker"), size=Size.QUICK, seconds=0.0),
    ]
    result = {"checks": [dataclasses.asdict(one) for one in rows], "command": "python", "machine": "here"}
    text = table(result)
    assert "| R-2 | calls | quick, 3 s | errors 1 (= 0); calls 12,345 | **FAIL**: errors |" in text
    assert "| no docker | not run |" in text
    assert "errors" in "\n".join(rows[0].lines())


def test_the_committed_page_is_what_the_script_makes() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.current_page()
    assert page.README.read_text(encoding="utf-8") == page.current_readme()
    with pytest.raises(ValueError, match="expected <!-- made by"):
        page.page("# Reliability", "")


def test_the_readme_tells_what_falls_short_in_bold_and_refuses_to_leave_a_row_out() -> None:
    result = json.loads(page.RESULT.read_text(encoding="utf-8"))
    for one in result["checks"]:
        one["judged"] |= {"verdict": "pass", "missed": []}
    assert "**" not in front.front_table(result)
    assert f"{len(SHEET)} of the sheet's {len(SHEET)} rows are as asked." in front.front_table(result)
    overload = result["checks"][1]
    overload["judged"] |= {"verdict": "FAIL", "missed": ["goodput_of_capacity"]}
    overload["judged"]["figures"]["goodput_of_capacity"] = 0.5
    text = front.front_table(result)
    assert "**0.5 of the capacity answered (>= 0.9)**; " in text
    assert f"{len(SHEET) - 1} of the sheet's {len(SHEET)} rows are as asked; short of it: R-2." in text
    del overload["judged"]["figures"]["goodput_of_capacity"]
    with pytest.raises(ValueError, match=r"R-2: expected its figures goodput_of_capacity, .*run this row"):
        front.front_table(result)


def test_the_sheet_has_every_row_once() -> None:
    assert [check.number for check in SHEET] == [f"R-{number}" for number in range(1, 26)]


def test_an_unknown_row_is_one_clear_line() -> None:
    command = [sys.executable, "-m", "deploy.reliability", "--only", "R-4,R-99"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("reliability: error: --only: expected some of R-1,")
