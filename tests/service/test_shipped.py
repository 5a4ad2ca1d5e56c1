"""The bundles that ship with the package."""

import json
from pathlib import Path

import pytest
from PIL import Image

from service.__main__ import main
from service.detection.bundle import SHIPPED, find_bundle, load_bundle
from service.detection.engine import Engine
from service.settings import Settings

RESULTS = Path(__file__).parent.parent.parent / "docs" / "results"
BUNDLES = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


def test_the_default_bundle_ships() -> None:
    assert Settings().bundle in BUNDLES


@pytest.mark.parametrize("name", BUNDLES)
def test_each_starts_answers_its_canaries_and_has_been_evaluated(name: str) -> None:
    path = find_bundle(name)
    engine = Engine.load(path, threads=1)  # refuses a canary that is answered wrongly
    assert len(engine.bundle.manifest.canaries) == 2
    assert "pgd_auroc" in engine.bundle.manifest.metrics
    assert "**It breaks:**" in (path / "model_card.md").read_text(encoding="utf-8")
    assert sum(file.stat().st_size for file in path.iterdir()) < 12e6


@pytest.mark.parametrize("name", BUNDLES)
def test_each_has_a_query_history_that_is_checked(name: str) -> None:
    history = load_bundle(find_bundle(name)).history
    assert history is not None
    checked = json.loads((RESULTS / f"history-benign-{name}.json").read_text(encoding="utf-8"))
    history.check_level(checked["recipe"]["level"])
    assert checked["metrics"]["streams_ranked"] == history.streams
    assert (find_bundle(name) / "history.npz").stat().st_size < 200_000


@pytest.mark.parametrize("name", BUNDLES)
def test_the_figures_that_ship_are_those_of_the_results(name: str) -> None:
    measured = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    shipped = Engine.load(find_bundle(name), threads=1).bundle.manifest
    assert dict(shipped.metrics).items() <= measured["metrics"].items()
    assert shipped.training == measured["recipe"]


@pytest.mark.parametrize("name", BUNDLES)
def test_each_judges_an_image_of_another_size_or_says_that_it_cannot(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = Engine.load(find_bundle(name), threads=1).bundle.manifest.input
    size = (shape.width + 9, shape.height + 20)
    image = tmp_path / "photo.png"
    Image.new("RGB" if shape.channels == 3 else "L", size, 128).save(image)
    status = main(["detect", "--bundle", name, str(image), "--json"])
    said = capsys.readouterr()
    if (find_bundle(name) / "resize.onnx").exists():
        assert status == 0
        assert json.loads(said.out)["top"]["label"]
    else:
        assert status == 1
        assert json.loads(said.out)["reason"] == "WRONG_SIZE"
