"""The service calls itself before it serves: all kinds of calls, none of them counted, and no start fails for it."""

import asyncio
import logging
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from deploy.reliability.certificates import Authority
from service import private_folder as folders
from service import rehearsal
from service.detection.engine import Engine
from service.metrics import Metrics
from service.rpc.call import Scope
from service.settings import Settings
from service.tokens import new_token
from tests.service.running import running

METHODS = {
    "advsentry.v1.DetectorService": ("Detect", "BatchDetect", "StreamDetect"),
    "inference.GRPCInferenceService": ("ModelInfer",),
}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> list[CollectorRegistry]:
    """The registries of rehearsals."""
    made: list[CollectorRegistry] = []

    def noted(registry: CollectorRegistry) -> Metrics:
        made.append(registry)
        return Metrics(registry)

    monkeypatch.setattr(rehearsal, "Metrics", noted)
    monkeypatch.setattr(rehearsal, "MOST_S", 20.0)  # of a busy machine
    return made


async def rehearse(engine: Engine, **settings: object) -> None:
    with ThreadPoolExecutor(1) as decoders:
        await rehearsal.rehearse(engine, Settings(**settings), decoders)  # type: ignore[arg-type]


def totals(registries: list[CollectorRegistry], name: str, label: str) -> dict[str, float]:
    """Of each value of a label, where it is not 0."""
    found: dict[str, float] = {}
    for metric in (metric for registry in registries for metric in registry.collect()):
        for sample in metric.samples:
            if sample.name == name and sample.value:
                found[sample.labels[label]] = found.get(sample.labels[label], 0) + sample.value
    return found


def test_every_kind_of_call_is_made_and_ends_well(
    engine: Engine, own: list[CollectorRegistry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asyncio.run(rehearse(engine))
    calls = totals(own, "grpc_server_handled_total", "grpc_method")
    assert calls.keys() == {method for methods in METHODS.values() for method in methods}
    assert min(calls.values()) >= rehearsal.ROUNDS
    assert totals(own, "grpc_server_handled_total", "grpc_code").keys() == {"OK"}
    assert totals(own, "advsentry_images_total", "outcome").keys() == {"detected"}
    assert not list(tmp_path.iterdir())
    assert not any(thread.name.startswith("graph") for thread in threading.enumerate())


def test_nothing_of_it_counts_whatever_the_settings(
    engine: Engine, own: list[CollectorRegistry], tmp_path: Path
) -> None:
    authority, log = Authority(tmp_path), tmp_path / "access.log"
    signed, identities = authority.sign("server"), tmp_path / "identities.toml"
    identities.write_text(new_token("guest", [Scope.DETECT]).entry)
    settings = {
        "tls_cert": str(signed.cert),
        "tls_key": str(signed.key),
        "tls_client_ca": str(authority.ca),
        "identities": str(identities),
        "rate_images_per_s": 1.0,
        "host": "127.0.0.2",
        "access_log": str(log),
        "canary_s": 1000.0,
    }
    with running(engine, **settings) as server:
        assert totals(own, "advsentry_images_total", "outcome")["detected"] > 1  # beyond the rate, too
        assert server.app._health.is_ready
        assert server.value("advsentry_batch_size_sum") == 1  # the canary's
        assert server.app._metrics.work.runs.keys() == {1}
        assert server.app._metrics.judged.images == 0
        samples = [sample for metric in server.registry.collect() for sample in metric.samples]
        counting = ("grpc_server", "advsentry_requests", "advsentry_images", "advsentry_stage", "advsentry_detector_p")
        named = [one for one in samples if one.name.startswith(counting) and not one.name.endswith("_created")]
        counted = {one.name for one in named if one.value}
        assert not counted
    assert not log.read_text()


@pytest.mark.parametrize("limits", [{"max_image_bytes": 50}, {"max_message_bytes": 1024}, {"max_deadline_s": 0.001}])
def test_limits_that_refuse_its_images_are_no_failure(
    engine: Engine, limits: dict[str, object], own: list[CollectorRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(rehearse(engine, **limits))
    calls = totals(own, "grpc_server_handled_total", "grpc_method")
    assert calls.keys() == {method for methods in METHODS.values() for method in methods}
    assert min(calls.values()) >= rehearsal.ROUNDS
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


def nowhere(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    monkeypatch.setattr(rehearsal, "private_folder", lambda: None)


def too_deep(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    deep = folder / ("a" * 120)  # the path of a socket has 107 bytes at most
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))


def without_server(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(rehearsal, "build_server", fail)


@pytest.mark.parametrize("fault", [nowhere, too_deep, without_server])
def test_a_rehearsal_that_fails_fails_no_start(
    engine: Engine, fault: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fault(patch, tmp_path)  # type: ignore[operator]
        with running(engine) as server:
            grpc.channel_ready_future(server.channel).result(20)
            assert server.app._health.is_ready


def test_it_ends_in_time_and_says_nothing_of_calls_that_it_cuts_short(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rehearsal, "ROUNDS", 10**9)
    for most_s in (0.0, 0.01, 0.02, 0.03, 0.04, 0.05):
        monkeypatch.setattr(rehearsal, "MOST_S", most_s)
        asyncio.run(asyncio.wait_for(rehearse(engine), 20))
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


def test_a_folder_that_only_its_owner_may_enter() -> None:
    made = folders.private_folder()
    assert made is not None
    assert made.stat().st_mode & 0o777 == 0o700
    made.rmdir()
