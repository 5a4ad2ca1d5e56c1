"""A bundle small enough to make in a test: linear classifier, two detectors, 8 x 8 grey (or RGB) images.

Class c looks at quadrant c of the image; score `brightness` is the mean pixel, score `contrast` the mean of squares.
"""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.detection.bundle import file_entries, write_bundle
from service.detection.calibration import Calibration
from service.detection.engine import Engine
from service.detection.graph import Graph, GraphShape
from service.detection.manifest import FORMAT_VERSION, DetectorEntry, InputShape, Manifest, ThreatModel
from service.detection.types import FlagReason
from service.history.calibration import Calibration as HistoryCalibration
from service.history.evidence import Edges, Rates
from training.resizing import resize_bytes

SIDE = 8
CLASSES = ("north-west", "north-east", "south-west", "south-east")


def images(count: int, *, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Clean images: dark noise with one bright quadrant."""
    generator = np.random.default_rng(seed)
    made = generator.integers(0, 60, (count, SIDE, SIDE, channels))
    for i, quadrant in enumerate(generator.integers(0, 4, count)):
        row, column = divmod(int(quadrant), 2)
        made[i, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 120
    return made.astype(np.uint8)


def odd_image(channels: int = 1) -> np.ndarray:
    """An image that both detectors find suspicious: all white."""
    return np.full((SIDE, SIDE, channels), 255, np.uint8)


def graph(channels: int = 1) -> bytes:
    quadrants = np.zeros((2, 2, SIDE, SIDE, channels), np.float32)
    for row in range(2):
        for column in range(2):
            quadrants[row, column, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 1 / (16 * channels)
    weights = quadrants.reshape(4, -1).T * 20  # (H W C, 4)
    constants = {
        "scale": np.array(255, np.float32),
        "weights": weights.astype(np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["unit"]),
        helper.make_node("Flatten", ["unit"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("LpNormalization", ["logits"], ["embedding"], axis=1, p=2),
        helper.make_node("ReduceMean", ["flat", "axes"], ["brightness"], keepdims=1),
        helper.make_node("Mul", ["flat", "flat"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "axes"], ["contrast"], keepdims=1),
        helper.make_node("Concat", ["brightness", "contrast"], ["scores"], axis=1),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, channels])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
            for name, width in (("logits", 4), ("embedding", 4), ("scores", 2))
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def manifest(files: dict[str, bytes], *, channels: int = 1, **changes: object) -> Manifest:
    fields: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "name": "tiny",
        "version": "1",
        "input": InputShape(height=SIDE, width=SIDE, channels=channels),
        "class_names": CLASSES,
        "embedding_dim": 4,
        "detectors": (
            DetectorEntry(
                name="brightness",
                kind="mean",
                meaning="the image is brighter",
                reason=FlagReason.OUT_OF_DISTRIBUTION,
            ),
            DetectorEntry(
                name="contrast", kind="square", meaning="the contrast is higher", reason=FlagReason.INPUT_SPECTRUM
            ),
        ),
        "default_alpha": 0.01,
        "threat_model": ThreatModel(norm="linf", eps=0.1),
        "files": file_entries(files),
        "canaries": (),
        "training": {},
        "code_version": "test",
        "metrics": {},
        "metrics_command": "",
    }
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


def history(alpha: float = 0.01, streams: int = 3, **edges: float) -> HistoryCalibration:
    """A calibration of the query history that fits the bundle; `edges` are fields of its `Edges`."""
    usual = {field.name: 0.1 for field in dataclasses.fields(Edges)}
    made = Edges(**{**usual, "matches": 9, "entries": 300, "dimension": 3.0, "alpha": alpha, **edges})  # type: ignore[arg-type]
    return HistoryCalibration.ranked(made, Rates.of([]), [[0.0, 2.0]] * streams)


def files(*, channels: int = 1, n: int = 299, resizes: bool = False) -> dict[str, bytes]:
    model = graph(channels)
    shape = GraphShape(height=SIDE, width=SIDE, channels=channels, classes=4, embedding=4, detectors=2)
    run = Graph(model, shape, threads=1).run
    first, second = run(images(n, seed=1, channels=channels)), run(images(n, seed=2, channels=channels))
    calibration = Calibration.from_clean(first.scores, second.scores)
    resizer = resize_bytes(InputShape(height=SIDE, width=SIDE, channels=channels))
    return {
        "model.onnx": model,
        "calibration.npz": calibration.to_bytes(),
        "report.json": b"{}\n",
        "model_card.md": b"# tiny\n",
        **({"resize.onnx": resizer} if resizes else {}),
    }


def write(path: Path, *, channels: int = 1, n: int = 299, resizes: bool = False) -> Path:
    """Writes the tiny bundle to `path`."""
    content = files(channels=channels, n=n, resizes=resizes)
    write_bundle(path, manifest(content, channels=channels), content)
    return path


def engine(path: Path) -> Engine:
    return Engine.load(path, threads=1)
