"""Debian's Prometheus takes our configuration, fires our alerts, and scrapes our server for real."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.boards.__main__ import BOARDS
from deploy.boards.board import HERE, SELECTOR
from service.client import Client
from service.detection.engine import Engine
from tests import tiny
from tests.service.running import running

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "prometheus"
WAIT_S = 120
"""On a busy machine."""

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="there is no prometheus and promtool here (Debian: apt-get install prometheus)",
)


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_one() -> None:
    assert "SUCCESS: prometheus.yml is valid" in promtool("check", "config", "prometheus.yml")
    assert "22 rules found" in promtool("check", "rules", "rules.yml")


def test_each_alert_fires_on_what_it_promises() -> None:
    promtool("test", "rules", "rules_test.yml")


def test_an_alert_that_does_not_fire_fails_the_test(tmp_path: Path) -> None:
    rules = (FOLDER / "rules.yml").read_text("utf-8").replace("14 * 86400", "13 * 86400")
    head, *courses = (FOLDER / "rules_test.yml").read_text("utf-8").split("  - name: ")
    (course,) = (text for text in courses if text.startswith("AdvsentryCertificateEnds"))
    (tmp_path / "rules.yml").write_text(rules, "utf-8")
    (tmp_path / "rules_test.yml").write_text(f"{head}  - name: {course}", "utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 1


class Prometheus:
    """One that runs."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **arguments: str) -> Any:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[float]:
        return [float(series["value"][1]) for series in self.get("query", query=query)["result"]]

    def wait_for(self, query: str) -> None:
        """Until a query has a result."""
        latest = time.monotonic() + WAIT_S
        while True:
            try:
                if self.values(query):
                    return
            except OSError:
                pass  # it has just begun
            assert time.monotonic() < latest, query
            time.sleep(0.1)


@pytest.fixture
def watching(engine: Engine, tmp_path: Path) -> Iterator[Prometheus]:
    """A server that has been asked, and Prometheus with our files, which finds it by its address and looks oftener."""
    text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
    head, found, _ = text.partition("    dns_sd_configs:\n")
    assert found
    (tmp_path / "rules.yml").write_bytes((FOLDER / "rules.yml").read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with running(engine, canary_s=0.2) as server:
        with Client(server.ports.grpc) as client:
            for image in [*tiny.images(8), tiny.odd_image()]:
                client.detect(image)
        targets = f"    static_configs:\n      - targets: ['{server.ports.metrics}']\n"
        (tmp_path / "prometheus.yml").write_text(head.replace("10s", "500ms") + targets, encoding="utf-8")
        command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        command += [f"--web.listen-address={address}", "--log.level=error"]
        with subprocess.Popen(command, cwd=tmp_path) as process:
            try:
                yield Prometheus(address)
            finally:
                process.terminate()


def test_prometheus_scrapes_a_server_and_answers_every_panel(watching: Prometheus) -> None:
    watching.wait_for("job:advsentry_adversarial:share10m")
    (target,) = watching.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert watching.values("sum(advsentry_images_total)") == [9]
    assert watching.values("advsentry_ready") == [1]
    groups = watching.get("rules")["groups"]
    assert [rule["lastError"] for group in groups for rule in group["rules"] if "lastError" in rule] == []
    assert watching.values('ALERTS{alertstate="firing"}') == []
    for query in (query for board in BOARDS for panel in board.panels() for query in panel.queries):
        text = query.expr.replace(HERE, SELECTOR)
        for name, value in {"$job": ".*", "$instance": ".*", "$__rate_interval": "1m"}.items():
            text = text.replace(name, value)
        watching.get("query", query=text)  # an error in it is an HTTP status
