"""`advsentry serve` as an operator starts and ends it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.client import Client
from service.detection.types import Detection
from tests import tiny

ROOT = Path(__file__).parent.parent.parent


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "service", *map(str, arguments)]


@contextmanager
def serving(bundle: Path, *flags: object) -> Iterator[tuple["subprocess.Popen[str]", str, str]]:
    """The process, its gRPC address and its metrics address."""
    arguments = command("serve", "--bundle", bundle, "--port", 0, "--metrics-port", 0, *flags)
    with subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"serving grpc=(\S+) metrics=(\S+)\n", line)
            assert found, line
            yield process, found[1], found[2]
        finally:
            process.kill()


def test_sigterm_lets_calls_in_flight_end_and_health_says_so_first(bundle_path: Path) -> None:
    with serving(bundle_path, "--lame-duck-s", "0.5") as (process, target, _), Client(target) as client:
        first_answered, go_on = threading.Event(), threading.Event()

        def images() -> Iterator[bytes]:
            yield tiny.images(1)[0]  # type: ignore[misc]
            go_on.wait(10)
            yield tiny.images(1)[0]  # type: ignore[misc]

        results: list[object] = []

        def call() -> None:
            for result in client.detect_stream(images()):
                results.append(result)
                first_answered.set()

        thread = threading.Thread(target=call)
        thread.start()
        assert first_answered.wait(10)
        process.send_signal(signal.SIGTERM)
        while client.is_serving():
            time.sleep(0.01)
        assert isinstance(client.detect(tiny.images(1)[0]), Detection)  # lame, but serving
        go_on.set()
        thread.join(10)
        assert [type(result) for result in results] == [Detection, Detection]
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_second_signal_ends_at_once(bundle_path: Path) -> None:
    with serving(bundle_path, "--lame-duck-s", "30") as (process, _, _):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 1


def test_metrics_and_json_log_lines(bundle_path: Path) -> None:
    with serving(bundle_path, "--log-format", "json") as (process, target, metrics):
        with Client(target) as client:
            client.detect(tiny.odd_image())
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'advsentry_verdicts_total{verdict="adversarial"} 1.0' in text
        assert text.count("\n") < 500
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=10)
        assert all(line.startswith('{"time": "20') for line in log.splitlines())


def test_an_ipv6_address_is_served_and_told_in_brackets(bundle_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with (
        serving(bundle_path, "--host", "::1", "--metrics-host", "::1") as (_, target, metrics),
        Client(target) as client,
    ):
        assert client.is_serving()
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(("word", "is_ignored"), [("serve", True), ("worker", True), ("detect", False)])
def test_what_serves_outlives_sighup_from_its_first_moment(word: str, is_ignored: bool) -> None:
    script = (
        "import signal, sys, types\n"
        "from service.__main__ import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "cli = types.SimpleNamespace(run_command=lambda words: signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)\n"
        "sys.modules['service.cli'] = cli\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script, word], cwd=ROOT, timeout=20, check=False)
    assert done.returncode == is_ignored


@pytest.mark.parametrize("flag", ["--port", "--metrics-port"])
def test_a_port_in_use_is_one_clear_line(bundle_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = {"--port": 0, "--metrics-port": 0, flag: taken.getsockname()[1]}
        arguments = command("serve", "--bundle", bundle_path, "--log-level", "error")
        for name, value in flags.items():
            arguments += [name, str(value)]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rf"advsentry: error: \w+ cannot listen on 127\.0\.0\.1:\d+: .*{flag}.*\n", done.stderr)
