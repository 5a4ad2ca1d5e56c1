"""training/evaluation/provenance.py: which code made a figure."""

import subprocess
from pathlib import Path

import pytest

from training.evaluation import provenance


def test_changed_code_is_marked_and_changed_results_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    code, result = tmp_path / "training" / "code.py", tmp_path / "docs" / "results" / "digits.json"
    for file in (code, result):
        file.parent.mkdir(parents=True)
        file.write_text("1", encoding="utf-8")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    clean = provenance.commit()
    assert len(clean) == 12
    result.write_text("2", encoding="utf-8")
    assert provenance.commit() == clean
    code.write_text("2", encoding="utf-8")
    assert provenance.commit() == clean + "+"


def test_there_is_no_commit_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.commit() == "unknown"
