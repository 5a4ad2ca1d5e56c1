"""A line for each call: what it says, what it never says, and that writing it never matters to a call."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service import access_log
from service.access_log import WAITING, AccessLog
from service.client import Client
from service.detection.engine import Engine
from service.detection.types import Detection
from service.errors import SetupError
from service.rpc.call import Call, EndedCall
from tests import tiny
from tests.service.running import Running, running
from tests.service.test_reload import request

WAIT_S = 20
SERVICE = "advsentry.v1.DetectorService"


def until(is_so: Callable[[], bool]) -> None:
    latest = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < latest
        time.sleep(0.01)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def ended(code: str = "OK", service: str = SERVICE, **notes: Any) -> EndedCall:
    return EndedCall(
        service=service, method="Detect", code=code, reason="", error_id="", seconds=0.1, call=Call(**notes)
    )


def calls(server: Running) -> None:
    """One that is answered, one refused, a stream of three, one unknown, one cut short, and a probe."""
    stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
    named = request()
    named.request_id = 'x"\n\u2028{'
    stub.Detect(named, metadata=(("authorization", "Bearer very-secret"),))
    empty = pb.DetectRequest(image=pb.Image(encoded=pb.EncodedImage(data=b"no image")))
    for call in (lambda: stub.Detect(empty), lambda: server.channel.unary_unary("/a.B/C\n")(b"")):
        with pytest.raises(grpc.RpcError):
            call()
    item = pb.StreamDetectRequest(image=request().image)
    bad = pb.StreamDetectRequest(image=empty.image)
    assert len(list(stub.StreamDetect(iter([item, bad, item])))) == 3
    with Client(server.ports.grpc) as client:
        assert client.is_serving()


def test_a_line_says_what_came_of_a_call_and_nothing_of_what_is_in_it(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with running(engine, access_log=str(path)) as server:
        calls(server)
    detect, refused, unknown, stream = lines(path)
    assert detect["method"] == f"{SERVICE}/Detect"
    assert (detect["code"], detect["reason"], detect["error_id"]) == ("OK", "", "")
    assert (detect["request_id"], detect["identity"]) == ('x"\n\u2028{', "anonymous")
    assert (detect["items"], detect["clean"] + detect["adversarial"], detect["model_version"]) == (1, 1, "1")
    assert detect["bytes"] > 64
    assert 0 <= detect["queue_s"] <= detect["seconds"] < WAIT_S
    assert {"decode_s", "inference_s", "batch_size"} < detect.keys()
    assert (refused["code"], refused["reason"]) == ("INVALID_ARGUMENT", "FORMAT_UNSUPPORTED")
    assert refused["errors"] == {"FORMAT_UNSUPPORTED": 1}
    assert (unknown["method"], unknown["code"]) == ("a.B/C\n", "UNIMPLEMENTED")
    assert (stream["items"], stream["clean"], stream["errors"]) == (3, 2, {"FORMAT_UNSUPPORTED": 1})
    text = path.read_text()
    assert "secret" not in text
    assert "no image" not in text


def test_of_a_share_of_the_good_calls_and_of_all_others(tmp_path: Path) -> None:
    chances = iter([0.2, 0.3, 0.9])
    made = AccessLog(str(tmp_path / "log"), sample=0.25, chance=lambda: next(chances))
    for code in ("OK", "OK", "CANCELLED", "OK", "INTERNAL"):
        made.note(ended(code))
    made.note(ended(service="grpc.health.v1.Health"))
    made.note(ended("NOT_FOUND", service="grpc.health.v1.Health"))
    made.close()
    assert [line["code"] for line in lines(tmp_path / "log")] == ["OK", "CANCELLED", "INTERNAL", "NOT_FOUND"]


def test_strangers_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "STRANGERS_PER_S", 0.001)
    monkeypatch.setattr(access_log, "STRANGERS_BURST", 3.0)
    lost: list[bool] = []
    made = AccessLog(str(tmp_path / "log"), on_dropped=lambda: lost.append(True))
    for code in ("UNAUTHENTICATED", "UNIMPLEMENTED", "PERMISSION_DENIED", "OK") * 5:
        made.note(ended(code))
    made.close()
    assert Counter(line["code"] for line in lines(tmp_path / "log")) == {
        "UNAUTHENTICATED": 2,
        "UNIMPLEMENTED": 1,
        "PERMISSION_DENIED": 5,
        "OK": 5,
    }
    assert len(lost) == 7


def test_a_full_disk_costs_lines_and_no_call(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with running(engine, access_log="/dev/full") as server, Client(server.ports.grpc) as client:
        for _ in range(3):
            assert isinstance(client.detect(tiny.images(1)[0]), Detection)
        until(lambda: server.value("advsentry_access_log_dropped_total") == 3)
        assert client.is_serving()
    assert [message for message in caplog.messages if "cannot be written" in message] == [
        "the access log /dev/full cannot be written, its lines are lost: No space left on device"
    ]


def test_a_disk_that_stands_still_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, written, lost = threading.Event(), [], []

    def write(self: AccessLog, line: bytes) -> None:
        go_on.wait(WAIT_S)
        written.append(line)

    monkeypatch.setattr(AccessLog, "_write", write)
    made = AccessLog(str(tmp_path / "log"), on_dropped=lambda: lost.append(True))
    for _ in range(WAITING + 100):
        made.note(ended())
    assert 99 <= len(lost) <= 100  # one may be in the writer's hands
    go_on.set()
    made.close()
    assert len(written) + len(lost) == WAITING + 100


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    made = AccessLog(str(path))
    made.note(ended(request_id="1"))
    until(lambda: path.stat().st_size > 0)
    path.rename(tmp_path / "old")
    made.note(ended(request_id="2"))
    made.close()
    assert [[line["request_id"] for line in lines(tmp_path / name)] for name in ("old", "log")] == [["1"], ["2"]]


def test_to_standard_error(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Stderr:
        @staticmethod
        def fileno() -> int:
            return 2

    monkeypatch.setattr("sys.stderr", Stderr)
    made = AccessLog("stderr")
    made.note(ended(request_id="x"))
    made.close()
    assert json.loads(capfd.readouterr().err)["request_id"] == "x"


@pytest.mark.parametrize(("name", "says"), [("no/log", "No such file"), ("", "Is a directory")])
def test_what_can_be_no_file_is_refused(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(SetupError, match=f"--access-log: .*: {says}.*; expected off, stderr or a file"):
        AccessLog(str(tmp_path / name))
