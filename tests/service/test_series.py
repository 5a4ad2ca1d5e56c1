"""However many methods are called and whatever detectors a bundle has, a server exports fewer than 500 series."""

import contextlib
from collections import Counter

import grpc
from grpc_health.v1 import health_pb2
from prometheus_client import generate_latest

from service.detection.bundle import SHIPPED
from service.detection.engine import Engine
from service.detection.manifest import Manifest
from service.detection.types import FlagReason, Verdict
from service.errors import ErrorReason
from service.rpc.access import SCOPE_OF, takes_images
from service.rpc.pipeline import REFUSED
from service.rpc.status import CODES
from tests.service.running import Running, running

FOR_EVERYBODY = ("OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED")
ALL_CODES = {code.name for code in CODES.values()} | {"OK", "CANCELLED", "UNIMPLEMENTED"}


def call(server: Running, method: str, message: bytes) -> None:
    """One message to a method, whatever it takes."""
    with contextlib.suppress(grpc.RpcError):
        list(server.channel.stream_stream(method)(iter([message]), timeout=20))


def series(server: Running) -> list[str]:
    lines = generate_latest(server.registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]  # `serve` has none of these


def most_detectors() -> set[str]:
    """Those of all shipped bundles together."""
    manifests = [Manifest.from_json(path.read_text(encoding="utf-8")) for path in SHIPPED.glob("*/manifest.json")]
    return {entry.name for manifest in manifests for entry in manifest.detectors}


def test_series_stay_below_500_with_every_method_code_and_detector(engine: Engine) -> None:
    with running(engine, canary_s=100.0) as server:
        for method in (*SCOPE_OF, "/nobody/knows"):
            call(server, method, b"\xff")  # no message of any method
        call(server, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest().SerializeToString())
        text = "\n".join(series(server))
        assert all(f'grpc_method="{method.rpartition("/")[2]}"' in text for method in SCOPE_OF)
        metrics = server.app._metrics
        kinds = {method: "bidi_stream" if "Stream" in method else "unary" for method in SCOPE_OF}
        for method, kind in kinds.items():
            service, _, name = method.removeprefix("/").partition("/")
            for code in ALL_CODES if takes_images(method) else FOR_EVERYBODY:
                metrics.rpc(kind, service, name, takes_images(method)).handled(code)
        for detector in most_detectors() | {f"detector {i}" for i in range(6)}:
            metrics.p_value(detector).observe(0.5)
            metrics.drift.labels(detector).set(0.1)
            metrics.drift_alarm.labels(detector).set(0)
        for reason in ErrorReason:
            metrics.image_error(reason).inc()
        metrics.image_error(REFUSED).inc()
        for flag in set(FlagReason) - {FlagReason.UNSPECIFIED, FlagReason.NEAR_DUPLICATE_QUERIES}:  # of no detector
            metrics.flag(flag).inc()
        for verdict in Verdict:
            metrics.verdict(verdict).inc()
        found = series(server)
        assert len(found) < 500, Counter(line.partition("{")[0].partition(" ")[0] for line in found).most_common(12)
        timed = {line.partition("{")[2] for line in found if line.startswith("grpc_server_handling_seconds_count")}
        assert len(timed) == sum(map(takes_images, SCOPE_OF))
