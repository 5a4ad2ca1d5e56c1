"""R-19: after known requests every counter has its one right value."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field

import grpc

from deploy.reliability.check import Check, Figures
from deploy.reliability.metrics_page import MetricsPage
from deploy.reliability.process import Serving
from deploy.reliability.rig import Rig, images_of
from protos import detection_pb2 as pb
from service.rpc.convert import SERVICE
from service.rpc.read_answers import image_message

__all__ = ["CHECKS"]

MARK = "written-by-a-client"
"""In each field that a caller may fill; must not be found among the metrics."""


@dataclass(kw_only=True)
class _Known:
    """What was sent and answered."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By method and code."""
    received: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Images without a detection, by reason."""
    verdicts: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)

    def detected(self, detection: pb.Detection) -> None:
        """Takes note of an answer."""
        self.verdicts[pb.Verdict.Name(detection.verdict).removeprefix("VERDICT_").lower()] += 1
        for flag in detection.flags:
            self.flags[pb.FlagReason.Name(flag.reason).removeprefix("FLAG_REASON_")] += 1

    @property
    def images(self) -> int:
        """With a detection."""
        return sum(self.verdicts.values())


class _Sender:
    """Calls of every kind, each with its known end."""

    def __init__(self, running: Serving, good: list[pb.Image]) -> None:
        self.known = _Known()
        self.channel = grpc.insecure_channel(running.target)
        self._good = good
        self._bad = pb.Image(encoded=pb.EncodedImage(data=b"no image", mime_type=MARK))
        self._options = pb.DetectOptions(target_fpr=0.1)  # so that flags and both verdicts are seen

    def _unary(self, method: str, message: bytes) -> bytes:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/{SERVICE}/{method}")
        try:
            answer = call(message, timeout=30, metadata=(("x-client", MARK),))
        except grpc.RpcError as error:
            self.known.calls[method, error.code().name] += 1
            self.known.received[method] += 1
            return b""
        self.known.calls[method, "OK"] += 1
        self.known.received[method] += 1
        self.known.sent[method] += 1
        return answer

    def round(self, number: int) -> None:
        """One of everything."""
        good = self._good[number % len(self._good)]
        request = pb.DetectRequest(request_id=MARK, image=good, options=self._options)
        for _ in range(4):
            self.known.detected(
                pb.DetectResponse.FromString(self._unary("Detect", request.SerializeToString())).detection
            )
        self._unary("Detect", pb.DetectRequest(image=self._bad).SerializeToString())
        self.known.errors["FORMAT_UNSUPPORTED"] += 1
        self._unary("Detect", b"\xff" * 5)  # no message: no image either
        other = pb.DetectRequest(image=good, options=pb.DetectOptions(model_version=MARK))
        self._unary("Detect", other.SerializeToString())
        self._batch(number)
        self._stream(number)
        self._unary("GetModelInfo", b"")

    def _batch(self, number: int) -> None:
        images = [self._good[(number + i) % len(self._good)] for i in range(5)]
        request = pb.BatchDetectRequest(images=[*images, self._bad], options=self._options)
        answer = pb.BatchDetectResponse.FromString(self._unary("BatchDetect", request.SerializeToString()))
        self._results([result for result in answer.results])

    def _stream(self, number: int) -> None:
        images = [self._good[(number + i) % len(self._good)] for i in range(5)]
        options = pb.StreamOptions(options=self._options)
        requests = [
            pb.StreamDetectRequest(item_id=MARK, image=image, stream_options=options) for image in (*images, self._bad)
        ]
        method = self.channel.stream_stream(
            f"/{SERVICE}/StreamDetect", pb.StreamDetectRequest.SerializeToString, pb.StreamDetectResponse.FromString
        )
        answers = list(method(iter(requests), timeout=30))
        self.known.calls["StreamDetect", "OK"] += 1
        self.known.received["StreamDetect"] += len(requests)
        self.known.sent["StreamDetect"] += len(answers)
        self._results([answer.result for answer in answers])

    def _results(self, results: list[pb.DetectResult]) -> None:
        for result in results:
            if result.HasField("detection"):
                self.known.detected(result.detection)
            else:
                reason = pb.ErrorReason.Name(result.error.reason)
                self.known.errors[reason.removeprefix("ERROR_REASON_")] += 1


def _wrong(known: _Known, load: MetricsPage) -> dict[str, tuple[float, float]]:
    """Counters that differ: what was counted, and what is right."""
    pairs: dict[str, tuple[float, float]] = {}
    methods = {method for method, _ in known.calls}
    for method in methods:
        of = {"grpc_service": SERVICE, "grpc_method": method}
        calls = sum(count for (name, _), count in known.calls.items() if name == method)
        pairs[f"{method} started"] = load.total("grpc_server_started_total", **of), calls
        pairs[f"{method} received"] = load.total("grpc_server_msg_received_total", **of), known.received[method]
        pairs[f"{method} sent"] = load.total("grpc_server_msg_sent_total", **of), known.sent[method]
        timed = calls if method != "GetModelInfo" else 0  # only calls with images are
        pairs[f"{method} seconds"] = load.total("grpc_server_handling_seconds_count", **of), timed
        pairs[f"{method} handled"] = load.total("grpc_server_handled_total", **of), calls
    for (method, code), count in known.calls.items():
        of = {"grpc_service": SERVICE, "grpc_method": method, "grpc_code": code}
        pairs[f"{method} {code}"] = load.total("grpc_server_handled_total", **of), count
    pairs["detected"] = load.total("advsentry_images_total", outcome="detected"), known.images
    pairs["failed"] = load.total("advsentry_images_total", outcome="error"), known.errors.total()
    pairs["images in batches"] = load.total("advsentry_batch_size_sum"), known.images
    pairs["batches"] = load.total("advsentry_batch_size_bucket", le="+Inf"), load.total("advsentry_batch_size_count")
    for name, metric, label, right in (
        ("reason", "advsentry_image_errors_total", "reason", known.errors),
        ("verdict", "advsentry_verdicts_total", "verdict", known.verdicts),
        ("flag", "advsentry_flagged_total", "reason", known.flags),
    ):
        counted = load.by(metric, label)
        pairs |= {f"{name} {key}": (counted.get(key, 0), right.get(key, 0)) for key in counted.keys() | right.keys()}
    for stage in ("queue", "postprocess"):
        pairs[f"stage {stage}"] = load.total("advsentry_stage_seconds_count", stage=stage), known.images
    for detector, values in load.by("advsentry_detector_p_value_count", "detector").items():
        pairs[f"p-values of {detector}"] = values, known.images
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def exact(rig: Rig) -> Figures:
    """R-19."""
    rounds = rig.scaled(test=20, quick=600, full=6000)
    good = [image_message(image) for image in images_of(rig.bundle, 64)]
    with rig.server() as running:
        before = running.metrics()
        sender = _Sender(running, good)
        for number in range(rounds):
            sender.round(number)
        page = running.metrics()
        unknown: grpc.UnaryUnaryMultiCallable[bytes, bytes] = sender.channel.unary_unary(f"/{MARK}/{MARK}")
        with contextlib.suppress(grpc.RpcError):
            unknown(b"")
        last = running.metrics()
        sender.channel.close()
    known, load = sender.known, page.since(before)
    wrong = _wrong(known, load)
    if (counted := last.since(before).total("grpc_server_handled_total", grpc_method="unknown")) != 1:
        wrong["unknown method"] = counted, 1
    for name, (found, right) in wrong.items():
        print(f"R-19: {name}: expected {right:g}, counted {found:g}")
    series = [line for line in last.text.splitlines() if not line.startswith("#")]
    return {
        "calls": sum(known.calls.values()),
        "images": known.images + known.errors.total(),
        "flags_seen": known.flags.total(),
        "wrong_counters": len(wrong),
        "p_value_histograms": len(load.by("advsentry_detector_p_value_count", "detector")),
        "series": len(series),
        "labels_of_clients": last.text.count(MARK),
    }


CHECKS = (
    Check(
        number="R-19",
        text="known calls of every method, good and bad, and every counter compared",
        asked={
            "wrong_counters": "= 0",
            "p_value_histograms": ">= 2",
            "series": "<= 499",
            "labels_of_clients": "= 0",
        },
        run=exact,
        is_quick=True,
    ),
)
