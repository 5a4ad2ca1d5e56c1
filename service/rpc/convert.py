"""The server's half of the wire contract: the only place that reads fields of requests and writes those of answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from protos import detection_pb2 as pb
from service.detection.bundle import Bundle
from service.detection.images import MIME_TYPES, PREPROCESSING_ID, ImageLimits
from service.detection.manifest import DetectorEntry
from service.detection.types import Flag
from service.detection.verdict import Shown, Wish, flag_of, flag_of_history
from service.errors import AdvsentryError, ErrorReason, InvalidRequest
from service.rpc.status import item_reason
from service.rpc.wire import AnyMessage, check_id, has_more_fields, parsed

__all__ = [
    "SERVICE",
    "Asked",
    "BatchRequest",
    "OneRequest",
    "Picture",
    "ServerFacts",
    "StreamItem",
    "StreamWriter",
    "Timings",
    "batch_answer",
    "batch_request",
    "detect_answer",
    "detect_request",
    "info_answer",
    "info_request",
    "locate",
    "meta_template",
    "stream_item",
]

SERVICE = pb.DESCRIPTOR.services_by_name["DetectorService"].full_name
SPARE_FIELDS = 256
"""Fields beside a batch's images that are borne: options, names of detectors, those of a newer client."""
LARGE_BYTES = 32 * 1024
"""A message of one image that is smaller is not looked at before it is parsed: whatever is in it costs little."""
_IMAGES = frozenset({"images"})

_cached = lru_cache(
    maxsize=16384
)  # 1001 probabilities of some classes, or as many parts that are never asked for again


@dataclass(slots=True)  # as `Scored`, not frozen
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
    priority: int = 0


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


@dataclass(slots=True)  # as `Scored`, not frozen
class StreamItem:
    """One message of StreamDetect; its options count in the first only."""

    item_id: str
    picture: Picture
    asked: Asked
    preserve_order: bool


@dataclass(kw_only=True, slots=True)  # as `Scored`, not frozen
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
    names_detectors: bool = True


NO_OPTIONS = Asked()


def detect_request(data: bytes) -> OneRequest:
    """Reads a DetectRequest.

    Raises:
        InvalidRequest: the bytes are none, or its id is too long. The same for the other readers.
    """
    message = _of_one_image(pb.DetectRequest, data)
    check_id(message.request_id, "request_id")
    return OneRequest(message.request_id, _picture(message.image), _options(message))


def batch_request(data: bytes, most: int) -> BatchRequest:
    """Reads a BatchDetectRequest of at most `most` images, or few more."""
    if has_more_fields(data, most + SPARE_FIELDS, pb.BatchDetectRequest, _IMAGES):
        raise InvalidRequest(f"images: expected 1 to {most}, got far more; use StreamDetect for more", field="images")
    message = parsed(pb.BatchDetectRequest, data)
    check_id(message.request_id, "request_id")
    return BatchRequest(message.request_id, [_picture(image) for image in message.images], _options(message))


def stream_item(data: bytes) -> StreamItem:
    """Reads a StreamDetectRequest."""
    message = _of_one_image(pb.StreamDetectRequest, data)
    check_id(message.item_id, "item_id")
    picture = _picture(message.image)
    if not message.HasField("stream_options"):
        return StreamItem(message.item_id, picture, NO_OPTIONS, False)
    options = message.stream_options
    return StreamItem(message.item_id, picture, _asked(options.options), options.preserve_order)


def _of_one_image(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    """A message; one that is large by its fields is not parsed: 16 MiB of names of detectors take 1.5 s."""
    if len(data) > LARGE_BYTES and has_more_fields(data, SPARE_FIELDS, kind):
        raise InvalidRequest(f"expected one {kind.DESCRIPTOR.full_name}, got far more fields than it has")
    return parsed(kind, data)


def info_request(data: bytes) -> None:
    """Reads a GetModelInfoRequest, which says nothing."""
    parsed(pb.GetModelInfoRequest, data)


def _picture(image: pb.Image) -> Picture:
    if image.HasField("raw"):
        raw = image.raw
        return Picture(raw.data, "", (raw.height, raw.width, raw.channels))
    encoded = image.encoded
    return Picture(encoded.data, encoded.mime_type, None)


def _options(message: pb.DetectRequest | pb.BatchDetectRequest) -> Asked:
    return _asked(message.options) if message.HasField("options") else NO_OPTIONS


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
        priority=options.priority,
    )


def locate(error: AdvsentryError, picture: Picture) -> None:
    """Says in an error of a Detect which field of its image is at fault, where only the image was known."""
    if not isinstance(error, InvalidRequest) or error.field != "image" or error.reason is ErrorReason.EMPTY_IMAGE:
        return
    if picture.size is not None:
        is_size = error.reason in (ErrorReason.WRONG_SIZE, ErrorReason.TOO_MANY_PIXELS)
        error.field = "image.raw" if is_size else "image.raw.data"
    else:
        is_type = error.reason is ErrorReason.FORMAT_MISMATCH
        error.field = "image.encoded.mime_type" if is_type else "image.encoded.data"


def meta_template(bundle: Bundle, provider: str) -> pb.ResponseMeta:
    """What every answer of this server says of it."""
    return pb.ResponseMeta(
        model_name=bundle.manifest.name,
        model_version=bundle.manifest.version,
        calibration_id=bundle.calibration_id,
        execution_provider=provider,
    )


def detect_answer(template: pb.ResponseMeta, request_id: str, shown: Shown, timings: Timings) -> bytes:
    """Writes a DetectResponse of one image."""
    answer = pb.DetectResponse()
    _write_meta(answer.meta, template, request_id, timings)
    return _nested(_DETECTION_OF_ONE, _detections(shown)[0]) + answer.SerializeToString()


def batch_answer(
    template: pb.ResponseMeta,
    request_id: str,
    errors: Sequence[AdvsentryError | None],
    shown: Shown | None,
    timings: Timings,
) -> bytes:
    """Writes a BatchDetectResponse.

    Args:
        errors: of each image; None takes the next row of `shown`.
    """
    answer = pb.BatchDetectResponse()
    _write_meta(answer.meta, template, request_id, timings)
    rows = iter(_detections(shown) if shown is not None else ())
    results = [
        _nested(_DETECTION, next(rows)) if error is None else _nested(_ERROR, _item_error(error).SerializeToString())
        for error in errors
    ]
    return b"".join(_nested(_RESULT_OF_BATCH, result) for result in results) + answer.SerializeToString()


class StreamWriter:
    """Writes StreamDetectResponses; one for each stream."""

    def __init__(self, template: pb.ResponseMeta) -> None:
        self._template = template

    def error(self, item_id: str, error: AdvsentryError, timings: Timings) -> bytes:
        """The answer to an image without a detection."""
        answer = pb.StreamDetectResponse(item_id=item_id, result=pb.DetectResult(error=_item_error(error)))
        _write_meta(answer.meta, self._template, "", timings)
        return answer.SerializeToString()

    def detections(self, item_ids: Sequence[str], shown: Shown, timings: Sequence[Timings]) -> list[bytes]:
        """Answers to images that have an id, a row of `shown`, and times."""
        answers = []
        answer = pb.StreamDetectResponse()  # written over for each image, but not kept: it never gives memory back
        _write_meta(answer.meta, self._template, "", Timings())
        for item_id, row, times in zip(item_ids, _detections(shown), timings, strict=True):
            answer.item_id = item_id
            answer.meta.batch_size = times.batch_size
            _write_timings(answer.meta.timings, times)
            answers.append(_nested(_RESULT_OF_STREAM, _nested(_DETECTION, row)) + answer.SerializeToString())
        return answers


def _number(kind: type[Message], field: str) -> int:
    return int(kind.DESCRIPTOR.fields_by_name[field].number)


_DETECTION_OF_ONE = _number(pb.DetectResponse, "detection")
_RESULT_OF_BATCH = _number(pb.BatchDetectResponse, "results")
_RESULT_OF_STREAM = _number(pb.StreamDetectResponse, "result")
_DETECTION, _ERROR = _number(pb.DetectResult, "detection"), _number(pb.DetectResult, "error")


def _nested(number: int, content: bytes) -> bytes:
    """A field that is a message, of serialised content: parsing it only to serialise it again took 5 us an image."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes((number << 3 | 2,)) + length + content


def _write_meta(meta: pb.ResponseMeta, template: pb.ResponseMeta, request_id: str, timings: Timings) -> None:
    meta.CopyFrom(template)
    meta.request_id = request_id
    meta.batch_size = timings.batch_size
    _write_timings(meta.timings, timings)


def _write_timings(stages: pb.StageTimings, timings: Timings) -> None:
    _write_duration(stages.decode, timings.decode_s)
    _write_duration(stages.queue, timings.queue_s)
    _write_duration(stages.inference, timings.inference_s)
    _write_duration(stages.total, timings.total_s)


def _write_duration(duration: Duration, seconds: float) -> None:
    duration.seconds = whole = int(seconds)
    duration.nanos = int((seconds - whole) * 1e9)


def _item_error(error: AdvsentryError) -> pb.ItemError:
    reason, retryable = item_reason(error)
    return pb.ItemError(reason=f"ERROR_REASON_{reason}", message=str(error), retryable=retryable)


def _detections(shown: Shown) -> list[bytes]:
    """A serialised Detection of each image.

    Each is the concatenation of serialised Detections of one field each, which protobuf defines to be their merge.
    Shown figures are rounded, so that few different parts exist and nearly all come out of a cache.
    """
    names, entries = shown.class_names, shown.detectors
    heads = [
        pb.Detection(verdict=verdict, target_fpr=shown.alpha).SerializeToString()
        for verdict in (pb.VERDICT_CLEAN, pb.VERDICT_ADVERSARIAL)
    ]
    made = []
    for i, classes in enumerate(shown.classes):
        probabilities = (None,) if shown.probabilities is None else shown.probabilities[i]
        parts = [heads[shown.is_adversarial[i]], _top_part(classes[0], names[classes[0]], probabilities[0])]
        parts += [_class_part(c, names[c], p) for c, p in zip(classes, probabilities, strict=True)]
        if shown.p_values is not None:
            parts.append(_p_value_part(shown.p_values[i]))
        for r, entry in enumerate(entries):
            p_value, is_flagged = shown.detector_p_values[i][r], shown.is_flagged[i][r]
            score = None if shown.scores is None else shown.scores[i][r]
            threshold = None if shown.thresholds is None else shown.thresholds[r]
            parts.append(_detector_part(entry.name, score, p_value, threshold, is_flagged, shown.is_at_floor[i][r]))
            if is_flagged:
                parts.append(_flag_part(entry, p_value))
        if shown.history is not None and (history := shown.history[i]) is not None:
            parts.append(_flag_bytes(flag_of_history(history)))
        if shown.embeddings is not None:
            parts.append(pb.Detection(embedding=shown.embeddings[i]).SerializeToString())
        made.append(b"".join(parts))
    return made


@_cached
def _top_part(index: int, label: str, probability: float | None) -> bytes:
    return pb.Detection(top=pb.ClassScore(index=index, label=label, probability=probability)).SerializeToString()


@_cached
def _class_part(index: int, label: str, probability: float | None) -> bytes:
    return pb.Detection(classes=[pb.ClassScore(index=index, label=label, probability=probability)]).SerializeToString()


@_cached
def _p_value_part(p_value: float) -> bytes:
    return pb.Detection(combined_p_value=p_value).SerializeToString()


@_cached
def _detector_part(
    name: str, score: float | None, p_value: float, threshold: float | None, is_flagged: bool, is_at_floor: bool
) -> bytes:
    row = pb.DetectorScore(
        detector=name,
        score=score,
        p_value=p_value,
        threshold=threshold,
        flagged=is_flagged,
        p_value_at_floor=is_at_floor,
    )
    return pb.Detection(detectors=[row]).SerializeToString()


@_cached
def _flag_part(entry: DetectorEntry, p_value: float) -> bytes:
    return _flag_bytes(flag_of(entry, p_value))


def _flag_bytes(flag: Flag) -> bytes:
    message = pb.Flag(
        reason=f"FLAG_REASON_{flag.reason}", detector=flag.detector, message=flag.message, p_value=flag.p_value
    )
    return pb.Detection(flags=[message]).SerializeToString()


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
        detectors=_detector_infos(bundle) if facts.names_detectors else (),
        limits=_limits(bundle, facts),
        default_target_fpr=manifest.default_alpha,
        execution_provider=facts.provider,
        takes_other_sizes=bundle.resize is not None,
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
