"""A loader refuses whatever is in doubt, and says which file and why."""

import base64
import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.detection.bundle import SHIPPED, file_entries, find_bundle, load_bundle, write_bundle
from service.detection.calibration import Calibration
from service.detection.engine import Engine
from service.detection.manifest import Canary, InputShape
from service.detection.types import Verdict
from service.errors import BundleError
from service.history.types import Float64s
from tests import tiny
from tests.service.bad_images import encoded
from training.resizing import resize_bytes


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copied"))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def set_field(name: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, name: value}))

    return change


def drop_field(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["class_names"]
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: flip_a_byte(path / "model.onnx"), "copied/model.onnx: changed since it was exported"),
        (lambda path: flip_a_byte(path / "calibration.npz"), "copied/calibration.npz: changed"),
        (lambda path: (path / "report.json").write_text("{}  "), "report.json: expected 3 bytes, got"),
        (lambda path: (path / "report.json").unlink(), "copied/report.json: missing"),
        (lambda path: (path / "manifest.json").unlink(), "copied/manifest.json: missing"),
        (lambda path: (path / "notes.txt").write_text("x"), "notes.txt: unexpected file"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json: no JSON"),
        (lambda path: (path / "manifest.json").write_text("[]"), "expected an object, got list"),
        (lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe"), "manifest.json: no JSON"),
        (set_field("format_version", 2), "expected format version 1, got 2"),
        (set_field("surprise", 1), "unknown field surprise"),
        (set_field("default_alpha", "0.01"), "default_alpha: expected a number, got '0.01'"),
        (set_field("class_names", "abc"), "class_names: expected a list"),
        (set_field("files", {}), "expected the files"),
        (drop_field, "class_names is missing"),
    ],
    ids=[
        "graph changed",
        "calibration changed",
        "longer",
        "missing",
        "no manifest",
        "extra",
        "no json",
        "list",
        "no text",
        "version",
        "unknown field",
        "type",
        "no list",
        "no files",
        "field gone",
    ],
)
def test_a_damaged_bundle_is_refused(copy: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(copy)
    with pytest.raises(BundleError, match=says):
        load_bundle(copy)


def write(path: Path, files: dict[str, bytes], **changes: object) -> Path:
    write_bundle(path, tiny.manifest(files, **changes), files)
    return path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no zip", "calibration.npz:"),
        (b"", "calibration.npz:"),
        (np.arange(3).tobytes(), "calibration.npz:"),
        (
            Calibration(detector_scores=np.zeros((3, 9), np.float32), fused_scores=np.zeros(9, np.float32)).to_bytes(),
            "expected 2 detectors as in the manifest, got 3",
        ),
    ],
    ids=["text", "empty", "bytes", "detectors"],
)
def test_a_calibration_that_does_not_fit_is_never_written(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        write(tmp_path / "made", {**tiny.files(n=30), "calibration.npz": content})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("graph", "changes", "says"),
    [
        (b"no graph", {}, "onnxruntime cannot load it"),
        (tiny.graph(channels=3), {}, "inputs differ from the manifest"),
        (tiny.graph(), {"input": InputShape(height=9, width=8, channels=1)}, "inputs differ"),
        (tiny.graph(), {"embedding_dim": 5}, "outputs differ from the manifest"),
        (tiny.graph(), {"class_names": ("a", "b")}, "outputs differ from the manifest"),
    ],
    ids=["no graph", "channels", "height", "embedding", "classes"],
)
def test_a_graph_that_is_not_the_manifests_does_not_start(
    tmp_path: Path, graph: bytes, changes: dict[str, object], says: str
) -> None:
    path = write(tmp_path / "made", {**tiny.files(n=30), "model.onnx": graph}, default_alpha=0.05, **changes)
    with pytest.raises(BundleError, match=says):
        Engine.load(path, threads=1)


def test_a_default_alpha_that_the_calibration_cannot_support_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "made", tiny.files(n=30), default_alpha=0.01)
    with pytest.raises(BundleError, match=r"default_alpha: .* needs 99 calibration images"):
        Engine.load(path, threads=1)


def test_a_wrong_canary_does_not_start(tmp_path: Path) -> None:
    png = base64.b64encode(encoded(Image.fromarray(tiny.images(1)[0, :, :, 0]), "PNG")).decode()
    canary = Canary(png=png, label=3, verdict=Verdict.ADVERSARIAL)
    path = write(tmp_path / "made", tiny.files(n=299), canaries=(canary,))
    with pytest.raises(BundleError, match="canary 0 should be class 3 and adversarial, got class"):
        Engine.load(path, threads=1)


@pytest.mark.parametrize("png", ["iVBORw0KGg", "äh", "", base64.b64encode(b"no image").decode()])
def test_a_damaged_canary_is_the_bundles_fault(tmp_path: Path, png: str) -> None:
    canary = Canary(png=png, label=3, verdict=Verdict.CLEAN)
    path = write(tmp_path / "made", tiny.files(n=299), canaries=(canary,))
    with pytest.raises(BundleError, match=r"made/manifest.json: canaries\[0\].png: no image: .*export"):
        Engine.load(path, threads=1)


def test_a_manifest_of_a_thousand_brackets_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "made", tiny.files(n=299))
    (path / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(BundleError, match="no JSON"):
        load_bundle(path)


def test_a_folder_that_cannot_be_listed_is_refused(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(BundleError, match="cannot be read: Permission denied"):
        load_bundle(bundle_path)


def test_a_bundle_is_found_by_its_directory_only_if_there_is_one(bundle_path: Path) -> None:
    assert find_bundle(str(bundle_path)) == bundle_path


def test_a_folder_of_images_does_not_hide_the_shipped_bundle_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert find_bundle("digits") == SHIPPED / "digits"
    tiny.write(tmp_path / "digits" / "x").rename(tmp_path / "mine")
    (tmp_path / "digits").rmdir()
    (tmp_path / "mine").rename(tmp_path / "digits")
    assert find_bundle("digits") == Path("digits")
    with pytest.raises(BundleError, match="no/such: no such bundle directory; shipped bundles:"):
        find_bundle("no/such")


def test_a_written_bundle_loads_to_the_same_bytes(tmp_path: Path) -> None:
    files = tiny.files(n=30)
    loaded = load_bundle(write(tmp_path / "made", files))
    assert loaded.graph == files["model.onnx"]
    assert loaded.manifest == dataclasses.replace(tiny.manifest(files), files=file_entries(files))


def test_what_stands_there_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    files = tiny.files(n=30)
    path = write(tmp_path / "made", files)
    with pytest.raises(BundleError, match="exists already; choose another --out"):
        write(path, files)
    changed = {**files, "model_card.md": b"# other\n"}
    write_bundle(path, tiny.manifest(changed), changed, replace=True)
    assert (path / "model_card.md").read_bytes() == b"# other\n"
    (tmp_path / "mine").mkdir()
    with pytest.raises(BundleError, match="it is no bundle"):
        write_bundle(tmp_path / "mine", tiny.manifest(files), files, replace=True)


@pytest.fixture
def resizing_copy(resizing_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(resizing_path, tmp_path / "copied"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: flip_a_byte(path / "resize.onnx"), "copied/resize.onnx: changed since it was exported"),
        (lambda path: (path / "resize.onnx").unlink(), "copied/resize.onnx: missing"),
    ],
    ids=["changed", "missing"],
)
def test_a_damaged_resizer_is_refused(resizing_copy: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(resizing_copy)
    with pytest.raises(BundleError, match=says):
        load_bundle(resizing_copy)


def test_a_resizer_that_the_manifest_does_not_list_is_refused(copy: Path, resizing_path: Path) -> None:
    shutil.copy(resizing_path / "resize.onnx", copy)
    with pytest.raises(
        BundleError, match=r"copied/resize.onnx: unexpected file; this bundle holds manifest.json, model"
    ):
        load_bundle(copy)


def test_a_bundle_may_hold_a_calibration_of_the_query_history(tmp_path: Path, bundle_path: Path) -> None:
    path = write(tmp_path / "made", {**tiny.files(), "history.npz": tiny.history().to_bytes()})
    loaded, without = load_bundle(path), load_bundle(bundle_path)
    assert without.history is None
    assert loaded.history is not None
    assert loaded.history.streams == 3
    assert loaded.history.to_bytes() == tiny.history().to_bytes()
    assert loaded.calibration_id == without.calibration_id, "p-values of images do not depend on it"
    flip_a_byte(path / "history.npz")
    with pytest.raises(BundleError, match=r"made/history.npz: changed since it was exported"):
        load_bundle(path)
    (path / "history.npz").unlink()
    with pytest.raises(BundleError, match=r"made/history.npz: missing"):
        load_bundle(path)


def changed(rates: Mapping[str, Any] | None = None, statistics: Float64s | None = None, **edges: float) -> bytes:
    """A calibration of the history that no benign traffic gives."""
    made = tiny.history(**edges)
    made = dataclasses.replace(made, rates=dataclasses.replace(made.rates, **(rates or {})))
    return (made if statistics is None else dataclasses.replace(made, statistics=statistics)).to_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no zip", "expected a calibration of the history"),
        (b"PK\x03\x04 and no more", "expected a calibration of the history"),
        (tiny.history().to_bytes()[:200], "expected a calibration of the history"),
        (changed(dimension=5.0), r"edges.dimension: expected a number above 0 and at most 4, .* got 5.0"),
        (changed(alpha=0.05), "edges.alpha: expected the manifest's default_alpha, 0.01, got 0.05"),
        (changed(radius=math.nan), "edges.radius: expected a finite number of 0 or more, got nan"),
        (changed(rates={"label_flips": (0.1,)}), "rates.label_flips: expected at most 0 of them, got 1"),
        (changed(rates={"joins": 9, "matches": (5, 4)}), "rates.matches: expected numbers in rising order"),
        (changed(statistics=np.array([-1.0, 2.0])), "statistics: expected numbers of 0 or more, got -1"),
    ],
    ids=["text", "zip", "cut", "dimension", "alpha", "nan", "rates", "order", "negative"],
)
def test_a_history_that_cannot_be_of_the_graph_is_never_written(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=rf"history.npz: .*{says}.*`advsentry-train history`"):
        write(tmp_path / "made", {**tiny.files(), "history.npz": content})
    assert list(tmp_path.iterdir()) == []


def test_a_resizer_of_another_size_does_not_start(tmp_path: Path) -> None:
    other = resize_bytes(InputShape(height=8, width=9, channels=1))
    path = write(tmp_path / "made", {**tiny.files(), "resize.onnx": other})
    with pytest.raises(BundleError, match=r"resize.onnx: output differs from the manifest: expected"):
        Engine.load(path, threads=1)


def test_p_values_with_a_resizer_are_comparable_only_with_those_with_it(bundle_path: Path, resizing_path: Path) -> None:
    without, with_it = load_bundle(bundle_path), load_bundle(resizing_path)
    assert with_it.graph == without.graph
    assert with_it.calibration_id != without.calibration_id


def test_equal_calibration_ids_mean_equal_calibration(tmp_path: Path) -> None:
    ids = {load_bundle(write(tmp_path / str(n), tiny.files(n=n))).calibration_id for n in (30, 31)}
    assert len(ids) == 2
