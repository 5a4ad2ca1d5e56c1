import subprocess
import sys
from pathlib import Path

import pytest

from training.__main__ import main

TINY = (
    *("train.epochs=1", "data.train=100", "model.width=4", "train.batch_size=50"),
    *("attack.steps=1", "tla.pool=16", "train.threads=1"),
)


def test_fit_trains_and_then_says_that_it_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fit", "digits", "--out", str(tmp_path / "run"), *TINY]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "finished" in captured.err
    assert main(command) == 0
    assert "already finished" in capsys.readouterr().err


def test_overrides_may_stand_on_both_sides_of_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fit", "digits", "train.epochs=0", "--out", str(tmp_path / "run"), "train.seed=3"]
    assert main(command) == 1
    assert capsys.readouterr().err == ("advsentry-train: error: train.epochs: expected a number of at least 1, got 0\n")


@pytest.mark.parametrize("command", ["fit", "export"])
def test_a_folder_that_cannot_be_made_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = tmp_path / "run", tmp_path / "file"
    file.write_text("not a folder", encoding="utf-8")
    first, *rest = ["digits", *TINY] if command == "fit" else [str(run)]
    if command == "export":
        assert main(["fit", "digits", "--out", str(run), *TINY]) == 0
        capsys.readouterr()
    assert main([command, first, "--out", str(file / "x" / "y"), *rest]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"advsentry-train: error: {file}")


def test_an_interrupt_outside_of_training_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.export.export", interrupted)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle")]) == 1
    assert capsys.readouterr().err == "advsentry-train: error: interrupted\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fti"],
        ["fit"],
        ["fit", "digits"],
        ["fit", "digits", "--out", "x", "--fast"],
        ["fit", "d", "--out", "x", "y"],
    ],
    ids=["nothing", "command", "no recipe", "no out", "option", "no override"],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2


@pytest.mark.parametrize(
    "words", [("train.epochs", "=", "2"), ("train.epochs=", "2"), ("train.seed", "=-1"), ("train.seed=", "-1")]
)
def test_an_override_in_several_words_is_told_as_such(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["fit", "digits", "--out", "x", *words])
    assert leaving.value.code == 2
    usage, *_, last = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: advsentry-train fit")
    assert last == (
        "advsentry-train fit: error: expected key=value in one word, nothing around the =, such as train.epochs=5; "
        f"got: {' '.join(words)}"
    )


def test_an_unknown_option_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "digits", "--out", "x", "--fast", "2"])
    assert "error: unrecognized arguments: --fast 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("--vers recipes", "--vers"),
        ("recipes --js", "--js"),
        ("fit digits --out x --down", "--down"),
        ("fit digits --out x train.epochs=2 --down", "--down"),
        ("evaluate --run x --out y bundle --budg quick", "--budg quick"),
        ("history x --chec", "--chec"),
        ("proxy generate diffusion digits --out x --samp ddpm", "--samp ddpm"),
    ],
)
def test_a_flag_cut_short_is_an_unknown_one(line: str, cut: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(line.split())
    assert leaving.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: unrecognized arguments: {cut}\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["recipes"], 0),
        (["robustness", "--help"], 0),
        (["fit", "digits"], 2),
        (["fti"], 2),
    ],
    ids=["help", "version", "recipes", "help of a command", "no out", "no command"],
)
def test_help_and_wrong_usage_do_not_wait_for_torch(arguments: list[str], status: int) -> None:
    code = """
import sys
from training.__main__ import main
try:
    status = main(sys.argv[1:])
except SystemExit as leaving:
    status = leaving.code
sys.exit(9 if "torch" in sys.modules else status)
"""
    program = [sys.executable, "-c", code, *arguments]
    assert subprocess.run(program, capture_output=True, check=False).returncode == status


def test_data_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADVSENTRY_DATA", str(tmp_path / "there"))
    assert main(["fit", "digits", "--out", str(tmp_path / "run"), "data.set=mnist"]) == 1
    assert f"expected data at {tmp_path / 'there'}" in capsys.readouterr().err
    monkeypatch.delenv("ADVSENTRY_DATA")
    assert main(["fit", "digits", "--out", str(tmp_path / "run"), "data.set=mnist"]) == 1
    assert "name its folder with --data or ADVSENTRY_DATA" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith("advsentry ")
