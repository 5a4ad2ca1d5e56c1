"""`advsentry serve --workers`: several processes on one port that come back, reload, and go when they are told."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from protos import detection_pb2_grpc
from service.admin import ask_forgive, ask_history, ask_reload
from service.errors import AdvsentryError, SetupError
from service.merging import GAUGES, Merged, read_page
from service.metrics import Metrics
from service.ports import reserve_port
from service.private_http import FORGIVE
from service.settings import Settings
from service.supervisor import Supervisor
from tests.service.test_process import ROOT, command, serving
from tests.service.test_reload import put, request

WAIT_S = 60  # processes start slowly on a busy machine


def until(is_so: Callable[[], bool]) -> None:
    latest = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < latest
        time.sleep(0.02)


def children(process: int) -> dict[int, str]:
    """Their states: Z is a zombie."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, state, parent = re.match(r"(\d+) \(.*\) (\S) (\d+)", path.read_text()).groups()  # type: ignore[union-attr]
        except OSError:
            continue
        if int(parent) == process:
            found[int(name)] = state
    return found


def is_gone(process: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True


def value(metrics: str, name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=WAIT_S) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    found = [s.value for family in families for s in family.samples if (s.name, s.labels) == (name, labels)]
    return found[0] if found else 0.0


def versions(target: str, calls: int) -> set[str]:
    """Of so many calls, each by a connection of its own."""
    seen = set()
    for number in range(calls):
        # equal options would share one connection
        with grpc.insecure_channel(target, [("grpc.primary_user_agent", f"{number}")]) as channel:
            stub = detection_pb2_grpc.DetectorServiceStub(channel)
            seen.add(str(stub.Detect(request(), timeout=WAIT_S, wait_for_ready=True).meta.model_version))
    return seen


def test_a_life_of_two_workers(tmp_path: Path) -> None:
    path = put(tmp_path / "model", "1")
    with serving(path, "--workers", 2, "--admin", "on", "--lame-duck-s", 0) as (process, target, metrics):
        assert value(metrics, "advsentry_processes", state="serving") == 2
        assert versions(target, 20) == {"1"}
        assert value(metrics, "advsentry_images_total", outcome="detected") == 20  # canaries are none of these
        before = children(process.pid)
        assert len(before) == 2

        killed = next(iter(before))
        os.kill(killed, signal.SIGKILL)
        until(lambda: value(metrics, "advsentry_process_restarts_total") == 1)
        until(lambda: value(metrics, "advsentry_processes", state="serving") == 2)
        after = children(process.pid)
        assert len(before.keys() & after.keys()) == 1
        assert "Z" not in after.values()
        assert value(metrics, "advsentry_images_total", outcome="detected") == 20

        put(path, "2")
        assert ask_reload(f"http://{metrics}") == "serving tiny version 2, before that tiny version 1"
        assert versions(target, 12) == {"2"}

        assert ask_history(f"http://{metrics}") == {"mode": "off", "trouble": "", "is_shared": False, "watched": []}
        with pytest.raises(AdvsentryError, match="no query history"):
            ask_forgive(f"http://{metrics}", "shop")

        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
        assert all(map(is_gone, after))


@pytest.mark.parametrize(("url", "flags"), [("", 7), ("redis://127.0.0.1:1", 4)])
def test_flags_that_processes_share_are_told_once(
    url: str, flags: int, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "_ask_all", lambda *_: ["3", "4", "0"])

    async def forgiven() -> str:
        settings = Settings(bundle=bundle_path, history_url=url)
        return str(Supervisor(settings)._commands()[FORGIVE]("shop"))

    assert asyncio.run(forgiven()) == f"{flags}"


def test_a_process_comes_back_with_what_was_served_when_a_link_leads_to_what_is_wrong(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(put(tmp_path / "a", "1"))

    def turn(path: Path) -> None:
        (tmp_path / "next").symlink_to(path)
        (tmp_path / "next").rename(link)

    wrong = put(tmp_path / "b", "2")
    with (wrong / "model.onnx").open("ab") as file:
        file.write(b"x")
    with serving(link, "--workers", 1, "--watch-s", 0.2, "--lame-duck-s", 0) as (process, target, metrics):
        turn(wrong)
        os.kill(next(iter(children(process.pid))), signal.SIGKILL)
        until(lambda: value(metrics, "advsentry_process_restarts_total") == 1)
        until(lambda: value(metrics, "advsentry_processes", state="serving") == 1)
        assert versions(target, 1) == {"1"}
        turn(put(tmp_path / "c", "3"))
        until(lambda: versions(target, 1) == {"3"})
        assert value(metrics, "advsentry_process_restarts_total") == 1


def test_a_reload_replaces_processes_that_may_hold_a_gpu_and_they_end_with_their_supervisor(tmp_path: Path) -> None:
    path = put(tmp_path / "model", "1")
    flags = ("--workers", 1, "--device", "auto", "--admin", "on", "--lame-duck-s", 0)
    with serving(path, *flags) as (process, target, metrics):
        old = children(process.pid)
        put(path, "2")
        assert ask_reload(f"http://{metrics}") == "1 new processes serve, the old ones end"
        until(lambda: all(map(is_gone, old)))
        assert versions(target, 1) == {"2"}
        assert value(metrics, "advsentry_process_restarts_total") == 0
        new = children(process.pid)
        process.kill()
        until(lambda: all(map(is_gone, new)))


def test_a_second_signal_ends_all_at_once(bundle_path: Path) -> None:
    with serving(bundle_path, "--workers", 1, "--lame-duck-s", 1000) as (process, _, _):
        workers = children(process.pid)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 1
        until(lambda: all(map(is_gone, workers)))


def test_a_bundle_that_does_not_start_is_told_by_its_own_line(tmp_path: Path) -> None:
    path = put(tmp_path / "model", "1")
    (path / "model.onnx").write_bytes(b"")
    arguments = command("serve", "--bundle", path, "--port", 0, "--metrics-port", 0, "--workers", 2)
    done = subprocess.run(
        [*arguments, "--log-level", "error"], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(r"advsentry: error: model/model.onnx: expected \d+ bytes, got 0\n", done.stderr)
    assert not done.stdout


def test_a_port_on_which_others_listen_is_refused_even_if_they_would_share_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken,
        pytest.raises(SetupError, match="--port"),
        reserve_port("127.0.0.1", taken.getsockname()[1]),
    ):
        pass
    with (
        pytest.raises(SetupError, match="--health-port or --health-host"),
        reserve_port("1.2.3.4", 0, flags="--health-port or --health-host"),
    ):
        pass


def test_a_port_is_kept_from_another_supervisor_before_anybody_listens() -> None:
    with reserve_port("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with reserve_port("127.0.0.1", port):
        with pytest.raises(SetupError, match=f"127.0.0.1:{port}"), reserve_port("127.0.0.1", port):
            pass
        with reserve_port("127.0.0.2", port):  # another address
            pass
    with reserve_port("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


def page(restarts: float, ready: float, seconds: float) -> str:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.dropped["cancelled"].inc(restarts)
    metrics.ready.set(ready)
    metrics.queue_items.set(2)
    metrics.stage["decode"].observe(seconds)
    return generate_latest(registry).decode()


def test_what_is_counted_is_added_and_stays_when_its_process_has_gone() -> None:
    pages = [read_page(page(2, 1, 0.001)), read_page(page(3, 0, 0.004))]
    merged = Merged(lambda: pages)
    registry = CollectorRegistry()
    registry.register(merged)

    def found(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert found("advsentry_dropped_total", reason="cancelled") == 5
    assert found("advsentry_ready") == 0
    assert found("advsentry_queue_items") == 4
    assert found("advsentry_stage_seconds_bucket", stage="decode", le="0.002") == 1
    assert found("advsentry_stage_seconds_bucket", stage="decode", le="+Inf") == 2
    assert found("advsentry_stage_seconds_sum", stage="decode") == pytest.approx(0.005)
    merged.keep(pages.pop)
    assert found("advsentry_dropped_total", reason="cancelled") == 5
    assert found("advsentry_ready") == 1
    assert found("advsentry_queue_items") == 2
    assert found("advsentry_stage_seconds_count", stage="decode") == 2


def test_the_table_says_of_every_gauge_what_several_are() -> None:
    registry = Metrics(CollectorRegistry()).registry
    assert {family.name for family in registry.collect() if family.type == "gauge"} == set(GAUGES)
