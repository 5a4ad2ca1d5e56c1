"""The client's half of the wire contract: writes requests and reads answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protos import detection_pb2 as pb
from service.detection.types import (
    Bytes8,
    ClassScore,
    Detection,
    DetectorScore,
    Flag,
    FlagReason,
    Verdict,
)
from service.errors import AdvsentryError, DeadlinePassed, ErrorReason, InvalidRequest, Overloaded

__all__ = ["Options", "ServerInfo", "detection_of", "image_message", "info_of", "options_message", "result_of"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a client may ask for; the defaults take the server's."""

    alpha: float | None = None
    """Share of clean images that may be called adversarial."""
    model_version: str = ""
    detectors: tuple[str, ...] = ()
    top_k: int = 0
    """Classes to return; all when 0."""
    embedding: bool = False
    raw_scores: bool = False
    priority: int = 0
    """0 takes the default, 1 is the highest; 2 and more is for bulk, which lets others go first."""


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """What a server runs and takes."""

    name: str
    version: str
    labels: tuple[str, ...]
    height: int
    width: int
    channels: int
    takes_other_sizes: bool
    """Whether images of another height and width are resized, not refused."""
    detectors: tuple[str, ...]
    calibration_id: str
    execution_provider: str
    default_alpha: float
    alpha_steps: tuple[float, ...]
    """The only alphas that it takes; empty when any from `min_alpha` to `max_alpha` will do."""
    min_alpha: float
    max_alpha: float
    max_message_bytes: int
    max_batch_items: int


def image_message(image: bytes | Bytes8) -> pb.Image:
    """A PNG, JPEG or WebP file, or an array.

    Raises:
        InvalidRequest: an array that is not uint8 of (H, W) or (H, W, C).
    """
    if isinstance(image, bytes):
        return pb.Image(encoded=pb.EncodedImage(data=image))
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise InvalidRequest(
            f"expected an array of uint8, (height, width, channels), got {image.dtype} {image.shape}",
            reason=ErrorReason.BAD_TENSOR,
        )
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    return pb.Image(raw=pb.RawImage(height=height, width=width, channels=channels, data=image.tobytes()))


def options_message(options: Options) -> pb.DetectOptions:
    """The options of a request."""
    return pb.DetectOptions(
        model_version=options.model_version,
        target_fpr=options.alpha,
        detectors=options.detectors,
        top_k=options.top_k,
        return_embedding=options.embedding,
        return_raw_scores=options.raw_scores,
        priority=options.priority,
    )


def result_of(result: pb.DetectResult) -> Detection | AdvsentryError:
    """One image's outcome; an error is returned, not raised, since its neighbours have their own."""
    if result.WhichOneof("outcome") == "detection":
        return detection_of(result.detection)
    error = result.error
    reason = _name(pb.ErrorReason, error.reason, "ERROR_REASON_")
    if reason == ErrorReason.OVERLOADED:
        return Overloaded(error.message, retry_after_ms=0)
    if reason == ErrorReason.DEADLINE:
        return DeadlinePassed(error.message)
    if reason not in set(ErrorReason) or reason == ErrorReason.INTERNAL:
        return AdvsentryError(error.message)
    return InvalidRequest(error.message, reason=ErrorReason(reason), field="image")


def detection_of(message: pb.Detection) -> Detection:
    """A detection as the server shows it; what is hidden is None or empty.

    Raises:
        AdvsentryError: a verdict that this client does not know.
    """
    if message.verdict not in (pb.VERDICT_CLEAN, pb.VERDICT_ADVERSARIAL):
        raise AdvsentryError(f"the server gave verdict {message.verdict}, which this client does not know; update it")
    return Detection(
        top=_class(message.top),
        classes=tuple(_class(entry) for entry in message.classes),
        verdict=Verdict.CLEAN if message.verdict == pb.VERDICT_CLEAN else Verdict.ADVERSARIAL,
        p_value=message.combined_p_value if message.HasField("combined_p_value") else None,
        alpha=message.target_fpr,
        detectors=tuple(_detector(entry) for entry in message.detectors),
        flags=tuple(_flag(entry) for entry in message.flags),
        embedding=tuple(message.embedding),
    )


def _class(message: pb.ClassScore) -> ClassScore:
    probability = message.probability if message.HasField("probability") else None
    return ClassScore(index=message.index, label=message.label, probability=probability)


def _detector(message: pb.DetectorScore) -> DetectorScore:
    return DetectorScore(
        detector=message.detector,
        flagged=message.flagged,
        score=message.score if message.HasField("score") else None,
        p_value=message.p_value if message.HasField("p_value") else None,
        p_value_at_floor=message.p_value_at_floor,
        threshold=message.threshold if message.HasField("threshold") else None,
    )


def _flag(message: pb.Flag) -> Flag:
    name = _name(pb.FlagReason, message.reason, "FLAG_REASON_")
    return Flag(
        reason=FlagReason(name) if name in set(FlagReason) else FlagReason.UNSPECIFIED,
        detector=message.detector,
        message=message.message,
        p_value=message.p_value if message.HasField("p_value") else None,
    )


def _name(enum: type[pb.FlagReason] | type[pb.ErrorReason], number: int, prefix: str) -> str:
    """The name of an enum value; empty for one that is newer than this client."""
    return enum.Name(number).removeprefix(prefix) if number in enum.values() else ""


def info_of(message: pb.GetModelInfoResponse) -> ServerInfo:
    """What a server says of itself."""
    limits = message.limits
    return ServerInfo(
        name=message.name,
        version=message.version,
        labels=tuple(message.labels),
        height=message.input_height,
        width=message.input_width,
        channels=message.input_channels,
        takes_other_sizes=message.takes_other_sizes,
        detectors=_names(message.detectors),
        calibration_id=message.calibration_id,
        execution_provider=message.execution_provider,
        default_alpha=message.default_target_fpr,
        alpha_steps=tuple(limits.target_fpr_steps),
        min_alpha=limits.min_target_fpr,
        max_alpha=limits.max_target_fpr,
        max_message_bytes=limits.max_message_bytes,
        max_batch_items=limits.max_batch_items,
    )


def _names(detectors: Sequence[pb.DetectorInfo]) -> tuple[str, ...]:
    return tuple(entry.name for entry in detectors)
