"""The fields of ModelInfer's messages, read and written: one model, one input, an output for each fact of a `Shown`."""

import math
from dataclasses import dataclass

from protos import inference as pb
from service.detection.bundle import Bundle
from service.detection.manifest import Manifest
from service.detection.verdict import Shown
from service.errors import AdvsentryError, InvalidRequest, UnknownModel
from service.rpc.convert import Asked
from service.rpc.inference_inputs import Images, images_of, refuse_parameters
from service.rpc.inference_outputs import OUTPUTS
from service.rpc.status import code_of
from service.rpc.wire import check_id, cut_id, has_more_fields, parsed

__all__ = [
    "MODEL",
    "SERVICE",
    "Answer",
    "InferRequest",
    "Received",
    "check_model",
    "infer_answer",
    "infer_request",
    "received",
    "stream_answer",
    "stream_error",
]

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
MODEL = "advsentry"
SPARE_FIELDS = 256
"""Fields of a request beside its images that are borne: names, shapes, parameters."""

_MILLION = 10**6
_PARAMETERS = "target_fpr (double), priority (integer) and timeout (integer, microseconds)"
_BEARABLE = "triton_enable_empty_final_response"
"""Asks for a sign that a stream's answer is the last to its request; each of ours is, and says so."""
_FINAL = "triton_final_response"


@dataclass(frozen=True, slots=True)
class Received:
    """A message that is one, with an id to answer it by; nothing else of it is checked."""

    request_id: str
    """Empty of one that was not read; cut to what may be echoed."""
    message: pb.ModelInferRequest
    fault: InvalidRequest | None = None
    """What `infer_request` raises, so that a stream can answer it as any other failure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InferRequest:
    """ModelInfer."""

    model: str
    request_id: str
    images: Images
    asked: Asked
    outputs: tuple[str, ...]
    """Empty for all that there are."""
    timeout_s: float
    """From now; infinite when the caller sets none."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Answer:
    """What a ModelInfer came to."""

    request: InferRequest
    outputs: tuple[str, ...]
    shown: Shown
    bundle: Bundle
    provider: str


def check_model(name: str, manifest: Manifest) -> None:
    """Refuses a model that is not here; the one that is has two names, this protocol's and its bundle's.

    Raises:
        UnknownModel: neither.
    """
    if name not in (MODEL, manifest.name):
        raise UnknownModel(f"model {name[:64]!r}: this server has {MODEL!r}, also called {manifest.name!r}")


def received(data: bytes, most: int) -> Received:
    """Reads a ModelInferRequest of at most `most` images; one of far more fields is not parsed.

    Raises:
        InvalidRequest: the bytes are none.
    """
    if has_more_fields(data, most + SPARE_FIELDS, pb.ModelInferRequest):
        fault = InvalidRequest(
            f"expected one {pb.ModelInferRequest.DESCRIPTOR.full_name} of at most {most} images, got far more fields; "
            "send several requests, or numbers in raw_input_contents",
        )
        return Received("", pb.ModelInferRequest(), fault)
    message = parsed(pb.ModelInferRequest, data)
    try:
        check_id(message.id, "id")
    except InvalidRequest as error:
        return Received(cut_id(message.id), message, error)
    return Received(message.id, message)


def infer_request(came: Received, manifest: Manifest, most: int) -> InferRequest:
    """Checks all that can be said of a request without decoding an image.

    Raises:
        UnknownModel: it names another model.
        InvalidRequest: its id, a tensor or a parameter is wrong, or there are too many.
    """
    if came.fault is not None:
        raise came.fault
    message = came.message
    check_model(message.model_name, manifest)
    asked, timeout_s = _parameters(message)
    for i, output in enumerate(message.outputs):
        refuse_parameters(output.parameters, f"outputs[{i}]")
    return InferRequest(
        model=message.model_name,
        request_id=came.request_id,
        images=images_of(message, most),
        asked=asked,
        outputs=tuple(dict.fromkeys(output.name for output in message.outputs)),
        timeout_s=timeout_s,
    )


def _parameters(message: pb.ModelInferRequest) -> tuple[Asked, float]:
    """The options, and the timeout in seconds."""
    alpha, priority, timeout_s = None, 0, math.inf
    for name, parameter in message.parameters.items():
        if name == "target_fpr":
            if parameter.WhichOneof("parameter_choice") != "double_param":
                raise _not_a("double", name, parameter)
            alpha = parameter.double_param
        elif name == "timeout":
            timeout_s = _whole_number(name, parameter) / _MILLION or math.inf  # 0 is Triton's word for none
        elif name == "priority":
            priority = _whole_number(name, parameter)
        elif name != _BEARABLE:
            raise InvalidRequest(
                f"parameters: known are {_PARAMETERS}, got {name[:64]!r}", field=f"parameters[{name[:64]}]"
            )
    return Asked(model_version=message.model_version, alpha=alpha, priority=priority), timeout_s


def _whole_number(name: str, parameter: pb.InferParameter) -> int:
    choice = parameter.WhichOneof("parameter_choice")
    if choice not in ("int64_param", "uint64_param") or (value := int(getattr(parameter, choice))) < 0:
        raise _not_a("whole number of 0 or more (int64 or uint64)", name, parameter)
    return value


def _not_a(wanted: str, name: str, parameter: pb.InferParameter) -> InvalidRequest:
    choice = parameter.WhichOneof("parameter_choice")
    got = "nothing" if choice is None else f"{choice} {str(getattr(parameter, choice))[:64]}"
    return InvalidRequest(f"parameters: expected {name} to be a {wanted}, got {got}", field=f"parameters[{name}]")


def infer_answer(answer: Answer) -> bytes:
    """Writes a ModelInferResponse."""
    return _response(answer).SerializeToString()


def stream_answer(answer: Answer) -> bytes:
    """Writes a ModelStreamInferResponse of images."""
    response = _response(answer)
    response.parameters[_FINAL].bool_param = True  # clients of Triton's streams wait for it
    return pb.ModelStreamInferResponse(infer_response=response).SerializeToString()


def stream_error(request_id: str, error: AdvsentryError) -> bytes:
    """Writes a ModelStreamInferResponse of a failure; the text holds the id, since Triton's client shows that only."""
    text = f"[request id: {request_id or '<id_unknown>'}] {code_of(error).name}: {error}"
    response = pb.ModelInferResponse(id=request_id)
    return pb.ModelStreamInferResponse(error_message=text, infer_response=response).SerializeToString()


def _response(answer: Answer) -> pb.ModelInferResponse:
    """Always with raw contents: Triton's client makes empty arrays of typed ones."""
    manifest, shown = answer.bundle.manifest, answer.shown
    response = pb.ModelInferResponse(
        model_name=answer.request.model, model_version=manifest.version, id=answer.request.request_id
    )
    response.parameters["target_fpr"].double_param = shown.alpha
    response.parameters["calibration_id"].string_param = answer.bundle.calibration_id
    response.parameters["execution_provider"].string_param = answer.provider
    for name in answer.outputs:
        output = OUTPUTS[name]
        response.outputs.add(name=name, datatype=output.datatype, shape=(len(shown), *output.width(manifest)))
        response.raw_output_contents.append(output.write(shown))
    return response
