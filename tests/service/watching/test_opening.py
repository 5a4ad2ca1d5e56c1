"""Settings and bundles that go together, and those that do not."""

import asyncio
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.client import Client
from service.detection.bundle import write_bundle
from service.detection.engine import Engine
from service.errors import PermissionRefused, SetupError
from service.history.bounds import Bounds
from service.history.history import History
from service.metrics import Metrics
from service.settings import Settings
from service.watching.opening import OpenWatch, open_watch
from service.watching.watch import HistoryWatch
from tests import tiny
from tests.service.rpc.test_door import until
from tests.service.running import Running, running
from tests.service.watching.world import CALIBRATION, Scripted, images

NO_MODE = {"annotate": False, "reject": False, "silent": False}
WITH: OpenWatch = partial(open_watch, calibration_of=lambda _: CALIBRATION)


def opened(engine: Engine, how: OpenWatch = WITH, **settings: object) -> HistoryWatch | None:
    async def made() -> HistoryWatch | None:
        watch = how(
            engine.bundle,
            Settings(**settings),
            Metrics(CollectorRegistry()),
            loop=asyncio.get_running_loop(),
            is_first=True,
        )  # type: ignore[arg-type]
        if watch is not None:
            watch.close()
        return watch

    return asyncio.run(made())


def test_a_bundle_without_a_calibration_has_no_history_unless_one_is_asked_for(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.watching")
    assert opened(engine, open_watch) is None
    assert [record.message.partition(": ")[0] for record in caplog.records] == ["no query history"]
    assert opened(engine, open_watch, history="off") is None
    for mode in ("observe", "annotate", "reject", "silent"):
        with pytest.raises(SetupError, match=f"--history {mode}: expected a bundle with a calibration.*--history off"):
            opened(engine, open_watch, history=mode)


def test_a_bundle_with_one_is_observed_unless_it_cannot_keep_the_level(engine: Engine) -> None:
    watch = opened(engine)
    assert watch is not None
    assert watch.rules.mode == "observe"
    assert opened(engine, history="off") is None
    assert opened(engine, history_level=1e-5) is None
    with pytest.raises(SetupError, match=r"a level of 1e-05 needs a calibration with 99999 streams"):
        opened(engine, history="observe", history_level=1e-5)


def test_each_setting_counts_where_it_belongs(engine: Engine) -> None:
    all_set = {"history_flags": 7, "history_late_flags": 9, "history_action": "plain", "history_wait_s": 0.5}
    found = {mode: opened(engine, history=mode, **all_set) for mode in ("annotate", "reject", "silent")}
    rules = {mode: watch.rules for mode, watch in found.items() if watch is not None}
    assert {mode: one.cuts_off("shop") for mode, one in rules.items()} == {
        "annotate": False,
        "reject": True,
        "silent": True,
    }
    assert {mode: one.cuts_off("") for mode, one in rules.items()} == {**NO_MODE, "reject": True}
    assert {mode: one.is_plain for mode, one in rules.items()} == {"annotate": False, "reject": True, "silent": False}
    assert {mode: one.late_flags for mode, one in rules.items()} == {"annotate": 0, "reject": 0, "silent": 9}
    assert {one.wait_s for one in rules.values()} == {0.5}


def test_bounds_and_secret_are_those_of_the_settings(engine: Engine, tmp_path: Path) -> None:
    given: list[dict[str, object]] = []
    path = tmp_path / "secret"

    def open_history(url: str, calibration: object, **options: object) -> Scripted:
        given.append({"url": url, **options})
        return Scripted()

    how: OpenWatch = partial(open_watch, calibration_of=lambda _: CALIBRATION, open_history=open_history)  # type: ignore[arg-type]
    opened(engine, how, history_url="redis://store", history_secret=str(path), history_window_s=10**5)
    assert given[0]["url"] == "redis://store"
    assert given[0]["dimensions"] == 4
    assert given[0]["bounds"] == Bounds(window_s=1e5, rotate_s=2e5)
    opened(engine, how, history_secret=str(path), history_entries=1000, history_bytes=2**20)
    assert given[1]["secret"] == given[0]["secret"] == path
    assert given[1]["bounds"] == Bounds(entries=1000, max_bytes=2**20)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"history_secret": "{folder}/none"}, "secret cannot be read: No such file"),
        ({"history_snapshot": "{folder}/x", "workers": 2}, "goes with one process, got --workers 2"),
        ({"history_snapshot": "{folder}/x", "history_url": "redis://a"}, "leave it out with --history-url"),
        ({"history_url": "nonsense"}, "history: expected"),
    ],
    ids=["no secret", "many processes", "shared", "address"],
)
def test_what_does_not_go_together_is_told(
    engine: Engine, tmp_path: Path, settings: dict[str, object], says: str
) -> None:
    given = {
        name: str(value).format(folder=tmp_path) if type(value) is str else value for name, value in settings.items()
    }
    with pytest.raises(SetupError, match=says):
        opened(engine, **given)


def test_a_snapshot_outlives_a_restart(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.watching")
    place = tmp_path / "history"
    for kept in (0, 4):
        with (
            running(engine, open_watch=WITH, history_snapshot=str(place), history_entries=500) as server,
            Client(server.ports.grpc) as client,
        ):
            assert _kept(server) == kept
            for image in tiny.images(4, seed=kept):
                client.detect(image)
    assert "query history: 8 queries kept in" in caplog.records[-1].message
    with running(engine, open_watch=WITH, history_snapshot=str(place), history_entries=600) as server:
        assert _kept(server) == 0
    assert any("begins anew" in record.message for record in caplog.records)


def _kept(server: Running) -> int:
    watch = server.app.models.current.watch
    assert watch is not None
    return len(watch._history)


def test_a_snapshot_that_cannot_be_written_is_told(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(engine, open_watch=WITH, history_snapshot=str(tmp_path / "no" / "folder")):
        pass
    assert any("the history cannot be written" in record.message for record in caplog.records)


def test_another_bundle_begins_another_history(tmp_path: Path) -> None:
    content = tiny.files()
    path = tmp_path / "model"
    write_bundle(path, tiny.manifest(content), content)
    made: list[Scripted] = []

    def open_history(*_: object, **__: object) -> Scripted:
        made.append(Scripted())
        return made[-1]

    how: OpenWatch = partial(open_watch, calibration_of=lambda _: CALIBRATION, open_history=open_history)  # type: ignore[arg-type]
    with (
        running(tiny.engine(path), open_watch=how, bundle=str(path), threads=1) as server,
        Client(server.ports.grpc) as client,
    ):
        client.detect(images([True])[0])
        before = server.app.models.current.watch
        write_bundle(path, tiny.manifest(content, version="2"), content, replace=True)
        asyncio.run_coroutine_threadsafe(server.app.models.reload(), server.loop).result(20)
        client.detect(images([False])[0])
        until(lambda: [len(one) for one in made] == [1, 1])
        assert before is not None
        until(lambda: [one.is_closed for one in made] == [True, False])
        assert server.app.models.current.watch is not before
        assert server.value("advsentry_history_clients", state="watched") == 0


def test_the_real_history_notices_a_search_and_nothing_else(tmp_path: Path) -> None:
    """Steps to and fro over the boundary between two classes, beside images that have nothing to do with each other."""
    engine = tiny.engine(tiny.write(tmp_path / "colour", channels=3))
    generator = np.random.default_rng(7)
    with (
        running(engine, open_watch=WITH, history="reject", history_flags=3, history_wait_s=10.0) as server,
        Client(server.ports.grpc) as client,
    ):
        for image in generator.integers(0, 256, (40, tiny.SIDE, tiny.SIDE, 3), dtype=np.uint8):
            client.detect(image)
        assert server.value("advsentry_history_flags_total", scope="everyone") == 0
        start = np.full((tiny.SIDE, tiny.SIDE, 3), 90)
        start[:4] += 30
        steps = [(start + generator.integers(-2, 3, start.shape)).astype(np.uint8) for _ in range(200)]
        with pytest.raises(PermissionRefused, match="look like steps of a search"):
            list(map(client.detect, steps))
        assert server.value("advsentry_history_flags_total", scope="everyone") >= 3
        watch = server.app.models.current.watch
        assert watch is not None
        (found,) = watch.watched()
        assert found.observation.everyone is not None
        assert found.observation.everyone.label_flips > 3
    assert isinstance(watch._history, History)
