import sys
from pathlib import Path

import pytest

from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.history import History
from service.history.opening import open_history, read_secret
from tests.service.history import toy

DIGITS = "0f" * 32


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "history.secret"
    path.touch(mode=0o600)
    path.write_text(DIGITS + "\n", encoding="utf-8")
    return path


def opened(url: str, calibration: Calibration, secret: Path | None) -> object:
    return open_history(url, calibration, dimensions=toy.DIMENSIONS, bounds=Bounds(entries=500), secret=secret)


def test_without_an_address_the_history_is_of_this_process(calibration: Calibration, secret: Path) -> None:
    history, other = opened("", calibration, None), opened("", calibration, secret)
    assert isinstance(history, History)
    assert isinstance(other, History)
    assert other.secret == bytes.fromhex(DIGITS)
    assert len(history.secret) == 32
    assert (history.is_degraded, history.degraded_reason) == (False, "")
    history.close()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_the_secret_may_end_in_a_line_break(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    assert read_secret(secret) == bytes.fromhex(DIGITS)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602, 0o601])
def test_a_secret_that_others_may_read_or_change_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(SetupError, match=rf"history\.secret: expected .* only the server may read, got mode {mode:o}"):
        read_secret(secret)


@pytest.mark.parametrize("content", [b"", b"0f" * 31, b"0f" * 33, b"secret" * 6, b"\xff" * 32, b"zz" * 32])
def test_what_is_no_secret_is_refused_and_not_repeated(secret: Path, content: bytes) -> None:
    secret.write_bytes(content)
    with pytest.raises(SetupError, match=r"expected 64 hexadecimal digits, .* got") as raised:
        read_secret(secret)
    assert not content or content.decode(errors="replace") not in str(raised.value)


def test_a_secret_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        read_secret(tmp_path / "nowhere")


def test_redis_wants_a_secret(calibration: Calibration) -> None:
    with pytest.raises(SetupError, match="openssl rand -hex 32"):
        opened("redis://localhost", calibration, None)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "got localhost"),
        ("localhost", "got no scheme"),
        ("http://localhost", "got http"),
        ("redis://", "no host"),
        ("redis://:pass-word@", "no host"),
        ("redis://host:99999", "got a URL that is none"),
        ("redis://host:port", "got a URL that is none"),
        ("redis://host:0", "another port or number"),
        ("redis://host/name", "another port or number"),
        ("redis://host?decode_responses=1", "among socket_timeout, socket_connect_timeout, got decode_responses"),
        ("redis://host?socket_timeout=0", "above 0 and at most 10, got 0"),
        ("redis://host?socket_timeout=soon", "got soon"),
        ("redis://host?socket_timeout=11", "got 11"),
        ("redis://host?ssl_ca_certs=x", "got ssl_ca_certs"),
        ("rediss://host?ssl_ca_certs=/nowhere", "ssl_ca_certs: expected a file, got /nowhere"),
        ("rediss://host?ssl_cert_reqs=none", "got ssl_cert_reqs"),
        ("redis://host?socket_timeout", "got a URL that is none"),
        ("unix://", "no path"),
        ("unix://host/path", "a host"),
        ("unix:///path?db=x", "db to be a number"),
    ],
)
def test_another_address_is_refused(calibration: Calibration, secret: Path, url: str, says: str) -> None:
    with pytest.raises(SetupError, match=r"^history: ") as raised:
        opened(url, calibration, secret)
    assert says in str(raised.value)
    assert "pass-word" not in str(raised.value)


def test_a_package_that_is_missing_is_said(
    calibration: Calibration, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in ("link", "shared"):
        monkeypatch.delitem(sys.modules, f"service.history.{name}", raising=False)
    with pytest.raises(SetupError, match=r"pip install 'advsentry\[redis\]'"):
        opened("redis://localhost", calibration, secret)
