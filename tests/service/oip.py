"""Messages of the Open Inference Protocol, made and read as a client does."""

import io
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from PIL import Image

from protos import inference as pb
from service.detection.types import Detection

SERVICE = "inference.GRPCInferenceService"
TYPES = {"BOOL": np.dtype("?"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
Tensor = pb.ModelInferRequest.InferInputTensor
Wanted = pb.ModelInferRequest.InferRequestedOutputTensor
METHODS = {
    "ServerLive": pb.ServerLiveResponse,
    "ServerReady": pb.ServerReadyResponse,
    "ModelReady": pb.ModelReadyResponse,
    "ServerMetadata": pb.ServerMetadataResponse,
    "ModelMetadata": pb.ModelMetadataResponse,
    "ModelConfig": pb.ModelConfigResponse,
    "ModelStatistics": pb.ModelStatisticsResponse,
}


def png(image: np.ndarray) -> bytes:
    """A file of a grey image (H, W, 1)."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0]).save(buffer, "PNG")
    return buffer.getvalue()


def strings(values: Sequence[bytes]) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def pixels(images: np.ndarray, *, typed: bool = False, **fields: object) -> pb.ModelInferRequest:
    """A request about a tensor (N, H, W, C)."""
    tensor = Tensor(name="images", datatype="UINT8", shape=images.shape)
    if typed:
        tensor.contents.uint_contents.extend(images.ravel().tolist())
    raw = [] if typed else [images.tobytes()]
    return pb.ModelInferRequest(**{"model_name": "advsentry", "inputs": [tensor], "raw_input_contents": raw, **fields})  # type: ignore[arg-type]


def files(images: Sequence[bytes], *, typed: bool = False, **fields: object) -> pb.ModelInferRequest:
    """A request about encoded files."""
    tensor = Tensor(name="images", datatype="BYTES", shape=[len(images)])
    if typed:
        tensor.contents.bytes_contents.extend(images)
    raw = [] if typed else [strings(images)]
    return pb.ModelInferRequest(**{"model_name": "advsentry", "inputs": [tensor], "raw_input_contents": raw, **fields})  # type: ignore[arg-type]


def ask(channel: grpc.Channel, method: str, request: Message | bytes, **options: object) -> bytes:
    """The answer's bytes."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    return channel.unary_unary(f"/{SERVICE}/{method}")(data, **options)  # type: ignore[arg-type]


def infer(channel: grpc.Channel, request: pb.ModelInferRequest, **options: object) -> pb.ModelInferResponse:
    return pb.ModelInferResponse.FromString(ask(channel, "ModelInfer", request, **options))


def stream(channel: grpc.Channel, requests: object, **options: object) -> object:
    """A call that gives ModelStreamInferResponses."""
    return channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        pb.ModelInferRequest.SerializeToString,
        pb.ModelStreamInferResponse.FromString,
    )(requests, **options)  # type: ignore[arg-type]


def tensors(response: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    """Outputs by name; BYTES as arrays of objects."""
    found = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        assert not output.HasField("contents")
        if output.datatype == "BYTES":
            values, position = [], 0
            while position < len(raw):
                end = position + 4 + int.from_bytes(raw[position : position + 4], "little")
                values.append(raw[position + 4 : end])
                position = end
            array = np.array(values, object)
        else:
            array = np.frombuffer(raw, TYPES[output.datatype])
        found[output.name] = array.reshape(list(output.shape))
    return found


def check_same(found: dict[str, np.ndarray], known: Sequence[Detection]) -> None:
    """Bit for bit what a native answer says of the same images."""
    assert [label.decode() for label in found["label"]] == [one.top.label for one in known]
    assert found["adversarial"].tolist() == [one.verdict == "adversarial" for one in known]
    assert found["combined_p_value"].tolist() == [one.p_value for one in known]
    assert found["p_values"].tolist() == [[row.p_value for row in one.detectors] for one in known]
    reasons = [",".join(dict.fromkeys(flag.reason for flag in one.flags)) for one in known]
    assert [value.decode() for value in found["reasons"]] == reasons
    probabilities = [[score.probability for score in sorted(one.classes, key=lambda c: c.index)] for one in known]
    assert found["probabilities"].tobytes() == np.array(probabilities, np.float32).tobytes()


def tell(channel: grpc.Channel, method: str, **fields: str) -> Any:
    request = pb.ModelMetadataRequest(**fields)
    return METHODS[method].FromString(ask(channel, method, request))


def fails(
    channel: grpc.Channel, method: str, request: Message | bytes, code: grpc.StatusCode, says: str
) -> dict[str, str]:
    with pytest.raises(grpc.RpcError, match=says) as caught:
        ask(channel, method, request)
    assert caught.value.code() is code
    return {key: str(value) for key, value in caught.value.trailing_metadata()}
