"""A run of the graph that does not come back: the server still reloads, ends, and makes way for another process."""

import asyncio
import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from deploy.reliability.inject import command as faulty
from protos import detection_pb2_grpc
from service.app import App
from service.detection.engine import Engine
from service.errors import Unavailable
from service.loaded import LoadedModel
from service.settings import Settings
from tests import tiny
from tests.service.running import Running, running
from tests.service.test_process import ROOT
from tests.service.test_reload import put, reload, request, until

WAIT_S = 30


class Hanging:
    """Holds up every run of the engines that it was given, until the end of the test."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = threading.Event()

    def hang(self, model: LoadedModel) -> None:
        measure = model.engine.measure

        def held(images: Any) -> Any:
            self.begun.set()
            assert self.go_on.wait(WAIT_S)
            return measure(images)

        model.batcher._measure = held

    def call(self, server: Running) -> Any:
        """One that runs and hangs."""
        self.hang(server.app.models.current)
        made = detection_pb2_grpc.DetectorServiceStub(server.channel).Detect.future(request(), timeout=WAIT_S)
        assert self.begun.wait(WAIT_S)
        return made


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.go_on.set()


def test_a_reload_after_one_that_hangs_is_refused_in_time(tmp_path: Path, hanging: Hanging) -> None:
    path = put(tmp_path / "model", "1")
    settings = {"stuck_s": 0.1, "max_deadline_s": 0.1, "canary_s": 1000.0}
    with running(tiny.engine(path), bundle=str(path), threads=1, **settings) as server:
        call = hanging.call(server)
        assert "version 2" in reload_to(server, path, "2")
        with pytest.raises(Unavailable, match="restart the server"):
            reload_to(server, path, "3")
        assert call.exception(WAIT_S) is not None
        hanging.go_on.set()
        until(lambda: not server.app.models.retiring)
        assert "version 3" in reload_to(server, path, "3")


def reload_to(server: Running, path: Path, version: str) -> str:
    put(path, version)
    return reload(server)


def test_closing_says_that_a_run_does_not_come_back(engine: Engine, hanging: Hanging) -> None:
    with running(engine, stuck_s=0.1, canary_s=1000.0) as server:
        call = hanging.call(server)
        stop = asyncio.run_coroutine_threadsafe(server.app.models.close(0.1), server.loop)
        assert stop.result(WAIT_S) is False
        hanging.go_on.set()
        stop = asyncio.run_coroutine_threadsafe(server.app.models.close(WAIT_S), server.loop)
        assert stop.result(WAIT_S) is True
        assert call.exception(WAIT_S) is not None


def test_a_signal_ends_a_server_whose_graph_hangs(tmp_path: Path) -> None:
    path, marker = put(tmp_path / "model", "1"), tmp_path / "marker"
    arguments = [*faulty("stuck", marker), "serve", "--bundle", str(path), "--port", "0", "--metrics-port", "0"]
    arguments += ["--lame-duck-s", "0", "--canary-s", "0.1", "--stuck-s", "0.2"]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        latest = threading.Timer(2 * WAIT_S, process.kill)
        latest.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith("serving ")
            marker.touch()
            for line in process.stderr:
                if "a batch has run for more than" in line:
                    break
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=WAIT_S)
            assert process.returncode == 1
            assert "ending without the run of the graph" in log
        finally:
            latest.cancel()
            process.kill()


def test_closing_does_not_wait_for_a_decoding_that_does_not_come_back(
    engine: Engine, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.LAST_RUN_S", 1.0)

    async def run() -> None:
        settings = Settings(port=0, metrics_port=0, lame_duck_s=0, canary_s=1000.0, decode_threads=1)
        made = App(settings, engine, CollectorRegistry())
        await made.start()
        made._decoders.submit(hanging.go_on.wait, WAIT_S)
        waiting = made._decoders.submit(hanging.begun.set)
        stopping = asyncio.create_task(made.stop())
        longest_s, last = 0.0, time.monotonic()
        while not stopping.done():
            await asyncio.sleep(0.01)
            longest_s, last = max(longest_s, time.monotonic() - last), time.monotonic()
        assert longest_s < WAIT_S / 3, "the loop, and signals with it, waited"
        assert not stopping.result()
        assert waiting.cancelled()
        hanging.go_on.set()  # before the loop closes, which waits for its threads

    asyncio.run(run())


def test_one_of_several_processes_gives_up_when_its_graph_hangs(
    engine: Engine, hanging: Hanging, tmp_path: Path
) -> None:
    async def run() -> None:
        settings = Settings(port=0, metrics_port=0, lame_duck_s=0, canary_s=1000.0, stuck_s=0.1)
        made = App(settings, engine, CollectorRegistry(), private_socket=tmp_path / "socket")
        await made.start()
        hanging.hang(made.models.current)
        with contextlib.suppress(Unavailable):
            await made.models.current.batcher.submit(tiny.images(1)[0], asyncio.get_running_loop().time() + WAIT_S)
        async with asyncio.timeout(WAIT_S):
            await made.models.lost.wait()
        hanging.go_on.set()
        assert await made.stop()

    asyncio.run(run())
