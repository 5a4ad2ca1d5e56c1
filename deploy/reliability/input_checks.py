"""R-5 and R-6: images and messages that are wrong, or meant to hurt."""

from collections import defaultdict
from dataclasses import dataclass
from typing import cast

import grpc

from deploy.reliability.check import Check, Figures
from deploy.reliability.malformed import bomb, malformed, text_chunks
from deploy.reliability.process import Serving
from deploy.reliability.rig import Rig, images_of, messages_of, shape_of
from protos import detection_pb2 as pb
from service.client import Client
from service.rpc.convert import SERVICE
from service.rpc.status import REASON_KEY

__all__ = ["CHECKS"]

MB = 10**6
REFUSALS = frozenset({"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"})
REPEATS = 3


class _Caller:
    """Sends bytes to one server and tells how it went."""

    def __init__(self, target: str) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(target, options=options)
        self._detect: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/{SERVICE}/Detect")

    def __call__(self, message: bytes, compression: grpc.Compression | None = None) -> "_Answer":
        """One Detect."""
        try:
            data = self._detect(message, timeout=30, compression=compression)
        except grpc.RpcError as error:
            call = cast(grpc.Call, error)
            reason = dict(call.trailing_metadata() or ()).get(REASON_KEY, "")
            return _Answer(code=call.code().name, reason=str(reason))
        detection = pb.DetectResponse.FromString(data).detection.SerializeToString(deterministic=True)
        return _Answer(code="OK", detection=detection)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    code: str
    reason: str = ""
    detection: bytes = b""


def among_good_ones(rig: Rig) -> Figures:
    """R-5."""
    count = rig.scaled(test=42, quick=500, full=500)
    good = messages_of(images_of(rig.bundle, 16))
    reasons: dict[str, set[tuple[str, str]]] = defaultdict(set)
    differing = failed = unwell = taken = 0
    with rig.server() as running, Client(running.target) as client:
        call = _Caller(running.target)
        alone = [call(message).detection for message in good]
        for number, (kind, image) in enumerate(malformed(shape_of(rig.bundle), count)):
            for i in range(10):
                answer = call(good[(number + i) % len(good)])
                failed += answer.code != "OK"
                differing += answer.detection != alone[(number + i) % len(good)]
            bad = call(pb.DetectRequest(image=image).SerializeToString())
            taken += bad.code == "OK"
            reasons[kind].add((bad.code, bad.reason))
            unwell += not client.is_serving()
        logged = running.errors_logged()
        call.channel.close()
    found = {pair for pairs in reasons.values() for pair in pairs}
    return {
        "malformed": count,
        "malformed_taken": taken,
        "kinds": len(reasons),
        "kinds_without_one_reason": sum(len(pairs) != 1 for pairs in reasons.values()),
        "refused_otherwise": sum(code != "INVALID_ARGUMENT" or not reason for code, reason in found),
        "good_ones_failed": failed,
        "good_ones_differing": differing,
        "times_not_serving": unwell,
        "errors_logged": logged,
    }


def _hostile(rig: Rig) -> dict[str, tuple[bytes, grpc.Compression | None]]:
    """Messages by name."""

    def file(data: bytes) -> bytes:
        return pb.DetectRequest(image=pb.Image(encoded=pb.EncodedImage(data=data))).SerializeToString()

    unknown = b"\xf8\x07\x01"  # field 127, a number: 3 bytes
    return {
        "png_9000": (file(bomb(9000)), None),
        "png_30000": (file(bomb(30000)), None),
        "text_chunks": (file(text_chunks(shape_of(rig.resizing), 10_000)), None),
        "gzip_64_mib": (pb.DetectRequest(request_id="0" * 64 * 2**20).SerializeToString(), grpc.Compression.Gzip),
        "deep_groups": (b"\xfb\x07" * 100_000, None),  # groups within groups, as old protobuf had them
        "unknown_fields": (unknown * 1_000_000, None),
        "message_64_mib": (file(bytes(64 * 2**20)), None),
    }


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """What one message costs a server, and whether it refused it."""

    ms: float
    peak_mb: float
    not_refused: int


def _cost(running: Serving, call: _Caller, message: bytes, compression: grpc.Compression | None) -> _Cost:
    resident_mb = running.rss_mb()
    running.forget_peak()
    before, cpu_s = running.metrics(), running.cpu_s()
    answers = [call(message, compression) for _ in range(REPEATS)]
    peak_mb = running.peak_mb() - resident_mb
    load = running.metrics().since(before)
    handled = load.total("grpc_server_handling_seconds_count", grpc_method="Detect")
    seconds = load.total("grpc_server_handling_seconds_sum", grpc_method="Detect")
    if not handled:  # what gRPC itself refuses reaches no handler: what it costs the server counts
        handled, seconds = REPEATS, running.cpu_s() - cpu_s
    refusals = REFUSALS if compression is None else REFUSALS | {"UNIMPLEMENTED"}
    not_refused = sum(answer.code not in refusals for answer in answers)
    return _Cost(ms=1000 * seconds / handled, peak_mb=peak_mb, not_refused=not_refused)


def hostile(rig: Rig) -> Figures:
    """R-6."""
    messages = _hostile(rig)
    good = messages_of(images_of(rig.resizing, 1))[0]
    with rig.server(rig.resizing) as running:
        call = _Caller(running.target)
        for _ in range(20):
            call(good)
        costs = {name: _cost(running, call, *message) for name, message in messages.items()}
        after = call(good).code
        call.channel.close()
    with rig.server(rig.resizing, compression="on") as running:
        call = _Caller(running.target)
        call(good)
        inflated = _cost(running, call, *messages["gzip_64_mib"])
        call.channel.close()
    return {
        **{f"{name}_{what}": value for name, cost in costs.items() for what, value in _shown(cost)},
        "gzip_with_compression_on_ms": inflated.ms,
        "slowest_ms": max(cost.ms for cost in costs.values()),
        "rss_peak_growth_mb": max(cost.peak_mb for cost in (*costs.values(), inflated)),
        "not_refused": sum(cost.not_refused for cost in (*costs.values(), inflated)),
        "failed_afterwards": float(after != "OK"),
    }


def _shown(cost: _Cost) -> tuple[tuple[str, float], ...]:
    return ("ms", cost.ms), ("rss_mb", cost.peak_mb)


CHECKS = (
    Check(
        number="R-5",
        text="malformed images (truncated, 1 x 1, wrong magic, CMYK, 16-bit, animated, huge header, wrong tensor, "
        "...), 1 to 10 good ones",
        asked={
            "malformed_taken": "= 0",
            "kinds_without_one_reason": "= 0",
            "refused_otherwise": "= 0",
            "good_ones_failed": "= 0",
            "good_ones_differing": "= 0",
            "times_not_serving": "= 0",
            "errors_logged": "= 0",
        },
        run=among_good_ones,
        is_quick=True,
    ),
    Check(
        number="R-6",
        text="PNG bombs of 9000 and 30000 squared, 10 000 compressed texts, 64 MiB in gzip and plain, groups 100 000 "
        "deep, a million unknown fields; beside them gzip with `--compression on`, which gRPC itself inflates up to "
        "the largest message",
        asked={
            "slowest_ms": "<= 20",
            "rss_peak_growth_mb": "<= 64",
            "not_refused": "= 0",
            "failed_afterwards": "= 0",
        },
        timed=frozenset({"slowest_ms"}),
        run=hostile,
        is_quick=True,
    ),
)
