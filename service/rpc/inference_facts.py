"""The Open Inference Protocol's answers about the server and its model, and the requests for them."""

from dataclasses import dataclass

from protos import inference as pb
from service.detection.bundle import Bundle
from service.detection.verdict import RevealMode
from service.metrics import Metrics
from service.rpc.inference_inputs import INPUT
from service.rpc.inference_outputs import OUTPUTS, visible_outputs
from service.rpc.wire import parsed

__all__ = [
    "AskedModel",
    "check_empty",
    "live_answer",
    "model_config",
    "model_metadata",
    "model_ready_answer",
    "model_request",
    "model_statistics",
    "ready_answer",
    "server_metadata",
]

PLATFORM = "onnx_onnxv1"
EXTENSIONS = ("model_configuration", "statistics", "schedule_policy", "parameters")
"""Of Triton, and no more than what is served."""

PRIORITY_LEVELS = 2
"""Priorities 0 and 1 are before all others."""

_EMPTY = {
    "ServerLive": pb.ServerLiveRequest,
    "ServerReady": pb.ServerReadyRequest,
    "ServerMetadata": pb.ServerMetadataRequest,
}
_DATA_TYPES = {
    "UINT8": pb.TYPE_UINT8,
    "BOOL": pb.TYPE_BOOL,
    "FP32": pb.TYPE_FP32,
    "FP64": pb.TYPE_FP64,
    "BYTES": pb.TYPE_STRING,
}


@dataclass(frozen=True, slots=True)
class AskedModel:
    """The model that a call is about."""

    name: str
    version: str
    """Any when empty."""


def check_empty(method: str, data: bytes) -> None:
    """Reads a request that says nothing.

    Raises:
        InvalidRequest: the bytes are none.
    """
    parsed(_EMPTY[method], data)


def model_request(data: bytes) -> AskedModel:
    """Reads a request about a model; all have the same two fields.

    Raises:
        InvalidRequest: the bytes are none.
    """
    message = parsed(pb.ModelMetadataRequest, data)
    return AskedModel(message.name, message.version)


def live_answer(is_live: bool) -> bytes:
    """Writes a ServerLiveResponse."""
    return pb.ServerLiveResponse(live=is_live).SerializeToString()


def ready_answer(is_ready: bool) -> bytes:
    """Writes a ServerReadyResponse."""
    return pb.ServerReadyResponse(ready=is_ready).SerializeToString()


def model_ready_answer(is_ready: bool) -> bytes:
    """Writes a ModelReadyResponse."""
    return pb.ModelReadyResponse(ready=is_ready).SerializeToString()


def server_metadata(version: str) -> bytes:
    """Writes a ServerMetadataResponse."""
    return pb.ServerMetadataResponse(name="advsentry", version=version, extensions=EXTENSIONS).SerializeToString()


def _image_dims(bundle: Bundle) -> tuple[int, int, int]:
    shape = bundle.manifest.input
    if bundle.resize is not None:
        return -1, -1, shape.channels
    return shape.height, shape.width, shape.channels


def model_metadata(name: str, bundle: Bundle, mode: RevealMode, *, names_detectors: bool) -> bytes:
    """Writes a ModelMetadataResponse.

    Args:
        name: the one of the model's names that the caller knows.
        mode: what he may see; the rest is not spoken of.
        names_detectors: whether he may learn what detectors there are.
    """
    manifest = bundle.manifest
    names = ",".join(entry.name for entry in manifest.detectors)
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=name,
        versions=[manifest.version],
        platform=PLATFORM,
        inputs=[tensor(name=INPUT, datatype="UINT8", shape=(-1, *_image_dims(bundle)))],
        outputs=[
            tensor(name=output, datatype=OUTPUTS[output].datatype, shape=(-1, *OUTPUTS[output].width(manifest)))
            for output in visible_outputs(mode)
        ],
        properties={
            "bundle": manifest.name,
            "calibration_id": bundle.calibration_id,
            "classes": ",".join(manifest.class_names),
            **({"detectors": names} if names_detectors else {}),
            "default_target_fpr": repr(manifest.default_alpha),
            "also_takes": f"{INPUT} BYTES [-1]: encoded files",
        },
    ).SerializeToString()


def model_config(name: str, bundle: Bundle, mode: RevealMode, max_batch_items: int) -> bytes:
    """Writes a ModelConfigResponse.

    Args:
        name, mode: as for `model_metadata`.
        max_batch_items: images in one request.
    """
    config = pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend="onnxruntime",
        max_batch_size=max_batch_items,
        input=[pb.ModelInput(name=INPUT, data_type=pb.TYPE_UINT8, dims=_image_dims(bundle))],
        output=[
            pb.ModelOutput(
                name=output,
                data_type=_DATA_TYPES[OUTPUTS[output].datatype],
                dims=OUTPUTS[output].width(bundle.manifest),
            )
            for output in visible_outputs(mode)
        ],
        dynamic_batching=pb.ModelDynamicBatching(priority_levels=PRIORITY_LEVELS, default_priority_level=1),
    )
    return pb.ModelConfigResponse(config=config).SerializeToString()


def model_statistics(name: str, version: str, metrics: Metrics) -> bytes:
    """Writes a ModelStatisticsResponse; all that the server did, by whatever API, since it started.

    A request is an image here: one answered is a success, and each stage counts and times those that were answered.
    """
    work = metrics.work
    answered, queue_s = metrics.stage["queue"].totals()
    decoded, decode_s = metrics.stage["decode"].totals()
    _, inference_s = metrics.stage["inference"].totals()
    _, postprocess_s = metrics.stage["postprocess"].totals()
    statistics = pb.ModelStatistics(
        name=name,
        version=version,
        last_inference=int(1000 * work.last_s),
        inference_count=sum(size * count for size, (count, _) in work.runs.items()),
        execution_count=sum(count for count, _ in work.runs.values()),
        inference_stats=pb.InferStatistics(
            success=_duration(answered, queue_s + decode_s + inference_s + postprocess_s),
            fail=_duration(work.failed, 0.0),
            queue=_duration(answered, queue_s),
            compute_input=_duration(decoded, decode_s),
            compute_infer=_duration(answered, inference_s),
            compute_output=_duration(answered, postprocess_s),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, compute_infer=_duration(*run))
            for size, run in sorted(work.runs.items())
        ],
    )
    return pb.ModelStatisticsResponse(model_stats=[statistics]).SerializeToString()


def _duration(count: int, took_s: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=int(1e9 * took_s))
