"""Tokens and certificates through the door: exact statuses, rates, and the command that makes tokens."""

import contextlib
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from deploy.reliability.certificates import Authority
from protos import detection_pb2 as pb
from protos import detection_pb2_grpc
from service.__main__ import main
from service.client import Client
from service.detection.engine import Engine
from service.detection.types import Detection
from service.detection.verdict import RevealMode
from service.errors import PermissionRefused, SetupError, Unauthenticated
from service.rpc import call, watched
from service.rpc.call import Scope
from service.rpc.read_answers import Options
from service.tokens import new_token
from tests import tiny
from tests.service.rpc.test_door import CODE, GOOD, SERVICE, fails, items
from tests.service.running import Running, running

IMAGE = tiny.images(1)[0]
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
GUEST, FRIEND, CLERK = (
    new_token(name, scopes)
    for name, scopes in (
        ("guest", [Scope.DETECT]),
        ("friend", [Scope.DETECT, Scope.SCORES]),
        ("clerk", [Scope.INFO]),
    )
)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("identities") / "identities.toml"
    path.write_text("".join(made.entry for made in (GUEST, FRIEND, CLERK)))
    return path


@pytest.fixture(scope="module")
def server(engine: Engine, identities: Path) -> Iterator[Running]:
    with running(engine, identities=str(identities), reveal=RevealMode.SCORES, canary_s=100.0) as made:
        yield made


def refusal(server: Running, method: str, *metadata: tuple[str, str], streams: bool = False) -> grpc.StatusCode:
    if streams:
        return server.channel.stream_stream(method)(iter([b""]), metadata=metadata, timeout=20).code()
    return server.channel.unary_unary(method).future(b"", metadata=metadata, timeout=20).code()


OIP = "inference.GRPCInferenceService"


@pytest.mark.parametrize(
    "method",
    [
        *(f"/{SERVICE}/{name}" for name in ("Detect", "BatchDetect", "StreamDetect", "GetModelInfo")),
        *(f"/{OIP}/{name}" for name in ("ModelInfer", "ModelStreamInfer", "ServerMetadata", "ModelStatistics")),
    ],
)
@pytest.mark.parametrize(
    "sent",
    [None, "", "Bearer x", "Basic x", GUEST.token, f"Bearer {GUEST.token}x"],
    ids=["nothing", "empty", "unknown", "other scheme", "no scheme", "longer"],  # tokens are others in each process
)
def test_nobody_without_a_token_gets_anything(server: Running, method: str, sent: str | None) -> None:
    metadata = [] if sent is None else [("authorization", sent)]
    got = refusal(server, method, *metadata, streams="Stream" in method)
    assert got is CODE.UNAUTHENTICATED


def test_nobody_without_a_token_sees_what_there_is_but_everybody_may_ask_for_health(server: Running) -> None:
    assert refusal(server, REFLECTION, streams=True) is CODE.UNAUTHENTICATED
    for name in ("ServerLive", "ServerReady"):
        assert server.channel.unary_unary(f"/{OIP}/{name}")(b"", timeout=20) == b"\x08\x01"
    bearer = ("authorization", f"Bearer {GUEST.token}")
    assert refusal(server, REFLECTION, bearer, streams=True) is CODE.PERMISSION_DENIED
    assert refusal(server, f"/{SERVICE}/GetModelInfo", bearer) is CODE.PERMISSION_DENIED
    clerk = ("authorization", f"Bearer {CLERK.token}")
    for method in (f"/{SERVICE}/Detect", f"/{SERVICE}/BatchDetect", f"/{OIP}/ModelInfer"):
        assert refusal(server, method, clerk) is CODE.PERMISSION_DENIED
    assert refusal(server, f"/{SERVICE}/StreamDetect", clerk, streams=True) is CODE.PERMISSION_DENIED
    assert refusal(server, "/x.Y/Z", clerk) is CODE.UNIMPLEMENTED
    with Client(server.ports.grpc) as client:
        assert client.is_serving()
    assert list(server.channel.stream_stream(REFLECTION)(iter([b":\x00"]), metadata=[clerk]))


def test_each_scope_opens_its_calls(server: Running) -> None:
    with Client(server.ports.grpc, token=GUEST.token) as guest, Client(server.ports.grpc, token=CLERK.token) as clerk:
        assert isinstance(guest.detect(IMAGE), Detection)
        assert [type(row) for row in guest.detect_batch([IMAGE] * 2)] == [Detection] * 2
        assert [type(row) for row in guest.detect_stream([IMAGE] * 2)] == [Detection] * 2
        with pytest.raises(PermissionRefused, match="takes the scope 'info'"):
            guest.info()
        assert clerk.info().alpha_steps
        with pytest.raises(PermissionRefused, match="takes the scope 'detect'"):
            clerk.detect(IMAGE)


def test_exact_scores_take_their_scope(server: Running) -> None:
    wish = Options(raw_scores=True)
    with Client(server.ports.grpc, token=FRIEND.token) as friend:
        assert friend.detect(IMAGE, wish).detectors[0].score is not None
    with Client(server.ports.grpc, token=GUEST.token) as guest, pytest.raises(PermissionRefused):
        guest.detect(IMAGE, wish)


def test_a_stranger_is_refused_before_his_message_is_read(server: Running) -> None:
    call = server.channel.unary_unary(f"/{SERVICE}/Detect")
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Detect"}
    before = server.value("grpc_server_msg_received_total", **labels)
    started = server.value("grpc_server_started_total", **labels)
    fails(call, b"x" * (12 * 2**20), CODE.UNAUTHENTICATED, "expected metadata")
    assert server.value("grpc_server_started_total", **labels) == started + 1
    assert server.value("grpc_server_msg_received_total", **labels) == before


def test_a_token_is_revoked_and_added_while_the_server_runs(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "LOOK_S", 0.0)
    path = tmp_path / "identities.toml"
    path.write_text(GUEST.entry)
    with (
        running(engine, identities=str(path)) as server,
        Client(server.ports.grpc, token=GUEST.token) as guest,
        Client(server.ports.grpc, token=FRIEND.token) as friend,
    ):
        guest.detect(IMAGE)
        with pytest.raises(Unauthenticated):
            friend.detect(IMAGE)
        path.write_text(FRIEND.entry)
        friend.detect(IMAGE)
        with pytest.raises(Unauthenticated):
            guest.detect(IMAGE)


def test_a_certificate_is_an_identity_by_its_name(engine: Engine, tmp_path: Path) -> None:
    root = Authority(tmp_path / "ca")
    server_, known, plain, unknown = (
        root.sign("server"),
        root.sign("known", names=("camera.example.org",), uris=("spiffe://example.org/camera",)),
        root.sign("plain", uris=("spiffe://example.org/camera",)),
        root.sign("camera.example.org"),  # its common name only
    )
    path = tmp_path / "identities.toml"
    path.write_text(
        '[[identity]]\nname = "camera"\ncertificate = "spiffe://example.org/camera"\nscopes = ["detect"]\n'
        + CLERK.entry
    )
    files = {"tls_cert": str(server_.cert), "tls_key": str(server_.key), "tls_client_ca": str(root.ca)}
    with running(engine, identities=str(path), **files) as server:
        for shown in (known, plain):
            with Client(server.ports.grpc, ca=root.ca, cert=shown.cert, key=shown.key) as client:
                assert isinstance(client.detect(IMAGE), Detection)
                with pytest.raises(PermissionRefused, match="which camera does not have"):
                    client.info()
        with Client(server.ports.grpc, ca=root.ca, cert=unknown.cert, key=unknown.key) as client:
            assert client.is_serving()
            with pytest.raises(Unauthenticated, match="nobody who is known"):
                client.detect(IMAGE)
        with Client(server.ports.grpc, ca=root.ca, cert=unknown.cert, key=unknown.key, token=CLERK.token) as client:
            assert client.info().version == "1"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "0.0.0.0"}, "in plaintext over a network"),
        ({"identities": "/nope"}, "identities /nope: cannot be read"),
    ],
)
def test_what_would_be_unsafe_does_not_start(
    engine: Engine, identities: Path, settings: dict[str, str], says: str
) -> None:
    with pytest.raises(SetupError, match=says), running(engine, **{"identities": str(identities), **settings}):
        pass


def test_plaintext_tokens_take_a_word_of_the_operator_and_open_ports_a_warning(
    engine: Engine, identities: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(engine, identities=str(identities), host="0.0.0.0", allow_plaintext_tokens=True):
        pass
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with running(engine, host="0.0.0.0", metrics_host="0.0.0.0", max_message_bytes=2048):
        pass
    assert "whoever reaches 0.0.0.0 may call" in caplog.text
    assert "metrics listen on 0.0.0.0" in caplog.text
    assert "no message can carry an image of max_image_bytes 8388608: max_message_bytes is 2048" in caplog.text


def test_the_client_sends_no_token_in_plaintext_over_a_network(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"not sent to example\.org:1 in plaintext"):
        Client("example.org:1", token="x")
    with pytest.raises(SetupError, match="characters that no token has"):
        Client(token="two words")
    (tmp_path / "empty").write_text("\n")
    assert main(["health", "--token-file", str(tmp_path / "empty")]) == 1


def test_a_rate_is_kept_and_says_when_to_come_back(engine: Engine) -> None:
    with running(engine, rate_images_per_s=20.0, canary_s=100.0) as server:
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        stub.BatchDetect(pb.BatchDetectRequest(images=[GOOD] * 40))  # a full bucket of 20, and 20 that are owed
        trailers = fails(stub.Detect, pb.DetectRequest(image=GOOD), CODE.RESOURCE_EXHAUSTED, "your rate of 20 images/s")
        assert 500 < int(trailers["grpc-retry-pushback-ms"]) <= 1051
        since = time.monotonic()
        answers = list(stub.StreamDetect(items([GOOD] * 15, in_order=False)))  # waits: until 15 of them have come in
        assert len(answers) == 15
        assert time.monotonic() - since > 1.0
        with Client(server.ports.grpc) as client:  # the retry policy waits as it is told
            assert isinstance(client.detect(IMAGE), Detection)


def test_an_identity_has_a_rate_of_its_own(engine: Engine, tmp_path: Path) -> None:
    slow, free = new_token("slow", [Scope.DETECT], images_per_s=0.01), new_token("free", [Scope.DETECT], images_per_s=0)
    path = tmp_path / "identities.toml"
    path.write_text(slow.entry + free.entry)
    with running(engine, identities=str(path), rate_images_per_s=1.0) as server:
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        bearer = {made: [("authorization", f"Bearer {made.token}")] for made in (slow, free)}
        for _ in range(20):
            stub.Detect(pb.DetectRequest(image=GOOD), metadata=bearer[free])
        stub.Detect(pb.DetectRequest(image=GOOD), metadata=bearer[slow])
        with pytest.raises(grpc.RpcError, match="your rate") as caught:
            stub.Detect(pb.DetectRequest(image=GOOD), metadata=bearer[slow])
        assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


def test_another_entry_leaves_the_file_to_whoever_reads_it(tmp_path: Path) -> None:
    path, link = tmp_path / "identities.toml", tmp_path / "link"
    link.symlink_to(path.name)
    assert main(["token", "new", "a", "--identities", str(path)]) == 0
    path.chmod(0o640)
    owner = (65532, 65532) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    assert main(["token", "new", "b", "--identities", str(link)]) == 0
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (*owner, 0o640)
    assert link.is_symlink()
    assert path.read_text().count("[[identity]]") == 2


def test_the_command_makes_a_token_that_works(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "identities.toml"
    assert main(["token", "new", "camera 7", "--identities", str(path)]) == 0
    assert main(["token", "new", "b", "--scope", "info", "--scope", "detect", "--identities", str(path)]) == 0
    printed = capsys.readouterr()
    first, second = printed.out.splitlines()
    assert re.fullmatch(r"advsentry_[\w-]{43}", first)
    assert printed.err == ""
    text = path.read_text()
    assert first not in text
    assert second not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with running(engine, identities=str(path)) as server:
        token_file = tmp_path / "token"
        token_file.write_text(second + "\n")
        with Client(server.ports.grpc, token=second) as client:
            assert client.info().version == "1"
        assert main(["health", "--target", server.ports.grpc, "--token-file", str(token_file)]) == 0


def test_without_a_file_the_command_shows_the_entry_beside_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "new", "a", "--images-per-s", "5", "--days", "30"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("advsentry_")
    assert "[[identity]]" in printed.err
    assert "images_per_s = 5.0\nnot_after = 20" in printed.err
    assert printed.out.strip() not in printed.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "--images-per-s", "-1"], "images_per_s: expected a number from 0 on, got -1"),
        (["a", "--images-per-s", "nan"], "images_per_s: expected"),
        (["a", "--days", "0"], "--days: expected a whole number from 1"),
        (["a", "--days", "99999999999"], "--days: expected"),
        (["x" * 65], "name: expected 1 to 64"),
        (["a", "--identities", "/nope/x"], "/nope/x: cannot be written"),
        (["a", "--identities", "{broken}"], "broken: "),
    ],
    ids=str,
)
def test_a_token_that_would_not_work_is_not_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], says: str
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("nonsense")
    assert main(["token", "new", *(argument.format(broken=broken) for argument in arguments)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err


@pytest.mark.parametrize(
    ("instead", "code"),
    [
        (FRIEND.entry, CODE.UNAUTHENTICATED),
        (GUEST.entry.replace('"detect"', '"info"'), CODE.PERMISSION_DENIED),
        (GUEST.entry.replace('"detect"', '"detect", "info"'), CODE.PERMISSION_DENIED),
        (FRIEND.entry + GUEST.entry, CODE.OK),
    ],
)
def test_a_stream_ends_when_its_identity_does(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: str, code: grpc.StatusCode
) -> None:
    monkeypatch.setattr(watched, "LOOK_S", 0.0)
    monkeypatch.setattr(call, "CHECK_S", 0.0)
    path = tmp_path / "identities.toml"
    path.write_text(GUEST.entry)
    go_on = threading.Event()
    message = pb.StreamDetectRequest(image=GOOD)

    def messages() -> Iterator[pb.StreamDetectRequest]:
        yield message
        go_on.wait(20)
        yield message

    with running(engine, identities=str(path), canary_s=100.0) as server:
        stub = detection_pb2_grpc.DetectorServiceStub(server.channel)
        answers = stub.StreamDetect(messages(), metadata=[("authorization", f"Bearer {GUEST.token}")], timeout=60)
        assert next(answers).HasField("result")
        path.write_text(instead)
        go_on.set()
        with contextlib.suppress(grpc.RpcError):
            assert len(list(answers)) == 1
        assert answers.code() is code
