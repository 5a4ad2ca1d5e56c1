"""R-16: one image, one answer, whichever way it comes and whatever runs beside it."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from PIL import Image

from deploy.reliability.check import Check, Figures
from deploy.reliability.malformed import encoded
from deploy.reliability.process import Serving
from deploy.reliability.rig import Rig, images_of
from protos import detection_pb2 as pb
from protos import inference as oip
from service.detection.types import Bytes8
from service.rpc.convert import SERVICE
from service.rpc.convert_inference import MODEL
from service.rpc.convert_inference import SERVICE as OPEN_SERVICE
from service.rpc.inference_inputs import INPUT
from service.rpc.read_answers import image_message

__all__ = ["CHECKS"]

MOST = 64
OPTIONS = pb.DetectOptions(return_embedding=True, return_raw_scores=True)
"""Everything that a server reveals, so that a difference in the last bit shows."""
FEW = (1, 2, 3, 5, 8, 13, 16, 21, 32, 33, 48, 63, 64)


class _Ways:
    """The calls of one server, each giving serialised Detections in the order of the images."""

    def __init__(self, running: Serving, images: Bytes8) -> None:
        self._running = running
        self._messages = [image_message(image) for image in images]
        self.channel = grpc.insecure_channel(running.target, options=[("grpc.max_receive_message_length", -1)])
        unary, stream = self.channel.unary_unary, self.channel.stream_stream
        self._detect = unary(f"/{SERVICE}/Detect", pb.DetectRequest.SerializeToString, pb.DetectResponse.FromString)
        self._batch = unary(
            f"/{SERVICE}/BatchDetect", pb.BatchDetectRequest.SerializeToString, pb.BatchDetectResponse.FromString
        )
        self._stream = stream(
            f"/{SERVICE}/StreamDetect", pb.StreamDetectRequest.SerializeToString, pb.StreamDetectResponse.FromString
        )
        self._infer = unary(
            f"/{OPEN_SERVICE}/ModelInfer",
            oip.ModelInferRequest.SerializeToString,
            oip.ModelInferResponse.FromString,
        )
        self._images = images
        self.batch_sizes: set[int] = set()
        """As they ran."""

    def alone(self) -> list[bytes]:
        """By Detect, one after the other."""
        requests = [pb.DetectRequest(image=message, options=OPTIONS) for message in self._messages]
        return [_bytes(self._detect(request, timeout=60).detection) for request in requests]

    def batch(self, order: Sequence[int]) -> list[bytes]:
        """By BatchDetect."""
        request = pb.BatchDetectRequest(images=[self._messages[i] for i in order], options=OPTIONS)
        answer = self._batch(request, timeout=60)
        self.batch_sizes.add(answer.meta.batch_size)
        return [_bytes(result.detection) for result in answer.results]

    def stream(self, order: Sequence[int]) -> list[bytes]:
        """By StreamDetect."""
        options = pb.StreamOptions(options=OPTIONS, preserve_order=True)
        requests = (
            pb.StreamDetectRequest(image=self._messages[i], stream_options=options if number == 0 else None)
            for number, i in enumerate(order)
        )
        answers = list(self._stream(requests, timeout=60))
        self.batch_sizes |= {answer.meta.batch_size for answer in answers}
        return [_bytes(answer.result.detection) for answer in answers]

    def infer(self, order: Sequence[int]) -> list[bytes]:
        """By ModelInfer of the Open Inference Protocol: each image's part of every output, one behind the other."""
        images = self._images[order]
        tensor = oip.ModelInferRequest.InferInputTensor(name=INPUT, datatype="UINT8", shape=images.shape)
        request = oip.ModelInferRequest(model_name=MODEL, inputs=[tensor], raw_input_contents=[images.tobytes()])
        answer = self._infer(request, timeout=60)
        rows = [b""] * len(order)
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
            parts = _texts(raw) if output.datatype == "BYTES" else _equal_parts(raw, len(order))
            rows = [row + part for row, part in zip(rows, parts, strict=True)]
        return rows


def _equal_parts(raw: bytes, count: int) -> list[bytes]:
    size = len(raw) // count
    return [raw[i * size : (i + 1) * size] for i in range(count)]


def _texts(raw: bytes) -> list[bytes]:
    """Elements of a BYTES tensor: four bytes of length before each."""
    found = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        found.append(raw[4:end])
        raw = raw[end:]
    return found


def _bytes(detection: pb.Detection) -> bytes:
    return detection.SerializeToString(deterministic=True)


def _orders(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Each size of batch, turned so that each image has each place in it."""
    for size in sizes:
        for shift in range(size):
            yield [(i + shift) % size for i in range(size)]


def one_answer(rig: Rig) -> Figures:
    """R-16."""
    compared = differing = open_differing = 0
    seen: set[int] = set()
    cli_compared = cli_differing = 0
    for bundle in dict.fromkeys((rig.bundle, rig.resizing)):
        whole = bundle == rig.bundle and rig.scaled(test=0, quick=1, full=1)
        sizes = range(1, MOST + 1) if whole or rig.scaled(test=0, quick=0, full=1) else FEW
        images = images_of(bundle, MOST)
        with rig.server(bundle, reveal="scores") as running:
            ways = _Ways(running, images)
            alone, alone_open = ways.alone(), [ways.infer([i])[0] for i in range(MOST)]
            # the same p-value by both protocols: float64, in the same bytes
            p_values = [struct.pack("<d", pb.Detection.FromString(one).combined_p_value) for one in alone]
            open_differing += sum(value not in row for value, row in zip(p_values, alone_open, strict=True))
            orders = list(_orders(sizes))[:: rig.scaled(test=3, quick=1, full=1)]
            some = orders[:: rig.scaled(test=4, quick=16, full=1)]
            for way, known, few in (
                (ways.batch, alone, orders),
                (ways.stream, alone, some),
                (ways.infer, alone_open, some),
            ):
                for order in few:
                    wanted = [known[i] for i in order]
                    answers = way(order)
                    compared += len(order)
                    differing += sum(a != b for a, b in zip(wanted, answers, strict=True))
            seen |= ways.batch_sizes
            ways.channel.close()
            counts = _by_cli(rig, running, bundle, images)
            cli_compared, cli_differing = cli_compared + counts[0], cli_differing + counts[1]
    return {
        "answers_compared": compared,
        "answers_differing": differing,
        "p_values_differing_by_protocol": open_differing,
        "batch_sizes_run": len(seen & set(range(1, MOST + 1))),
        "cli_answers_compared": cli_compared,
        "cli_answers_differing": cli_differing,
    }


def _by_cli(rig: Rig, running: Serving, bundle: Path, images: Bytes8) -> tuple[int, int]:
    """Answers of `advsentry detect` by this server and in its own process: how many, and how many differ."""
    folder = rig.folder / f"images-{bundle.name}"
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        (folder / f"{number:03}.png").write_bytes(encoded(picture, "PNG"))
    command = [sys.executable, "-m", "service", "detect", str(folder), "--json"]
    found = []
    for flags in (["--bundle", str(bundle), "--reveal", "scores"], ["--target", running.target]):
        done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=120, check=True)
        found.append([json.loads(line) for line in done.stdout.splitlines()])
    return len(images), sum(a != b for a, b in zip(*found, strict=True))


CHECKS = (
    Check(
        number="R-16",
        text="images alone by Detect, then in batches of 1 to 64 at each place by BatchDetect, StreamDetect and "
        "ModelInfer, every bit of score, p-value and embedding compared; `advsentry detect` with and without a server",
        asked={
            "answers_differing": "= 0",
            "p_values_differing_by_protocol": "= 0",
            "batch_sizes_run": ">= 13",
            "cli_answers_compared": ">= 64",
            "cli_answers_differing": "= 0",
        },
        run=one_answer,
        is_quick=True,
    ),
)
