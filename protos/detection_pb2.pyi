import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_EMPTY_IMAGE: _ClassVar[ErrorReason]
    ERROR_REASON_UNDECODABLE: _ClassVar[ErrorReason]
    ERROR_REASON_FORMAT_UNSUPPORTED: _ClassVar[ErrorReason]
    ERROR_REASON_FORMAT_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_MANY_PIXELS: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_MANY_BYTES: _ClassVar[ErrorReason]
    ERROR_REASON_WRONG_SIZE: _ClassVar[ErrorReason]
    ERROR_REASON_BAD_TENSOR: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_OVERLOADED: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE: _ClassVar[ErrorReason]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_CLEAN: _ClassVar[Verdict]
    VERDICT_ADVERSARIAL: _ClassVar[Verdict]

class FlagReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FLAG_REASON_UNSPECIFIED: _ClassVar[FlagReason]
    FLAG_REASON_FEATURE_DENSITY: _ClassVar[FlagReason]
    FLAG_REASON_NEIGHBOUR_DISAGREEMENT: _ClassVar[FlagReason]
    FLAG_REASON_TRANSFORM_INSTABILITY: _ClassVar[FlagReason]
    FLAG_REASON_LOW_CONFIDENCE: _ClassVar[FlagReason]
    FLAG_REASON_ENERGY: _ClassVar[FlagReason]
    FLAG_REASON_OUT_OF_DISTRIBUTION: _ClassVar[FlagReason]
    FLAG_REASON_NEAR_DUPLICATE_QUERIES: _ClassVar[FlagReason]
    FLAG_REASON_INPUT_SPECTRUM: _ClassVar[FlagReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_EMPTY_IMAGE: ErrorReason
ERROR_REASON_UNDECODABLE: ErrorReason
ERROR_REASON_FORMAT_UNSUPPORTED: ErrorReason
ERROR_REASON_FORMAT_MISMATCH: ErrorReason
ERROR_REASON_TOO_MANY_PIXELS: ErrorReason
ERROR_REASON_TOO_MANY_BYTES: ErrorReason
ERROR_REASON_WRONG_SIZE: ErrorReason
ERROR_REASON_BAD_TENSOR: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_OVERLOADED: ErrorReason
ERROR_REASON_DEADLINE: ErrorReason
VERDICT_UNSPECIFIED: Verdict
VERDICT_CLEAN: Verdict
VERDICT_ADVERSARIAL: Verdict
FLAG_REASON_UNSPECIFIED: FlagReason
FLAG_REASON_FEATURE_DENSITY: FlagReason
FLAG_REASON_NEIGHBOUR_DISAGREEMENT: FlagReason
FLAG_REASON_TRANSFORM_INSTABILITY: FlagReason
FLAG_REASON_LOW_CONFIDENCE: FlagReason
FLAG_REASON_ENERGY: FlagReason
FLAG_REASON_OUT_OF_DISTRIBUTION: FlagReason
FLAG_REASON_NEAR_DUPLICATE_QUERIES: FlagReason
FLAG_REASON_INPUT_SPECTRUM: FlagReason

class Image(_message.Message):
    __slots__ = ("encoded", "raw")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    encoded: EncodedImage
    raw: RawImage
    def __init__(self, encoded: _Optional[_Union[EncodedImage, _Mapping]] = ..., raw: _Optional[_Union[RawImage, _Mapping]] = ...) -> None: ...

class EncodedImage(_message.Message):
    __slots__ = ("data", "mime_type")
    DATA_FIELD_NUMBER: _ClassVar[int]
    MIME_TYPE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    mime_type: str
    def __init__(self, data: _Optional[bytes] = ..., mime_type: _Optional[str] = ...) -> None: ...

class RawImage(_message.Message):
    __slots__ = ("height", "width", "channels", "data")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    channels: int
    data: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., channels: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class DetectOptions(_message.Message):
    __slots__ = ("model_version", "target_fpr", "detectors", "top_k", "return_embedding", "return_raw_scores", "priority")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FPR_FIELD_NUMBER: _ClassVar[int]
    DETECTORS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    RETURN_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    RETURN_RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    target_fpr: float
    detectors: _containers.RepeatedScalarFieldContainer[str]
    top_k: int
    return_embedding: bool
    return_raw_scores: bool
    priority: int
    def __init__(self, model_version: _Optional[str] = ..., target_fpr: _Optional[float] = ..., detectors: _Optional[_Iterable[str]] = ..., top_k: _Optional[int] = ..., return_embedding: _Optional[bool] = ..., return_raw_scores: _Optional[bool] = ..., priority: _Optional[int] = ...) -> None: ...

class DetectRequest(_message.Message):
    __slots__ = ("request_id", "image", "options")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: Image
    options: DetectOptions
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., options: _Optional[_Union[DetectOptions, _Mapping]] = ...) -> None: ...

class BatchDetectRequest(_message.Message):
    __slots__ = ("request_id", "images", "options")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    images: _containers.RepeatedCompositeFieldContainer[Image]
    options: DetectOptions
    def __init__(self, request_id: _Optional[str] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., options: _Optional[_Union[DetectOptions, _Mapping]] = ...) -> None: ...

class StreamDetectRequest(_message.Message):
    __slots__ = ("item_id", "image", "stream_options")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    STREAM_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    image: Image
    stream_options: StreamOptions
    def __init__(self, item_id: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., stream_options: _Optional[_Union[StreamOptions, _Mapping]] = ...) -> None: ...

class StreamOptions(_message.Message):
    __slots__ = ("options", "preserve_order")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PRESERVE_ORDER_FIELD_NUMBER: _ClassVar[int]
    options: DetectOptions
    preserve_order: bool
    def __init__(self, options: _Optional[_Union[DetectOptions, _Mapping]] = ..., preserve_order: _Optional[bool] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DetectResponse(_message.Message):
    __slots__ = ("detection", "meta")
    DETECTION_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    detection: Detection
    meta: ResponseMeta
    def __init__(self, detection: _Optional[_Union[Detection, _Mapping]] = ..., meta: _Optional[_Union[ResponseMeta, _Mapping]] = ...) -> None: ...

class BatchDetectResponse(_message.Message):
    __slots__ = ("results", "meta")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[DetectResult]
    meta: ResponseMeta
    def __init__(self, results: _Optional[_Iterable[_Union[DetectResult, _Mapping]]] = ..., meta: _Optional[_Union[ResponseMeta, _Mapping]] = ...) -> None: ...

class StreamDetectResponse(_message.Message):
    __slots__ = ("item_id", "result", "meta")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    result: DetectResult
    meta: ResponseMeta
    def __init__(self, item_id: _Optional[str] = ..., result: _Optional[_Union[DetectResult, _Mapping]] = ..., meta: _Optional[_Union[ResponseMeta, _Mapping]] = ...) -> None: ...

class DetectResult(_message.Message):
    __slots__ = ("detection", "error")
    DETECTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    detection: Detection
    error: ItemError
    def __init__(self, detection: _Optional[_Union[Detection, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("reason", "message", "retryable")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    reason: ErrorReason
    message: str
    retryable: bool
    def __init__(self, reason: _Optional[_Union[ErrorReason, str]] = ..., message: _Optional[str] = ..., retryable: _Optional[bool] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("top", "classes", "verdict", "combined_p_value", "target_fpr", "detectors", "flags", "embedding")
    TOP_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    COMBINED_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FPR_FIELD_NUMBER: _ClassVar[int]
    DETECTORS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    top: ClassScore
    classes: _containers.RepeatedCompositeFieldContainer[ClassScore]
    verdict: Verdict
    combined_p_value: float
    target_fpr: float
    detectors: _containers.RepeatedCompositeFieldContainer[DetectorScore]
    flags: _containers.RepeatedCompositeFieldContainer[Flag]
    embedding: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, top: _Optional[_Union[ClassScore, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., combined_p_value: _Optional[float] = ..., target_fpr: _Optional[float] = ..., detectors: _Optional[_Iterable[_Union[DetectorScore, _Mapping]]] = ..., flags: _Optional[_Iterable[_Union[Flag, _Mapping]]] = ..., embedding: _Optional[_Iterable[float]] = ...) -> None: ...

class ClassScore(_message.Message):
    __slots__ = ("index", "label", "probability")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    index: int
    label: str
    probability: float
    def __init__(self, index: _Optional[int] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class DetectorScore(_message.Message):
    __slots__ = ("detector", "score", "p_value", "threshold", "flagged", "p_value_at_floor")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_AT_FLOOR_FIELD_NUMBER: _ClassVar[int]
    detector: str
    score: float
    p_value: float
    threshold: float
    flagged: bool
    p_value_at_floor: bool
    def __init__(self, detector: _Optional[str] = ..., score: _Optional[float] = ..., p_value: _Optional[float] = ..., threshold: _Optional[float] = ..., flagged: _Optional[bool] = ..., p_value_at_floor: _Optional[bool] = ...) -> None: ...

class Flag(_message.Message):
    __slots__ = ("reason", "detector", "message", "p_value")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    reason: FlagReason
    detector: str
    message: str
    p_value: float
    def __init__(self, reason: _Optional[_Union[FlagReason, str]] = ..., detector: _Optional[str] = ..., message: _Optional[str] = ..., p_value: _Optional[float] = ...) -> None: ...

class ResponseMeta(_message.Message):
    __slots__ = ("request_id", "model_name", "model_version", "calibration_id", "execution_provider", "batch_size", "timings")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model_name: str
    model_version: str
    calibration_id: str
    execution_provider: str
    batch_size: int
    timings: StageTimings
    def __init__(self, request_id: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., calibration_id: _Optional[str] = ..., execution_provider: _Optional[str] = ..., batch_size: _Optional[int] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ...) -> None: ...

class StageTimings(_message.Message):
    __slots__ = ("decode", "queue", "inference", "total")
    DECODE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    decode: _duration_pb2.Duration
    queue: _duration_pb2.Duration
    inference: _duration_pb2.Duration
    total: _duration_pb2.Duration
    def __init__(self, decode: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., inference: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("name", "version", "versions", "graph_sha256", "preprocessing_id", "labels", "input_height", "input_width", "input_channels", "embedding_dim", "calibration_id", "detectors", "limits", "default_target_fpr", "execution_provider", "loaded_at", "takes_other_sizes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_SHA256_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INPUT_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    INPUT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    INPUT_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIM_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_ID_FIELD_NUMBER: _ClassVar[int]
    DETECTORS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TARGET_FPR_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    LOADED_AT_FIELD_NUMBER: _ClassVar[int]
    TAKES_OTHER_SIZES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    versions: _containers.RepeatedScalarFieldContainer[str]
    graph_sha256: str
    preprocessing_id: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    input_height: int
    input_width: int
    input_channels: int
    embedding_dim: int
    calibration_id: str
    detectors: _containers.RepeatedCompositeFieldContainer[DetectorInfo]
    limits: Limits
    default_target_fpr: float
    execution_provider: str
    loaded_at: _timestamp_pb2.Timestamp
    takes_other_sizes: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., versions: _Optional[_Iterable[str]] = ..., graph_sha256: _Optional[str] = ..., preprocessing_id: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., input_height: _Optional[int] = ..., input_width: _Optional[int] = ..., input_channels: _Optional[int] = ..., embedding_dim: _Optional[int] = ..., calibration_id: _Optional[str] = ..., detectors: _Optional[_Iterable[_Union[DetectorInfo, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., default_target_fpr: _Optional[float] = ..., execution_provider: _Optional[str] = ..., loaded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., takes_other_sizes: _Optional[bool] = ...) -> None: ...

class DetectorInfo(_message.Message):
    __slots__ = ("name", "description", "reason", "calibration_size", "p_value_floor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_SIZE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FLOOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    reason: FlagReason
    calibration_size: int
    p_value_floor: float
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., reason: _Optional[_Union[FlagReason, str]] = ..., calibration_size: _Optional[int] = ..., p_value_floor: _Optional[float] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_image_bytes", "max_image_pixels", "max_batch_items", "max_queue_items", "max_deadline", "image_formats", "min_target_fpr", "max_target_fpr", "target_fpr_steps")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FORMATS_FIELD_NUMBER: _ClassVar[int]
    MIN_TARGET_FPR_FIELD_NUMBER: _ClassVar[int]
    MAX_TARGET_FPR_FIELD_NUMBER: _ClassVar[int]
    TARGET_FPR_STEPS_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_batch_items: int
    max_queue_items: int
    max_deadline: _duration_pb2.Duration
    image_formats: _containers.RepeatedScalarFieldContainer[str]
    min_target_fpr: float
    max_target_fpr: float
    target_fpr_steps: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_batch_items: _Optional[int] = ..., max_queue_items: _Optional[int] = ..., max_deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., image_formats: _Optional[_Iterable[str]] = ..., min_target_fpr: _Optional[float] = ..., max_target_fpr: _Optional[float] = ..., target_fpr_steps: _Optional[_Iterable[float]] = ...) -> None: ...
