"""Triton's client, unchanged and in a process of its own, gets what our own gets, bit for bit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.client import Client
from service.detection.engine import Engine
from service.detection.types import Detection
from tests import tiny
from tests.service.running import running

PROGRAM = Path(__file__).parent / "tritonclient_calls.py"
COUNT = 4


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    made = tiny.images(COUNT, seed=6)
    made[1] = tiny.odd_image()
    return made


@pytest.fixture(scope="module")
def known_and_found(
    engine: Engine, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Detection], dict[str, Any]]:
    path = tmp_path_factory.mktemp("triton") / "images.npy"
    np.save(path, images)
    with running(engine, canary_s=100.0, compression=True) as server:
        with Client(server.ports.grpc) as client:
            known = [client.detect(image) for image in images]
        command = [sys.executable, str(PROGRAM), server.ports.grpc, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return known, json.loads(done.stdout)


@pytest.fixture(scope="module")
def known(known_and_found: tuple[list[Detection], dict[str, Any]]) -> dict[str, Any]:
    """What our own client says of all images, as the program writes it."""
    return facts(known_and_found[0])


@pytest.fixture(scope="module")
def found(known_and_found: tuple[list[Detection], dict[str, Any]]) -> dict[str, Any]:
    return known_and_found[1]


def facts(known: list[Detection]) -> dict[str, Any]:
    n = len(known)
    probabilities = [
        float(np.float32(score.probability)).hex()
        for one in known
        for score in sorted(one.classes, key=lambda score: score.index)
    ]
    return {
        "label": [one.top.label for one in known],
        "label shape": [n],
        "probabilities": probabilities,
        "probabilities shape": [n, len(tiny.CLASSES)],
        "adversarial": [one.verdict == "adversarial" for one in known],
        "adversarial shape": [n],
        "combined_p_value": [float(one.p_value).hex() for one in known],
        "combined_p_value shape": [n],
        "p_values": [float(row.p_value).hex() for one in known for row in one.detectors],
        "p_values shape": [n, 2],
        "reasons": [",".join(flag.reason for flag in one.flags) for one in known],
        "reasons shape": [n],
    }


@pytest.mark.parametrize("call", ["infer", "async_infer", "gzip", "priority"])
def test_the_synchronous_client(known: dict[str, Any], found: dict[str, Any], call: str) -> None:
    assert found["sync"][call] == known
    assert any(known["adversarial"])
    assert not all(known["adversarial"])


def test_some_outputs_only(known: dict[str, Any], found: dict[str, Any]) -> None:
    assert found["sync"]["some names"] == ["p_values", "label"]
    assert found["sync"]["some"]["label"] == known["label"][:1]
    assert found["sync"]["some"]["p_values"] == known["p_values"][:2]
    assert found["sync"]["some id"] == "7"


def test_the_client_learns_what_it_may_send(found: dict[str, Any]) -> None:
    said = found["sync"]
    assert said["live"] == [True, True, True]
    assert said["not here"] is False
    assert said["server"]["name"] == "advsentry"
    assert said["server"]["extensions"] == ["model_configuration", "statistics", "schedule_policy", "parameters"]
    assert said["metadata"]["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": ["-1", "8", "8", "1"]}]
    assert said["config"]["input"] == [{"name": "images", "data_type": "TYPE_UINT8", "dims": ["8", "8", "1"]}]
    assert said["config"]["max_batch_size"] == 256
    assert [output["name"] for output in said["config"]["output"]] == [
        output["name"] for output in said["metadata"]["outputs"]
    ]
    assert said["config"]["dynamic_batching"] == {"priority_levels": "2", "default_priority_level": "1"}


def test_the_client_reads_statistics(found: dict[str, Any]) -> None:
    statistics = found["sync"]["statistics"]
    sizes = {int(entry["batch_size"]): int(entry["compute_infer"]["count"]) for entry in statistics["batch_stats"]}
    assert sum(size * count for size, count in sizes.items()) == int(statistics["inference_count"])
    assert sum(sizes.values()) == int(statistics["execution_count"])
    assert int(statistics["inference_stats"]["success"]["count"]) >= COUNT
    assert int(statistics["last_inference"]) > 1.7e12


@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        ("not a file", "INVALID_ARGUMENT", "images[0]: expected PNG, JPEG, WEBP"),
        ("model", "NOT_FOUND", "model 'resnet'"),
        ("version", "NOT_FOUND", "not '9'"),
        ("output", "INVALID_ARGUMENT", "outputs: expected some of label"),
        ("classes", "INVALID_ARGUMENT", "classification are not served"),
        ("rate", "INVALID_ARGUMENT", "target_fpr to be a double, got int64_param 7"),
        ("timeout", "DEADLINE_EXCEEDED", "the deadline "),
        ("client timeout", "DEADLINE_EXCEEDED", ""),
        ("repository", "UNIMPLEMENTED", ""),
        ("shared memory", "UNIMPLEMENTED", ""),
    ],
)
def test_the_client_is_told_what_is_wrong(found: dict[str, Any], call: str, status: str, says: str) -> None:
    code, message = found["sync"]["errors"][call]
    assert code == f"StatusCode.{status}"
    assert says in message


def test_a_stream(known: dict[str, Any], found: dict[str, Any]) -> None:
    stream = found["stream"]
    assert stream["ids"] == [str(number) for number in range(COUNT)]
    assert stream["final"]
    assert [label for one in stream["ones"] for label in one["label"]] == known["label"]
    assert [value for one in stream["ones"] for value in one["p_values"]] == known["p_values"]
    assert stream["failure"].startswith("[request id: bad] INVALID_ARGUMENT: images[0]: ")
    assert stream["all"] == known
    assert stream["status"][0] == "StatusCode.NOT_FOUND"


def test_the_asyncio_client(known: dict[str, Any], found: dict[str, Any]) -> None:
    said = found["aio"]
    assert said["ready"]
    assert said["metadata"] == found["sync"]["metadata"]
    assert said["infer"] == known
    assert [label for one in said["many"] for label in one["label"]] == known["label"]
    first, second, third = said["stream"]
    assert first == third == known
    assert second.startswith("[request id: 1] NOT_FOUND: model 'resnet'")
