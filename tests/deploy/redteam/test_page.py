"""docs/redteam.md has the table that the committed results give."""

import json
from pathlib import Path

import pytest

from deploy.redteam import page
from deploy.redteam.cases import Case
from deploy.redteam.figures import rows
from deploy.redteam.running import Budget, Outcome
from deploy.redteam.square import SquareSearch


def test_the_committed_page_is_what_the_script_makes() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.current_page()


def test_a_result_becomes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack, budget = SquareSearch(queries=9), Budget(queries=9)
    case = Case(name="one", family="square", how="plain", attack=attack, mode="reject", budget=budget, eps=(8,))
    result = {
        "cells": rows(case, [Outcome(queries=9, flags=3, first_flag=4)]),
        "data": {"set": "toy"},
        "seed": 0,
        "commit": "abc",
        "command": "python -m deploy.redteam",
    }
    (tmp_path / "redteam-toy.json").write_text(json.dumps(result))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    text = page.current_page()
    assert "| square | plain | reject | 1 | 8/255 | 0/1 | 0/1 | - | 33.3% | 4 | 100% |" in text
    assert "* set toy; seed 0; commit abc; `python -m deploy.redteam`" in text
    assert "Not measured yet." not in text
