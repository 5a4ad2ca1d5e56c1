"""TLS and mutual TLS through the door: who is let in, and what happens when the files change."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2

from deploy.reliability.certificates import DAY, Authority, Signed, now, shown_by
from service.__main__ import main
from service.client import Client
from service.detection.engine import Engine
from service.detection.types import Detection
from service.errors import AdvsentryError, SetupError, Unavailable
from service.rpc import watched
from service.rpc.tls import ServerTls, TlsFiles
from service.settings import Settings
from tests import tiny
from tests.service.rpc.test_door import until
from tests.service.running import Running, running

CHECK = "/grpc.health.v1.Health/Check"
IMAGE = tiny.images(1)[0]


@dataclass(frozen=True, kw_only=True)
class World:
    ours: Authority
    theirs: Authority
    server: Signed
    client: Signed


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    ours, theirs = (Authority(tmp_path_factory.mktemp(name)) for name in ("ours", "theirs"))
    return World(ours=ours, theirs=theirs, server=ours.sign("server"), client=ours.sign("client"))


def settings(world: World, **more: object) -> dict[str, object]:
    return {"tls_cert": str(world.server.cert), "tls_key": str(world.server.key), "canary_s": 100.0, **more}


@pytest.fixture(scope="module")
def plain_tls(engine: Engine, world: World) -> Iterator[Running]:
    with running(engine, **settings(world)) as made:
        yield made


@pytest.fixture(scope="module")
def mutual(engine: Engine, world: World) -> Iterator[Running]:
    with running(engine, **settings(world, tls_client_ca=str(world.ours.ca), health_port=0)) as made:
        yield made


def refused(server: Running, says: str, **options: object) -> None:
    with (
        Client(server.ports.grpc, **options) as client,  # type: ignore[arg-type]
        pytest.raises(Unavailable, match=says),
    ):
        client.detect(IMAGE)


def test_tls_serves_who_knows_the_root(plain_tls: Running, world: World) -> None:
    with Client(plain_tls.ports.grpc, ca=world.ours.ca) as client:
        assert isinstance(client.detect(IMAGE), Detection)
        assert [type(row) for row in client.detect_stream([IMAGE] * 3)] == [Detection] * 3
        assert client.info().version == "1"
        assert client.is_serving()


def test_tls_is_of_no_use_to_others(plain_tls: Running, world: World) -> None:
    refused(plain_tls, "is not trusted", ca=world.theirs.ca)
    refused(plain_tls, "is not trusted", tls=True)
    refused(plain_tls, r"may want TLS \(--ca\)")  # plaintext


def test_the_end_of_the_certificate_is_a_metric(plain_tls: Running, world: World) -> None:
    ends = world.server.certificate.not_valid_after_utc.timestamp()
    assert plain_tls.value("advsentry_tls_certificate_expiry_timestamp_seconds") == ends


def test_an_expired_server_is_refused_by_its_clients(
    engine: Engine, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    old = world.ours.sign("old", ends=now() - DAY)
    with running(engine, tls_cert=str(old.cert), tls_key=str(old.key)) as server:
        refused(server, "is not trusted: it has ended", ca=world.ours.ca)
    assert "has ended" in caplog.text


def test_mutual_tls_serves_whose_certificate_is_signed(mutual: Running, world: World) -> None:
    with Client(mutual.ports.grpc, ca=world.ours.ca, cert=world.client.cert, key=world.client.key) as client:
        assert isinstance(client.detect(IMAGE), Detection)


@pytest.mark.parametrize("whose", ["nobody", "another root", "expired"])
def test_mutual_tls_refuses_others_at_the_handshake(mutual: Running, world: World, whose: str) -> None:
    shown = {
        "nobody": None,
        "another root": world.theirs.sign("client"),
        "expired": world.ours.sign("late", ends=now() - DAY),
    }[whose]
    if shown is None:
        refused(mutual, "another certificate of yours", ca=world.ours.ca)
    else:
        refused(mutual, "another certificate of yours", ca=world.ours.ca, cert=shown.cert, key=shown.key)


def test_health_has_a_plaintext_port_where_nothing_else_is(mutual: Running) -> None:
    with Client(mutual.ports.health) as client:
        assert client.is_serving()
        assert client.is_serving("advsentry.v1.DetectorService")
        with pytest.raises(AdvsentryError, match="does not serve this call: is it the server's gRPC port"):
            client.detect(IMAGE)
    with grpc.insecure_channel(mutual.ports.health) as channel:
        for method in ("/advsentry.v1.DetectorService/Detect", "/grpc.reflection.v1alpha.ServerReflection/Info"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert mutual.ports.health.startswith("127.0.0.1:")
    assert str(mutual.ports).endswith(f" health={mutual.ports.health}")


def test_the_commands_take_the_same_files(
    mutual: Running, world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    known = ["--ca", str(world.ours.ca), "--cert", str(world.client.cert), "--key", str(world.client.key)]
    assert main(["health", "--target", mutual.ports.grpc, *known]) == 0
    assert main(["health", "--target", mutual.ports.grpc, *known[:2]]) == 1
    assert main(["health", "--target", mutual.ports.grpc, *known[:4]]) == 1
    assert "go together" in capsys.readouterr().err
    assert main(["health", "--ca", str(tmp_path / "nope")]) == 1
    assert "nope: cannot be read" in capsys.readouterr().err
    (tmp_path / "garbage").write_bytes(b"\xff" * 100)
    for flags in (["--ca", "garbage"], ["--cert", "garbage", "--key", str(world.client.key)]):
        assert main(["health", flags[0], str(tmp_path / "garbage"), *flags[2:]]) == 1
        assert "garbage: expected a PEM file with -----BEGIN CERTIFICATE-----" in capsys.readouterr().err


def test_a_new_pair_is_taken_under_load_and_a_broken_one_is_not(
    engine: Engine, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched, "LOOK_S", 0.0)
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    world.server.put(cert, key)
    with running(engine, tls_cert=str(cert), tls_key=str(key), canary_s=100.0) as server:
        ended, failures, served = threading.Event(), [], []

        def load() -> None:
            while not ended.is_set():
                try:
                    with Client(server.ports.grpc, ca=world.ours.ca) as client:  # a handshake each time
                        served.extend(client.detect(IMAGE) for _ in range(3))
                except Exception as error:  # noqa: BLE001  # whatever it is, it is a lost request
                    failures.append(error)

        stays = Client(server.ports.grpc, ca=world.ours.ca)
        stays.detect(IMAGE)
        thread = threading.Thread(target=load)
        thread.start()
        for number in range(5):
            renewed = world.ours.sign(f"server{number}", ends=now() + (20 + number) * DAY)
            renewed.put(cert, key)
            until(lambda: shown_by(server.ports.grpc) == renewed.der, 20)  # noqa: B023
            ends = renewed.certificate.not_valid_after_utc.timestamp()
            assert server.value("advsentry_tls_certificate_expiry_timestamp_seconds") == ends
        key.write_bytes(world.client.key.read_bytes())  # of another certificate
        assert shown_by(server.ports.grpc) == renewed.der
        cert.unlink()
        assert shown_by(server.ports.grpc) == renewed.der
        count = len(served)
        until(lambda: len(served) > count + 3, 20)
        ended.set()
        thread.join(20)
        stays.detect(IMAGE)  # over the connection of the beginning
        stays.close()
        assert not failures
    assert "is not the key of certificate" in caplog.text
    assert "tls.crt: cannot be read" in caplog.text


def test_new_roots_for_clients_are_taken(
    engine: Engine, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "LOOK_S", 0.0)
    ca, other = tmp_path / "ca.pem", world.theirs.sign("client2")
    shutil.copy(world.ours.ca, ca)
    with running(engine, **settings(world, tls_client_ca=str(ca))) as server:
        options = {"ca": world.ours.ca, "cert": other.cert, "key": other.key}
        refused(server, "another certificate of yours", **options)
        ca.write_bytes(world.theirs.ca.read_bytes())
        with Client(server.ports.grpc, **options) as client:
            assert isinstance(client.detect(IMAGE), Detection)
        refused(server, "another certificate of yours", ca=world.ours.ca, cert=world.client.cert, key=world.client.key)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tls_key": ""}, "--tls-cert and --tls-key go together"),
        ({"tls_cert": ""}, "--tls-cert and --tls-key go together"),
        ({"tls_cert": "", "tls_key": "", "tls_client_ca": "{ca}"}, "--tls-client-ca needs --tls-cert"),
        ({"tls_cert": "{folder}/nope"}, "TLS: certificate .*nope: cannot be read: No such file"),
        ({"tls_key": "{folder}/nope"}, "TLS: key .*nope: cannot be read"),
        ({"tls_key": "{other}"}, "TLS: key .*client.key is not the key of certificate .*server.pem"),
        ({"tls_cert": "{text}"}, "TLS: expected a certificate in .*text and its private key"),
        ({"tls_key": "{text}"}, "TLS: expected a certificate in .* and its private key in .*text, both in PEM"),
        ({"tls_key": "{locked}"}, "is encrypted; expected a key without a password"),
        ({"tls_client_ca": "{text}"}, "TLS: client CA .*text: expected certificates in PEM"),
        ({"tls_client_ca": "{folder}/nope"}, "TLS: client CA .*nope: cannot be read"),
    ],
    ids=str,
)
def test_what_is_wrong_at_the_start_is_one_clear_error(
    world: World, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    text, locked = tmp_path / "text", tmp_path / "locked"
    text.write_text("hello")
    locked.write_bytes(
        world.server.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    places = {"folder": tmp_path, "text": text, "locked": locked, "other": world.client.key, "ca": world.ours.ca}
    changed = {name: value.format(**places) for name, value in change.items()}
    made = Settings(**{"tls_cert": str(world.server.cert), "tls_key": str(world.server.key), **changed})  # type: ignore[arg-type]

    def start() -> None:
        files = TlsFiles.of(made.tls_cert, made.tls_key, made.tls_client_ca)
        assert files is not None
        ServerTls(files, tell_end=lambda _: None)

    with pytest.raises(SetupError, match=says):
        start()


def test_health_on_its_own_port_ends_with_the_server(engine: Engine) -> None:
    with running(engine, health_port=0) as server, grpc.insecure_channel(server.ports.health) as channel:
        watch = channel.unary_stream(CHECK.replace("Check", "Watch"))(b"")
        serving = health_pb2.HealthCheckResponse.FromString(next(watch)).status
        assert serving == health_pb2.HealthCheckResponse.SERVING
        server.loop.call_soon_threadsafe(lambda: server.app._health.set_ready(False))
        assert health_pb2.HealthCheckResponse.FromString(next(watch)).status == 2
