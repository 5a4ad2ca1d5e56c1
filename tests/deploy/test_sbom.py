"""deploy/sbom.py: the bill is valid CycloneDX, names every pinned package, and says what the service needs."""

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.validation.json import JsonStrictValidator

from deploy import sbom
from service.detection.bundle import SHIPPED
from service.errors import SetupError

PROJECT = tomllib.loads(sbom.PROJECT.read_text("utf-8"))
CONSTRAINTS = sbom.CONSTRAINTS.read_text("utf-8")
CUDA = sbom.CUDA.read_text("utf-8")
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def text() -> str:
    return sbom.bill(CONSTRAINTS, CUDA, PROJECT, MOMENT)


@pytest.fixture(scope="module")
def components(text: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(text)["components"]}


def extras(component: dict[str, Any]) -> set[str]:
    return {one["value"] for one in component.get("properties", []) if one["name"] == sbom.EXTRA}


def test_it_is_valid(text: str) -> None:
    validator = JsonStrictValidator(sbom.SCHEMA)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"type": "library"', '"type": "book"')) is not None


def test_every_pin_is_a_component(components: dict[str, dict[str, Any]]) -> None:
    pinned = sbom.pins(CONSTRAINTS)
    assert len(pinned) > 50
    assert {name: components[name]["version"] for name in pinned} == pinned


def test_so_is_what_the_gpu_image_has_besides(components: dict[str, dict[str, Any]]) -> None:
    pinned = sbom.pins(CUDA)
    assert "nvidia-cudnn-cu13" in pinned
    assert {name: components[name]["version"] for name in pinned} == pinned
    assert all((components[name]["scope"], extras(components[name])) == ("optional", {"cuda"}) for name in pinned)


def test_what_the_service_needs_is_told_from_what_training_needs(components: dict[str, dict[str, Any]]) -> None:
    required = {name for name, one in components.items() if one.get("scope") == "required"}
    assert {"numpy", "grpcio", "pillow", "protobuf", "prometheus-client"} <= required
    assert not {"torch", "pytest", "foolbox", "cyclonedx-python-lib"} & required
    assert extras(components["torch"]) == {"training", "evaluation", "dev"}
    assert extras(components["pytest"]) == {"dev"}


def test_it_says_what_needs_what(text: str, components: dict[str, dict[str, Any]]) -> None:
    after = {one["ref"]: set(one.get("dependsOn", [])) for one in json.loads(text)["dependencies"]}
    torch, sympy = (components[name]["bom-ref"] for name in ("torch", "sympy"))
    assert sympy in after[torch]
    ours = after[f"advsentry@{PROJECT['project']['version']}"]
    assert components["numpy"]["bom-ref"] in ours
    assert torch not in ours


def test_bundles_that_ship_are_in_it_with_their_graphs(components: dict[str, dict[str, Any]]) -> None:
    for path in SHIPPED.glob("*/manifest.json"):
        manifest = json.loads(path.read_text("utf-8"))
        (digest,) = components[manifest["name"]]["hashes"]
        assert digest == {"alg": "SHA-256", "content": manifest["files"]["model.onnx"]["sha256"]}


def test_licences_are_told(components: dict[str, dict[str, Any]]) -> None:
    assert components["prometheus-client"]["licenses"]
    assert components["scipy"]["licenses"]  # whose field is a text of many lines
    python = [one for name, one in components.items() if "purl" in one and name not in sbom.pins(CUDA)]
    assert sum("licenses" in one for one in python) > 0.9 * len(python)


def test_the_same_input_gives_the_same_bytes(text: str) -> None:
    assert sbom.bill(CONSTRAINTS, CUDA, PROJECT, MOMENT) == text


def test_a_package_without_a_pin_is_named() -> None:
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("flatbuffers")]
    with pytest.raises(SetupError, match="flatbuffers is needed and not pinned"):
        sbom.bill("\n".join(lines), CUDA, PROJECT, MOMENT)


def test_a_line_that_is_no_pin_is_refused() -> None:
    with pytest.raises(SetupError, match="expected NAME==VERSION in each line, got 'numpy>=2'"):
        sbom.pins("six==1.17.0  # a comment\n\nnumpy>=2\n")


def test_the_command_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(MOMENT.timestamp())))
    out = tmp_path / "dist" / "bill.json"
    assert sbom.main(["--out", str(out)]) == 0
    assert json.loads(out.read_text("utf-8"))["metadata"]["timestamp"].startswith("2026-01-01T00:00:00")
