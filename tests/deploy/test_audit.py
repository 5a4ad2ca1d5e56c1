"""deploy/audit.py with a pip-audit that says what the test wants."""

import json
import sys
from datetime import date
from pathlib import Path

import pytest

from deploy import audit

CLEAN = {"name": "numpy", "version": "2.4.0", "vulns": []}
BAD = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"], "description": "bad"}],
}
SKIPPED = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}


def fake(tmp_path: Path, code: str) -> str:
    path = tmp_path / "pip-audit"
    path.write_text(f"#!{sys.executable}\nimport json, sys, time\n{code}\n")
    path.chmod(0o755)
    return str(path)


def says(tmp_path: Path, *entries: dict[str, object], status: int = 0) -> str:
    return fake(tmp_path, f"print({json.dumps(json.dumps({'dependencies': entries}))}); sys.exit({status})")


def run(capsys: pytest.CaptureFixture[str], command: str, *more: object) -> tuple[int, str]:
    status = audit.main(["--command", command, *map(str, more)])
    return status, capsys.readouterr().out


def test_a_known_vulnerability_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, says(tmp_path, CLEAN, BAD, SKIPPED, status=1))
    assert status == 1
    assert "audit: pillow 1.0: PYSEC-1 CVE-1; fixed in 1.1" in out
    assert "2 packages looked up, 1 vulnerabilities, 0 of them excused" in out
    assert "unknown to the advisories: ours" in out


def test_none_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, says(tmp_path, CLEAN)) == (
        0,
        "audit: 1 packages looked up, 0 vulnerabilities, 0 of them excused in audit.toml\n",
    )


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
def test_an_excuse_holds_until_its_day(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    excused, command = tmp_path / "audit.toml", says(tmp_path, BAD, status=1)
    for until, expected in (("9999-01-01", 0), ("2020-01-01", 1)):
        excused.write_text(f'[[ignore]]\nid = "{name}"\nreason = "not run"\nuntil = {until}\n')
        assert run(capsys, command, "--excused", excused)[0] == expected


def test_an_excuse_without_reason_or_day_is_none(tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    for text in ('reason = "x"\nuntil = 2030-01-01', 'id = "x"\nuntil = 2030-01-01', 'id = "x"\nreason = "y"'):
        path.write_text(f"[[ignore]]\n{text}\n")
        with pytest.raises(ValueError, match="expected id, reason and until"):
            audit.read_excused(path, date(2026, 1, 1))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.exit('ERROR: Failed to connect')", "ERROR: Failed to connect"),
        ("print('{')", "no report"),
        (
            f"print({json.dumps(json.dumps({'dependencies': [SKIPPED, SKIPPED]}))})",
            "not one package could be looked up",
        ),
        ("time.sleep(100)", "no answer within 0.5 s"),
    ],
    ids=["refused", "no report", "all skipped", "silent"],
)
def test_without_advisories_it_says_so_and_fails_only_where_it_must(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    if "sleep" in code:
        monkeypatch.setattr(audit, "LIMIT_S", 0.5)
    status, out = run(capsys, fake(tmp_path, code))
    assert status == 0
    assert out.startswith("audit: not done: ")
    assert why in out
    assert len(out.splitlines()) == 1
    assert run(capsys, fake(tmp_path, code), "--must-run")[0] == 1


def test_a_program_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "/no/such/program")
    assert (status, "No such file" in out) == (0, True)


def test_what_is_committed_can_be_read() -> None:
    assert audit.read_excused(audit.EXCUSED, date(2026, 1, 1)) is not None
    assert "==" in audit.CONSTRAINTS.read_text("utf-8")
