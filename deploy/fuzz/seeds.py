"""Where fuzzing starts: good and malformed requests of every kind, made anew each time."""

from typing import Any

import numpy as np
from PIL import Image

from deploy.reliability.malformed import encoded, malformed, text_chunks
from protos import detection_pb2 as pb
from protos import inference as oip
from service.detection.manifest import InputShape
from service.rpc.convert_inference import MODEL
from service.rpc.inference_inputs import INPUT
from service.rpc.read_answers import image_message

__all__ = ["seeds"]

SHAPE = InputShape(height=8, width=8, channels=1)
COUNT = 28
"""Malformed images: two of each kind."""


def seeds() -> dict[str, list[bytes]]:
    """Inputs by target."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    files = [
        encoded(Image.fromarray(pixels[:, :, 0]), "PNG"),
        encoded(Image.fromarray(pixels[:, :, 0]), "JPEG"),
        encoded(Image.fromarray(np.repeat(pixels, 3, axis=2)), "WEBP"),
        text_chunks(SHAPE, 2),
    ]
    images = [image_message(pixels), *(image_message(file) for file in files)]
    images += [image for _, image in malformed(SHAPE, COUNT)]
    options = pb.DetectOptions(model_version="1", target_fpr=0.01, top_k=3, priority=1)
    detect = [pb.DetectRequest(request_id="id", image=image, options=options).SerializeToString() for image in images]
    wrong = (
        pb.DetectOptions(target_fpr=float("nan")),
        pb.DetectOptions(detectors=["none"]),
        pb.DetectOptions(return_embedding=True),
    )
    detect += [pb.DetectRequest(image=images[0], options=one).SerializeToString() for one in wrong]
    return {
        "detect": detect,
        "batch": [pb.BatchDetectRequest(images=images[i : i + 3]).SerializeToString() for i in range(0, COUNT, 3)],
        "stream": [
            pb.StreamDetectRequest(
                item_id="1", image=image, stream_options=pb.StreamOptions(options=options, preserve_order=True)
            ).SerializeToString()
            for image in images[:8]
        ],
        "infer": _infer(pixels, files),
        "facts": [b"\0", b"\1" + oip.ModelMetadataRequest(name=MODEL, version="1").SerializeToString(), b"\2"],
        "image": [*files, *(image.encoded.data for image in images if image.encoded.data)],
        "tensor": [_size(8, 8, 1) + pixels.tobytes(), _size(2, 3, 3) + bytes(18), _size(2**32 - 1, 1, 1)],
    }


def _size(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def _infer(pixels: np.ndarray, files: list[bytes]) -> list[bytes]:
    def request(datatype: str, shape: list[int], raw: bytes = b"", **contents: Any) -> bytes:
        tensor = oip.ModelInferRequest.InferInputTensor(name=INPUT, datatype=datatype, shape=shape)
        if contents:
            tensor.contents.CopyFrom(oip.InferTensorContents(**contents))
        message = oip.ModelInferRequest(
            model_name=MODEL, id="1", inputs=[tensor], raw_input_contents=[raw] if raw else []
        )
        message.parameters["target_fpr"].double_param = 0.01
        message.parameters["timeout"].int64_param = 10**6
        message.outputs.add(name="label")
        return bytes(message.SerializeToString())

    lengths = [len(file).to_bytes(4, "little") + file for file in files]
    return [
        request("UINT8", [1, 8, 8, 1], pixels.tobytes()),
        request("UINT8", [2, 8, 8, 1], pixels.tobytes() * 2),
        request("UINT8", [1, 8, 8, 1], uint_contents=pixels.ravel().tolist()),
        request("BYTES", [len(files)], b"".join(lengths)),
        request("BYTES", [len(files)], bytes_contents=files),
    ]
