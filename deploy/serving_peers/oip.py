"""ModelInfer of the Open Inference Protocol v2 as bytes, the same for every server."""

from deploy.load import Unary
from service.detection.types import Bytes8

__all__ = ["INFER", "MODEL", "infer_calls"]

INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL = "advsentry"


def infer_calls(images: Bytes8) -> Unary:
    """ModelInfer of one image after the other, in `raw_input_contents`.

    Written field by field: the message's class is registered by our service and by clients under one name, and a
    benchmark needs none of them.

    Args:
        images: (N, H, W, C).
    """
    shape = b"".join(_varint(size) for size in (1, *images.shape[1:]))
    tensor = _field(1, b"images") + _field(2, b"UINT8") + _field(3, shape)
    head = _field(1, MODEL.encode()) + _field(5, tensor)
    return Unary(method=INFER, requests=[head + _field(7, image.tobytes()) for image in images])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value == low else bytes([low | 0x80]) + _varint(value >> 7)
