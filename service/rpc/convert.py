"""The server's half of the wire contract: the only place that reads fields of requests and writes those of answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message

from protos import detection_pb2 as pb
from service.detection.bundle import Bundle
from service.detection.images import MIME_TYPES, PREPROCESSING_ID, ImageLimits
from service.detection.types import ClassScore, Detection, DetectorScore, Flag, Verdict
from service.detection.verdict import Wish
from service.errors import AdvsentryError, InvalidRequest
from service.rpc.status import item_reason

__all__ = [
    "SERVICE",
    "Asked",
    "BatchRequest",
    "OneRequest",
    "Picture",
    "ServerFacts",
    "StreamItem",
    "Timings",
    "batch_answer",
    "batch_request",
    "detect_answer",
    "detect_request",
    "info_answer",
    "info_request",
    "meta_template",
    "result_of",
    "stream_answer",
    "stream_item",
]

SERVICE = pb.DESCRIPTOR.services_by_name["DetectorService"].full_name
MAX_ID_BYTES = 128
SPARE_FIELDS = 64
"""Fields of a batch beside its images that are borne, such as those of a newer client."""

AnyMessage = TypeVar("AnyMessage", bound=Message)

_VERDICTS = {Verdict.CLEAN: pb.VERDICT_CLEAN, Verdict.ADVERSARIAL: pb.VERDICT_ADVERSARIAL}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it came: a file when `size` is None, else (height, width, channels) of a tensor."""

    data: bytes
    mime_type: str
    size: tuple[int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options as they came."""

    model_version: str = ""
    alpha: float | None = None
    wish: Wish = field(default_factory=Wish)


@dataclass(frozen=True, slots=True)
class OneRequest:
    """Detect."""

    request_id: str
    picture: Picture
    asked: Asked


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """BatchDetect."""

    request_id: str
    pictures: Sequence[Picture]
    asked: Asked


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One message of StreamDetect; its options count in the first only."""

    item_id: str
    picture: Picture
    asked: Asked
    preserve_order: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Seconds that the stages took."""

    decode_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0
    total_s: float = 0.0
    batch_size: int = 0


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """What GetModelInfo says beside the bundle."""

    provider: str
    loaded_at_s: float
    max_message_bytes: int
    max_batch_items: int
    max_queue_items: int
    max_deadline_s: float
    images: ImageLimits
    max_alpha: float
    alpha_steps: tuple[float, ...]


NO_OPTIONS = Asked()


def detect_request(data: bytes) -> OneRequest:
    """Reads a DetectRequest.

    Raises:
        InvalidRequest: the bytes are none, or its id is too long. The same for the other readers.
    """
    message = _parsed(pb.DetectRequest, data)
    _check_id(message.request_id, "request_id")
    return OneRequest(message.request_id, _picture(message.image), _asked(message.options))


def batch_request(data: bytes, most: int) -> BatchRequest:
    """Reads a BatchDetectRequest of at most `most` images, or few more."""
    if _has_more_fields(data, most + SPARE_FIELDS):
        raise InvalidRequest(f"images: expected 1 to {most}, got far more; use StreamDetect for more", field="images")
    message = _parsed(pb.BatchDetectRequest, data)
    _check_id(message.request_id, "request_id")
    return BatchRequest(message.request_id, [_picture(image) for image in message.images], _asked(message.options))


def stream_item(data: bytes) -> StreamItem:
    """Reads a StreamDetectRequest."""
    message = _parsed(pb.StreamDetectRequest, data)
    _check_id(message.item_id, "item_id")
    picture = _picture(message.image)
    if not message.HasField("stream_options"):
        return StreamItem(message.item_id, picture, NO_OPTIONS, False)
    options = message.stream_options
    return StreamItem(message.item_id, picture, _asked(options.options), options.preserve_order)


def info_request(data: bytes) -> None:
    """Reads a GetModelInfoRequest, which says nothing."""
    _parsed(pb.GetModelInfoRequest, data)


def _has_more_fields(data: bytes, most: int) -> bool:
    """Whether a message has more fields at its top; looked up before parsing, since 16 MiB hold 8 million images."""
    position, size = 0, len(data)
    for _ in range(most + 1):
        if position >= size:
            return False
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 2:
            length, position = _varint(data, position)
            position += length
        elif kind == 0:
            _, position = _varint(data, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            return False  # groups: not ours, the parser judges them
    return position < size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number and the place behind it; what is cut short or too long ends the message, the parser says why."""
    value = 0
    for shift, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    return 0, len(data)


def _parsed(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.full_name
        raise InvalidRequest(f"expected one {name}, got {len(data)} bytes that are none") from error


def _check_id(value: str, name: str) -> None:
    if len(value) > MAX_ID_BYTES // 4 and (size := len(value.encode())) > MAX_ID_BYTES:
        raise InvalidRequest(f"{name}: expected at most {MAX_ID_BYTES} bytes, got {size}", field=name)


def _picture(image: pb.Image) -> Picture:
    if image.WhichOneof("source") == "raw":
        raw = image.raw
        return Picture(raw.data, "", (raw.height, raw.width, raw.channels))
    return Picture(image.encoded.data, image.encoded.mime_type, None)


def _asked(options: pb.DetectOptions) -> Asked:
    return Asked(
        model_version=options.model_version,
        alpha=options.target_fpr if options.HasField("target_fpr") else None,
        wish=Wish(
            detectors=tuple(dict.fromkeys(options.detectors)),  # a name may be sent a million times
            top_k=options.top_k,
            embedding=options.return_embedding,
            raw_scores=options.return_raw_scores,
        ),
    )


def meta_template(bundle: Bundle, provider: str) -> pb.ResponseMeta:
    """What every answer of this server says of it."""
    return pb.ResponseMeta(
        model_name=bundle.manifest.name,
        model_version=bundle.manifest.version,
        calibration_id=bundle.calibration_id,
        execution_provider=provider,
    )


def detect_answer(template: pb.ResponseMeta, request_id: str, detection: Detection, timings: Timings) -> bytes:
    """Writes a DetectResponse."""
    answer = pb.DetectResponse(detection=_detection(detection))
    _write_meta(answer.meta, template, request_id, timings)
    return answer.SerializeToString()


def batch_answer(
    template: pb.ResponseMeta, request_id: str, results: Sequence[Detection | AdvsentryError], timings: Timings
) -> bytes:
    """Writes a BatchDetectResponse."""
    answer = pb.BatchDetectResponse(results=[result_of(result) for result in results])
    _write_meta(answer.meta, template, request_id, timings)
    return answer.SerializeToString()


def stream_answer(
    template: pb.ResponseMeta, item_id: str, result: Detection | AdvsentryError, timings: Timings
) -> bytes:
    """Writes a StreamDetectResponse."""
    answer = pb.StreamDetectResponse(item_id=item_id, result=result_of(result))
    _write_meta(answer.meta, template, "", timings)
    return answer.SerializeToString()


def _write_meta(meta: pb.ResponseMeta, template: pb.ResponseMeta, request_id: str, timings: Timings) -> None:
    meta.CopyFrom(template)
    meta.request_id = request_id
    meta.batch_size = timings.batch_size
    stages = meta.timings
    stages.decode.nanos = _nanos(timings.decode_s, stages.decode)
    stages.queue.nanos = _nanos(timings.queue_s, stages.queue)
    stages.inference.nanos = _nanos(timings.inference_s, stages.inference)
    stages.total.nanos = _nanos(timings.total_s, stages.total)


def _nanos(seconds: float, duration: Duration) -> int:
    """The part below a second; sets the whole ones, which are rare."""
    if seconds >= 1:
        duration.seconds = int(seconds)
    return int(seconds % 1 * 1e9)


def result_of(result: Detection | AdvsentryError) -> pb.DetectResult:
    """One image's outcome."""
    if isinstance(result, Detection):
        return pb.DetectResult(detection=_detection(result))
    reason, retryable = item_reason(result)
    return pb.DetectResult(
        error=pb.ItemError(reason=f"ERROR_REASON_{reason}", message=str(result), retryable=retryable)
    )


def _detection(detection: Detection) -> pb.Detection:
    return pb.Detection(
        top=_class(detection.top),
        classes=[_class(entry) for entry in detection.classes],
        verdict=_VERDICTS[detection.verdict],
        combined_p_value=detection.p_value,
        target_fpr=detection.alpha,
        detectors=[_detector(entry) for entry in detection.detectors],
        flags=[_flag(entry) for entry in detection.flags],
        embedding=detection.embedding,
    )


def _class(entry: ClassScore) -> pb.ClassScore:
    return pb.ClassScore(index=entry.index, label=entry.label, probability=entry.probability)


def _detector(entry: DetectorScore) -> pb.DetectorScore:
    return pb.DetectorScore(
        detector=entry.detector,
        score=entry.score,
        p_value=entry.p_value,
        threshold=entry.threshold,
        flagged=entry.flagged,
        p_value_at_floor=entry.p_value_at_floor,
    )


def _flag(entry: Flag) -> pb.Flag:
    return pb.Flag(
        reason=f"FLAG_REASON_{entry.reason}",
        detector=entry.detector,
        message=entry.message,
        p_value=entry.p_value,
    )


def info_answer(bundle: Bundle, facts: ServerFacts) -> bytes:
    """Writes a GetModelInfoResponse."""
    manifest = bundle.manifest
    answer = pb.GetModelInfoResponse(
        name=manifest.name,
        version=manifest.version,
        versions=[manifest.version],
        graph_sha256=manifest.files["model.onnx"].sha256,
        preprocessing_id=PREPROCESSING_ID,
        labels=manifest.class_names,
        input_height=manifest.input.height,
        input_width=manifest.input.width,
        input_channels=manifest.input.channels,
        embedding_dim=manifest.embedding_dim,
        calibration_id=bundle.calibration_id,
        detectors=_detector_infos(bundle),
        limits=_limits(bundle, facts),
        default_target_fpr=manifest.default_alpha,
        execution_provider=facts.provider,
    )
    answer.loaded_at.FromNanoseconds(int(facts.loaded_at_s * 1e9))
    return answer.SerializeToString()


def _detector_infos(bundle: Bundle) -> list[pb.DetectorInfo]:
    n = bundle.calibration.detector_scores.shape[1]
    return [
        pb.DetectorInfo(
            name=entry.name,
            description=entry.meaning,
            reason=f"FLAG_REASON_{entry.reason}",
            calibration_size=n,
            p_value_floor=1 / (n + 1),
        )
        for entry in bundle.manifest.detectors
    ]


def _limits(bundle: Bundle, facts: ServerFacts) -> pb.Limits:
    limits = pb.Limits(
        max_message_bytes=facts.max_message_bytes,
        max_image_bytes=facts.images.max_bytes,
        max_image_pixels=facts.images.max_pixels,
        max_batch_items=facts.max_batch_items,
        max_queue_items=facts.max_queue_items,
        image_formats=[MIME_TYPES[name] for name in facts.images.formats],
        min_target_fpr=bundle.calibration.smallest_alpha,
        max_target_fpr=facts.max_alpha,
        target_fpr_steps=facts.alpha_steps,
    )
    limits.max_deadline.FromNanoseconds(int(facts.max_deadline_s * 1e9))
    return limits
