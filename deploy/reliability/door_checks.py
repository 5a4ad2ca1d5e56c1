"""R-18: who is let in by TLS, certificates and tokens, with which status; and what changes under load."""

import contextlib
import importlib.util
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from deploy.reliability.check import Check, Figures, NotRun
from deploy.reliability.rig import Rig, images_of, messages_of
from service.client.credentials import channel_credentials
from service.rpc.call import Scope
from service.rpc.convert import SERVICE
from service.tokens import new_token

if TYPE_CHECKING:
    from deploy.reliability.certificates import Authority, Signed

__all__ = ["CHECKS"]

PATIENCE_S = 20.0
CALLS_EACH = 3
"""On one connection of those who make a new one again and again."""
CALLERS = 4
CAMERA = "camera.example.org"
OTHER_ADDRESS = "127.0.0.2"
"""An address of this machine that a port at 127.0.0.1 alone does not take."""


@dataclass(frozen=True)
class _Case:
    """One who calls, and what he must get."""

    name: str
    status: str
    method: str = "Detect"
    ca: Path | None = None
    shows: "Signed | None" = None
    token: str | None = None
    """The value of `authorization`."""


def _channel(target: str, ca: Path | None, shows: "Signed | None" = None) -> grpc.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    credentials = channel_credentials(ca=ca, cert=shows.cert if shows else None, key=shows.key if shows else None)
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def _status(case: _Case, target: str, message: bytes) -> str:
    with _channel(target, case.ca, case.shows) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{case.method}")
        metadata = () if case.token is None else (("authorization", case.token),)
        call = method.future(message if case.method == "Detect" else b"", timeout=PATIENCE_S, metadata=metadata)
        return call.code().name


def _otherwise(cases: list[_Case], target: str, message: bytes) -> int:
    """How many got another status than they must."""
    wrong = 0
    for case in cases:
        if (came := _status(case, target, message)) != case.status:
            print(f"R-18: {case.name}: expected {case.status}, got {came}")
            wrong += 1
    return wrong


class _Callers:
    """Some who connect anew all the time, and one who stays, until told to end."""

    def __init__(self, target: str, ca: Path, token: str, message: bytes) -> None:
        self._target, self._ca, self._message = target, ca, message
        self._metadata = (("authorization", token),)
        self._ended = threading.Event()
        self.codes: Counter[str] = Counter()
        self.connections = 0

    def _call(self, stays: bool) -> None:
        while not self._ended.is_set():
            with _channel(self._target, self._ca) as channel:
                method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/Detect")
                self.connections += 1
                left = CALLS_EACH
                while (stays or left) and not self._ended.is_set():
                    left -= 1
                    called = method.future(self._message, timeout=PATIENCE_S, metadata=self._metadata)
                    self.codes[called.code().name] += 1

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call, args=(number == 0,), daemon=True) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(PATIENCE_S + 10)


def _renewals(callers: _Callers, ours: "Authority", files: tuple[Path, Path], target: str, count: int) -> int:
    """New certificates under load; how many were not taken in time."""
    from deploy.reliability.certificates import shown_by

    late = 0
    with callers.calling():
        for number in range(count):
            renewed = ours.sign(f"renewed{number}")
            renewed.put(*files)
            patience = time.monotonic() + PATIENCE_S
            while (shown := shown_by(target)) != renewed.der and time.monotonic() < patience:
                time.sleep(0.05)
            late += shown != renewed.der
        before = callers.codes["OK"]
        patience = time.monotonic() + PATIENCE_S
        while callers.codes["OK"] < before + 10 and time.monotonic() < patience:  # with the last one, too
            time.sleep(0.01)
    return late


def _is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except OSError:
        return False
    return True


class _World:
    """Certificates, tokens and files of one run."""

    def __init__(self, folder: Path) -> None:
        from deploy.reliability.certificates import DAY, Authority, now

        self.folder, self.yesterday = folder, now() - DAY
        self.ours, self.theirs = Authority(folder / "ours"), Authority(folder / "theirs")
        self.server = self.ours.sign("server")
        guest, clerk = new_token("guest", [Scope.DETECT]), new_token("clerk", [Scope.INFO])
        self.bearer, self.clerk = f"Bearer {guest.token}", f"Bearer {clerk.token}"
        self.basic = f"Basic {guest.token}"
        self.tokens, self.names = folder / "tokens.toml", folder / "names.toml"
        self.tokens.write_text(guest.entry + clerk.entry, encoding="utf-8")
        named = f'[[identity]]\nname = "camera"\ncertificate = "{CAMERA}"\nscopes = ["detect"]\n'
        self.names.write_text(named, encoding="utf-8")

    def one_way(self) -> list[_Case]:
        """Of a server that shows its certificate and knows tokens."""
        ca, bearer = self.ours.ca, self.bearer
        return [
            _Case("token", "OK", ca=ca, token=bearer),
            _Case("no token", "UNAUTHENTICATED", ca=ca),
            _Case("unknown token", "UNAUTHENTICATED", ca=ca, token=bearer + "x"),
            _Case("other scheme", "UNAUTHENTICATED", ca=ca, token=self.basic),
            _Case("Detect by a token for info", "PERMISSION_DENIED", ca=ca, token=self.clerk),
            _Case("info by a token for info", "OK", ca=ca, token=self.clerk, method="GetModelInfo"),
            _Case("info by a token for Detect", "PERMISSION_DENIED", ca=ca, token=bearer, method="GetModelInfo"),
            _Case("the server is of another root", "UNAVAILABLE", ca=self.theirs.ca, token=bearer),
            _Case("plaintext", "UNAVAILABLE", token=bearer),
        ]

    def mutual(self) -> list[_Case]:
        """Of a server that asks for certificates, too, and knows one name."""
        ca, camera = self.ours.ca, self.ours.sign("camera", names=(CAMERA,))
        foreign = self.theirs.sign("camera", names=(CAMERA,))
        late = self.ours.sign("late", names=(CAMERA,), ends=self.yesterday)
        return [
            _Case("certificate of a known name", "OK", ca=ca, shows=camera),
            _Case("of an unknown name", "UNAUTHENTICATED", ca=ca, shows=self.ours.sign("other")),
            _Case("without the scope", "PERMISSION_DENIED", ca=ca, shows=camera, method="GetModelInfo"),
            _Case("no certificate", "UNAVAILABLE", ca=ca),
            _Case("of another root", "UNAVAILABLE", ca=ca, shows=foreign),
            _Case("that has ended", "UNAVAILABLE", ca=ca, shows=late),
        ]


def door(rig: Rig) -> Figures:
    """R-18."""
    if importlib.util.find_spec("cryptography") is None:
        raise NotRun("cryptography, which makes the certificates, is not installed")
    world = _World(rig.folder / f"door-{time.monotonic_ns()}")
    message = messages_of(images_of(rig.bundle, 1))[0]
    one_way, mutual = world.one_way(), world.mutual()
    count = rig.scaled(test=1, quick=10, full=200)
    cert, key = world.folder / "tls.crt", world.folder / "tls.key"
    world.server.put(cert, key)
    with rig.server(host="0.0.0.0", tls_cert=cert, tls_key=key, identities=world.tokens) as running:
        port = int(running.target.rpartition(":")[2])
        metrics_port = int(running.metrics_address.rpartition(":")[2])
        target = f"127.0.0.1:{port}"
        wrong = _otherwise(one_way, target, message)
        callers = _Callers(target, world.ours.ca, world.bearer, message)
        late = _renewals(callers, world.ours, (cert, key), target, count)
        hidden, public = not _is_open(OTHER_ADDRESS, port), _is_open(OTHER_ADDRESS, metrics_port)
    server, ca = world.server, world.ours.ca
    with rig.server(tls_cert=server.cert, tls_key=server.key, tls_client_ca=ca, identities=world.names) as running:
        wrong += _otherwise(mutual, running.target, message)
    ended = world.ours.sign("ended", ends=world.yesterday)
    with rig.server(tls_cert=ended.cert, tls_key=ended.key) as running:
        wrong += _otherwise([_Case("the server's has ended", "UNAVAILABLE", ca=ca)], running.target, message)
    return {
        "callers_tried": len(one_way) + len(mutual) + 1,
        "otherwise_answered": wrong,
        "new_certificates": count,
        "certificates_not_taken": late,
        "connections_under_load": callers.connections,
        "calls_under_load": callers.codes.total(),
        "failed_under_load": callers.codes.total() - callers.codes["OK"],
        "metrics_ports_public": float(public),
        "grpc_ports_not_public": float(hidden),
    }


CHECKS = (
    Check(
        number="R-18",
        text="TLS, mutual TLS, wrong and expired certificates, tokens and scopes, each with its exact status; new "
        "certificates under load of old and new connections; the metrics port from another address, which reaches "
        "the gRPC port",
        asked={
            "otherwise_answered": "= 0",
            "certificates_not_taken": "= 0",
            "failed_under_load": "= 0",
            "metrics_ports_public": "= 0",
            "grpc_ports_not_public": "= 0",
        },
        run=door,
        is_quick=True,
    ),
)
