"""Dashboards and alert rules: every metric and label that they name is in a scrape, and people can read them."""

import json
import re
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from deploy.boards.__main__ import BOARDS, FOLDER
from deploy.boards.board import HERE, SELECTOR, Board, Panel
from deploy.reliability.metrics_page import read_metrics
from service.client import Client, Options
from service.errors import AdvsentryError, ErrorReason
from service.rpc.pipeline import REFUSED
from tests import tiny
from tests.deploy.promql import named, rules
from tests.service.running import running
from tests.service.test_process import serving

ROOT = Path(__file__).parent.parent.parent
RULES = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
RULES_TEST = (ROOT / "deploy" / "prometheus" / "rules_test.yml").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
ALERTS = re.findall(r"- alert: (\w+)", RULES)
OF_PROMETHEUS = {"up", "ALERTS"}
ADDED = {"job", "instance"}  # by Prometheus, to every series
LATER = {
    ("advsentry_requests_total", "code"): {code.name for code in grpc.StatusCode},
    ("grpc_server_handled_total", "grpc_code"): {code.name for code in grpc.StatusCode},
    ("advsentry_image_errors_total", "reason"): {*ErrorReason, REFUSED},
}
"""Values that a series gets when they first occur."""
Scraped = dict[str, dict[str, set[str]]]
PANELS = [pytest.param(panel, id=f"{board.uid}/{panel.title}") for board in BOARDS for panel in board.panels()]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Scraped:
    """Values by label by metric: of a server that met a clean, an odd and a broken image, and of one with processes."""
    with running(tiny.engine(bundle_path)) as server:
        with Client(server.ports.grpc) as client:
            client.detect(tiny.images(1)[0])
            client.detect(tiny.odd_image(), Options(alpha=0.05))
            with pytest.raises(AdvsentryError):
                client.detect(b"no image")
        server.app._drift.look(time.monotonic())  # it would look by itself after some seconds
        page = read_metrics(server.ports.metrics)
    with serving(bundle_path, "--workers", 1, "--lame-duck-s", 0) as (process, _, metrics):
        workers = read_metrics(metrics)
        process.terminate()
        process.wait(60)
    found: Scraped = {}
    for one in (page, workers):
        for name, labels in one.series:
            values = found.setdefault(name, {})
            for label, value in labels:
                values.setdefault(label, set()).add(value)
    return found


def assert_known(query: str, scraped: Scraped, recorded: set[str]) -> None:
    for one in named(query):
        if one.metric in OF_PROMETHEUS | recorded:
            continue
        assert one.metric in scraped, f"{one.metric} is in no scrape: {query}"
        there = scraped[one.metric]
        assert one.labels <= there.keys() | ADDED, f"{one.metric} has {there.keys()}: {query}"
        for label, value in one.wanted:
            known = there.get(label, set()) | LATER.get((one.metric, label), set())
            assert label in ADDED or value in known, f"{one.metric} has no {label} {value}: {query}"


def test_a_query_is_read_rightly() -> None:
    query = (
        'sum by (job, le) (rate(a_b{HERE, x=~"y|z{"}[5m] offset 10m)) / c:d:e > 0.1 or absent(up{job="j"}) and on (k) f'
    )
    found = {one.metric: one.labels for one in named(query)}
    assert found == {"a_b": {"x"}, "c:d:e": set(), "up": {"job"}, "f": set()}


def test_every_rule_is_read() -> None:
    assert len(rules(RULES)) == len(re.findall(r"expr:", RULES)) == len(re.findall(r"- (?:alert|record):", RULES))


def test_every_metric_of_a_rule_is_in_a_scrape(scraped: Scraped) -> None:
    recorded = {name for name in rules(RULES) if ":" in name}
    for query in rules(RULES).values():
        assert_known(query, scraped, recorded)


@pytest.mark.parametrize("panel", PANELS)
def test_every_metric_of_a_panel_is_in_a_scrape(panel: Panel, scraped: Scraped) -> None:
    for query in panel.queries:
        assert_known(query.expr.replace(HERE, SELECTOR), scraped, set())


def test_a_metric_that_is_in_no_scrape_is_told(scraped: Scraped) -> None:
    with pytest.raises(AssertionError, match="advsentry_readyy is in no scrape"):
        assert_known("advsentry_readyy == 0", scraped, set())
    with pytest.raises(AssertionError, match="advsentry_dropped_total has no reason overloaded"):
        assert_known('advsentry_dropped_total{reason=~"overloaded|deadline"} > 0', scraped, set())
    with pytest.raises(AssertionError, match="advsentry_ready has"):
        assert_known('advsentry_ready{color="red"} == 0', scraped, set())


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_of_which_instances(panel: Panel) -> None:
    assert panel.title
    assert panel.unit
    assert panel.description.endswith(".")
    for query in panel.queries:
        for one in named(query.expr.replace(HERE, SELECTOR)):
            assert one.metric == "ALERTS" or one.labels >= ADDED, f"{one.metric} is of no chosen instance: {query.expr}"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_committed_dashboard_is_what_the_code_makes(board: Board) -> None:
    text = (FOLDER / f"{board.uid}.json").read_text(encoding="utf-8")
    assert text == board.text()
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = np.zeros((200, 24), int)
    for place in (panel["gridPos"] for panel in panels):
        taken[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]] += 1
    assert taken.max() == 1


def test_every_alert_is_tested_and_told_of() -> None:
    fired = set(re.findall(r'labels: \'\{alertname="(\w+)"\}\'', RULES_TEST))
    assert fired == set(ALERTS)
    assert re.findall(r"^\| `(Advsentry\w+)`", PAGE, re.MULTILINE) == ALERTS
