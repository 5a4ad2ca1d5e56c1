"""Settings from a file, and printed as one."""

from pathlib import Path

import pytest

from service.config import Effective
from service.detection.verdict import RevealMode
from service.errors import SetupError
from service.settings import Settings
from tests.service.test_cli import run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "advsentry.toml"


def test_a_flag_beats_a_variable_a_variable_the_file_and_the_file_the_default(file: Path) -> None:
    file.write_text('port = 1\nmax_batch = 2\nqueue_items = 3\nreveal = "decision"\ndrain_s = 4\nreflection = false\n')
    environment = {"ADVSENTRY_CONFIG": str(file), "ADVSENTRY_PORT": "5", "ADVSENTRY_MAX_BATCH": "6"}
    found = Effective.of(environment, {"port": "7", "max_batch": None})
    expected = Settings(port=7, max_batch=6, queue_items=3, reveal=RevealMode.DECISION, drain_s=4.0, reflection=False)
    assert found.settings == expected
    sources = {name: found.sources[name] for name in ("port", "max_batch", "queue_items", "host")}
    assert sources == {
        "port": "--port",
        "max_batch": "ADVSENTRY_MAX_BATCH",
        "queue_items": f'"{file}"',
        "host": "default",
    }


def test_the_flag_names_another_file_than_the_variable(file: Path) -> None:
    file.write_text("port = 1\n")
    assert Effective.of({"ADVSENTRY_CONFIG": "nowhere"}, {}, str(file)).settings.port == 1
    assert Effective.of({"ADVSENTRY_CONFIG": ""}, {}).settings == Settings()


def test_what_is_printed_gives_the_same_settings_again(file: Path, tmp_path: Path) -> None:
    file.write_text('bundle = "a \\"b\\" \\u007f \\n ü 🙂"\n')
    first = Effective.of({"ADVSENTRY_CANARY_S": "0.5"}, {"threads": "3", "reflection": "off"}, str(file))
    again = tmp_path / "again.toml"
    again.write_text(first.to_toml(), encoding="utf-8")
    assert Effective.of({}, {}, str(again)).settings == first.settings
    assert "threads = 3  # --threads\n" in first.to_toml()
    assert "canary_s = 0.5  # ADVSENTRY_CANARY_S\n" in first.to_toml()
    assert 'reveal = "p_values"  # default\n' in first.to_toml()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", r"advsentry.toml: prot: unknown setting; did you mean port\?"),
        ("[server]\nport = 1", "advsentry.toml: server: unknown setting"),
        ("port = '1'", "advsentry.toml: port: expected a whole number, got '1'"),
        ("port = true", "advsentry.toml: port: expected a whole number, got True"),
        ("port = 70000", "advsentry.toml: port: expected a number from 0 to 65535, got 70000"),
        ("drain_s = nan", "advsentry.toml: drain_s: expected a number from 0"),
        ("reflection = 1", "advsentry.toml: reflection: expected true or false, got 1"),
        ("device = 'tpu'", "advsentry.toml: device: expected one of cpu, cuda, auto, got 'tpu'"),
        ("reveal = 'all'", "advsentry.toml: reveal: expected one of decision, p_values, scores, got 'all'"),
        ("bundle = 1", "advsentry.toml: bundle: expected a text in quotes, got 1"),
        ("port 1", "advsentry.toml: expected settings in TOML"),
        ("port = 1\nport = 2", "advsentry.toml: expected settings in TOML"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(SetupError, match=says):
        Effective.of({}, {}, str(file))


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="nowhere: the file of settings cannot be read: No such file"):
        Effective.of({}, {}, str(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(SetupError, match="binary: expected settings in TOML"):
        Effective.of({}, {}, str(tmp_path / "binary"))


def test_the_command_prints_the_settings_and_ends(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    file.write_text("port = 0\n")
    status, out, _ = run(capsys, "serve", "--config", file, "--workers", "3", "--print-config")
    assert status == 0
    assert f'port = 0  # "{file}"\n' in out
    assert "workers = 3  # --workers\n" in out
