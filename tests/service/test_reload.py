"""Another bundle in the place of the one that is served, while calls go on."""

import asyncio
import base64
import contextlib
import gc
import http.client
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service.admin import ask_reload
from service.canary import Canaries
from service.detection.bundle import load_bundle, write_bundle
from service.detection.manifest import Canary
from service.errors import AdvsentryError, BundleError, SetupError, Unavailable
from service.reload import BundleWatch, fingerprint
from service.rpc.pipeline import Pipeline
from tests import tiny
from tests.service.bad_images import encoded
from tests.service.running import Running, running
from tests.service.test_process import ROOT, command, serving

WAIT_S = 20
FILES = tiny.files()


def put(path: Path, version: str, **changes: object) -> Path:
    write_bundle(path, tiny.manifest(FILES, version=version, **changes), FILES, replace=True)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return put(tmp_path / "model", "1")


def served(path: Path, **settings: object) -> Any:
    return running(tiny.engine(path), bundle=str(path), threads=1, **settings)


def reload(server: Running) -> str:
    return asyncio.run_coroutine_threadsafe(server.app.models.reload(), server.loop).result(WAIT_S)


def request(**options: object) -> pb.DetectRequest:
    image = tiny.images(1)[0]
    raw = pb.RawImage(data=image.tobytes(), height=8, width=8, channels=1)
    return pb.DetectRequest(image=pb.Image(raw=raw), options=pb.DetectOptions(**options))  # type: ignore[arg-type]


def version(server: Running) -> str:
    return str(detection_pb2_grpc.DetectorServiceStub(server.channel).Detect(request()).meta.model_version)


def until(is_so: Callable[[], bool], within_s: float = WAIT_S) -> None:
    latest = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < latest
        time.sleep(0.02)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_reloads_under_load_lose_no_call_and_keep_no_memory(path: Path) -> None:
    ended = threading.Event()

    def call(server: Running) -> set[str]:
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        seen = set()
        while not ended.is_set():
            seen.add(stub.Detect(request(), timeout=WAIT_S).meta.model_version)
        return seen

    def stream(server: Running) -> set[str]:
        def items() -> Iterator[pb.StreamDetectRequest]:
            while not ended.is_set():
                yield pb.StreamDetectRequest(item_id="x", image=request().image)
                time.sleep(0.001)

        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        seen = set()
        for answer in stub.StreamDetect(items()):
            assert answer.result.WhichOneof("outcome") == "detection"
            seen.add(answer.meta.model_version)
        return seen

    with served(path) as server, ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(call, server) for _ in range(2)] + [threads.submit(stream, server) for _ in range(2)]
        try:
            for number in range(2, 12):
                put(path, str(number))
                assert reload(server) == f"serving tiny version {number}, before that tiny version {number - 1}"
                assert version(server) == str(number)
                if number == 3:
                    before = resident_bytes()
        finally:
            ended.set()
        for one in calls:
            assert {"2", "11"} & one.result(WAIT_S)
        until(lambda: not server.app.models.retiring)
        gc.collect()
        assert resident_bytes() - before < 20 * 2**20
        assert server.value("advsentry_reloads_total", outcome="loaded") == 10
        assert len(next(iter(server.app._metrics.model_info.collect())).samples) == 1


def test_a_stream_follows_with_the_options_that_it_began_with(path: Path) -> None:
    with served(path) as server:
        sent: queue.Queue[pb.StreamDetectRequest | None] = queue.Queue()
        answers = detection_pb2_grpc.DetectorServiceStub(server.channel).StreamDetect(iter(sent.get, None))

        def ask() -> Any:
            sent.put(
                pb.StreamDetectRequest(image=request().image, stream_options=pb.StreamOptions(options=options.pop(0)))
            )
            return next(answers)

        options = [pb.DetectOptions(top_k=2), pb.DetectOptions()]
        first = ask()
        put(path, "2")
        reload(server)
        second = ask()
        assert [first.meta.model_version, second.meta.model_version] == ["1", "2"]
        assert [len(answer.result.detection.classes) for answer in (first, second)] == [2, 2]
        sent.put(None)


def test_a_stream_that_asks_for_a_version_ends_when_it_is_gone(path: Path) -> None:
    with served(path) as server:
        sent: queue.Queue[pb.StreamDetectRequest | None] = queue.Queue()
        answers = detection_pb2_grpc.DetectorServiceStub(server.channel).StreamDetect(iter(sent.get, None))
        item = pb.StreamDetectRequest(
            image=request().image, stream_options=pb.StreamOptions(options=pb.DetectOptions(model_version="1"))
        )
        sent.put(item)
        assert next(answers).meta.model_version == "1"
        put(path, "2")
        reload(server)
        sent.put(item)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        sent.put(None)


def test_a_call_that_began_before_is_answered_by_what_it_began_with(path: Path) -> None:
    with served(path) as server:
        old: list[Pipeline] = [server.app.models.served.current]
        batcher = server.app.models.current.batcher
        put(path, "2")
        reload(server)

        async def score() -> None:
            await old[0].score(tiny.images(1)[0], time.monotonic() + WAIT_S)

        asyncio.run_coroutine_threadsafe(score(), server.loop).result(WAIT_S)
        old.clear()
        until(lambda: not server.app.models.retiring)
        with pytest.raises(Unavailable):
            batcher.put(tiny.images(1)[0], time.monotonic(), None)  # type: ignore[arg-type]


def spoil(path: Path) -> None:
    put(path, "2")
    with (path / "model.onnx").open("ab") as file:
        file.write(b"x")


def misjudge(path: Path) -> None:
    image = tiny.images(1)[0]
    right = tiny.engine(path).detect(image[None])[0]
    png = base64.b64encode(encoded(Image.fromarray(image[:, :, 0]), "PNG")).decode()
    put(path, "2", canaries=(Canary(png=png, label=(right.top.index + 1) % 4, verdict=right.verdict),))


@pytest.mark.parametrize(
    ("damage", "says"),
    [(spoil, "expected .* bytes"), (misjudge, "canary 0 should be"), (shutil.rmtree, "no such bundle")],
)
def test_what_cannot_be_loaded_changes_nothing(path: Path, damage: Callable[[Path], None], says: str) -> None:
    with served(path) as server:
        damage(path)
        with pytest.raises(BundleError, match=says):
            reload(server)
        assert version(server) == "1"
        assert server.value("advsentry_reloads_total", outcome="refused") == 1
        assert server.value("advsentry_ready") == 1


def test_a_canary_that_fails_in_the_queue_rolls_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong(self: Canaries, timeout_s: float) -> bool:
        return False

    with served(path, canary_s=100.0) as server:
        monkeypatch.setattr(Canaries, "are_right", wrong)
        with pytest.raises(BundleError, match="a canary's answer is wrong"):
            reload(server)
        assert version(server) == "1"
        assert server.value("advsentry_queue_items") == 0


def test_cuda_is_not_reloaded_in_its_process(path: Path) -> None:
    with served(path) as server:
        server.app.models.current.engine.graph.provider = "CUDAExecutionProvider"
        with pytest.raises(SetupError, match=r"CUDAExecutionProvider, whose memory .* --workers"):
            reload(server)


def test_the_command_says_what_is_served_or_why_not(path: Path) -> None:
    with served(path, admin=True) as server:
        url = f"http://{server.ports.metrics}"
        put(path, "2")
        assert ask_reload(url) == "serving tiny version 2, before that tiny version 1"
        spoil(path)
        with pytest.raises(AdvsentryError, match=r"expected .* bytes"):
            ask_reload(url)
        with pytest.raises(SetupError, match="expected an address such as"):
            ask_reload(server.ports.metrics)
    with pytest.raises(Unavailable, match="no answer"):
        ask_reload(url)


def test_nobody_else_may_reload(path: Path) -> None:
    def post(server: Running, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection(server.ports.metrics, timeout=WAIT_S)
        connection.request("POST", "/-/reload", headers=headers)
        return connection.getresponse().status

    with served(path, admin=True) as server:
        assert post(server, {"Origin": "http://127.0.0.1"}) == http.client.FORBIDDEN
    with served(path) as server:  # off unless asked for
        assert post(server, {}) == http.client.NOT_FOUND
        assert server.value("advsentry_reloads_total", outcome="loaded") == 0


def test_a_watched_link_is_followed(tmp_path: Path) -> None:
    first, second, link = put(tmp_path / "a", "1"), put(tmp_path / "b", "2"), tmp_path / "link"
    link.symlink_to(first)
    with served(link, watch_s=0.05) as server:
        (tmp_path / "new").symlink_to(second)
        (tmp_path / "new").rename(link)
        until(lambda: version(server) == "2")


def test_a_bundle_is_left_alone_while_it_is_copied_and_tried_once_when_it_keeps_still(path: Path) -> None:
    tried = []

    async def reload() -> None:
        tried.append(True)
        load_bundle(path)

    async def look() -> None:
        watch = BundleWatch(str(path), reload, fingerprint(str(path)))
        await watch.look()
        assert not tried
        whole = (path / "model.onnx").read_bytes()
        for size in (10, 20, 30):
            (path / "model.onnx").write_bytes(whole[:size])
            await watch.look()
        assert not tried
        for _ in range(3):
            await watch.look()
        assert len(tried) == 1
        (path / "model.onnx").write_bytes(whole)
        for _ in range(3):
            await watch.look()
        assert len(tried) == 2

    asyncio.run(look())


@pytest.mark.parametrize(("error", "tries"), [(Unavailable("no answer"), 3), (BundleError("a byte is wrong"), 1)])
def test_what_the_files_are_not_to_blame_for_is_tried_again(
    path: Path, error: AdvsentryError, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.reload.AGAIN_S", 0.0)
    tried = []

    async def reload() -> None:
        tried.append(True)
        raise error

    async def look() -> None:
        watch = BundleWatch(str(path), reload, fingerprint(str(path)))
        put(path, "2")
        for _ in range(4):
            await watch.look()

    asyncio.run(look())
    assert len(tried) == tries


@pytest.mark.parametrize(
    ("flags", "number"),
    [(("--watch-s", 0.2), None), (("--watch-s", 0.2, "--workers", 1), None), ((), signal.SIGHUP)],
)
def test_what_changes_while_the_server_starts_is_loaded_then(
    path: Path, flags: tuple[object, ...], number: signal.Signals | None
) -> None:
    manifest = path / "manifest.json"
    first = manifest.read_bytes()
    manifest.unlink()
    os.mkfifo(manifest)
    arguments = command("serve", "--bundle", path, "--port", 0, "--metrics-port", 0, *flags)
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            with os.fdopen(opened_by_a_reader(manifest), "wb") as pipe:
                put(path, "2")
                if number is not None:
                    process.send_signal(number)
                pipe.write(first)
            assert process.stdout is not None
            found = re.match(r"serving grpc=(\S+) ", process.stdout.readline())
            assert found
            with grpc.insecure_channel(found[1]) as channel:
                stub = detection_pb2_grpc.DetectorServiceStub(channel)
                until(lambda: stub.Detect(request(), timeout=WAIT_S).meta.model_version == "2")
        finally:
            process.kill()


def opened_by_a_reader(pipe: Path) -> int:
    """To write, once somebody reads."""
    found: list[int] = []

    def is_open() -> bool:
        with contextlib.suppress(OSError):
            found.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    until(is_open, 3 * WAIT_S)  # processes start slowly on a busy machine
    return found[0]


def test_sighup_reloads(path: Path) -> None:
    with serving(path, "--admin", "on") as (process, target, metrics), grpc.insecure_channel(target) as channel:
        stub = detection_pb2_grpc.DetectorServiceStub(channel)
        put(path, "2")
        process.send_signal(signal.SIGHUP)
        until(lambda: stub.Detect(request(), timeout=WAIT_S).meta.model_version == "2")
        done = subprocess.run(
            command("reload", "--admin", f"http://{metrics}"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
        )
        assert done.stdout == "serving tiny version 2, before that tiny version 2\n"
