"""The scorer is numpy in, numpy out, and says bit by bit what the server says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.client import Client, Options
from service.detection.engine import Engine
from service.detection.types import Detection, Verdict
from service.detection.verdict import RevealMode
from service.errors import BundleError, InvalidRequest, SetupError
from service.scan import scan_here
from service.scoring.chunks import Chunk, Item
from service.scoring.decoding import Columns, Decoder
from service.scoring.scorer import Scorer
from tests.service.running import running
from tests.service.scoring import made

PICTURES = made.pictures(64)


def columns(bundle: Path, contents: list[bytes], first: int = 0) -> Columns:
    items = tuple(Item(path=f"{number}.png", data=content, error=None) for number, content in enumerate(contents))
    return Decoder(str(bundle), "")(Chunk(piece=0, first=first, items=items, total=None, weight=0.0))


def row(scored: Columns, i: int) -> dict[str, Any]:
    return {name: values[i].tolist() if isinstance(values[i], np.ndarray | np.generic) else values[i]
            for name, values in scored.items()}  # fmt: skip


def said(detection: Detection) -> dict[str, Any]:
    """A detection as the columns have it."""
    ordered = sorted(detection.classes, key=lambda one: one.index)
    return {
        "label": detection.top.index,
        "probability": detection.top.probability,
        "probabilities": [one.probability for one in ordered],
        "p_value": detection.p_value,
        "p_values": [one.p_value for one in detection.detectors],
        "is_adversarial": detection.verdict is Verdict.ADVERSARIAL,
        "is_flagged": [one.flagged for one in detection.detectors],
    }


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_every_answer_is_that_of_the_server_bit_by_bit(engine: Engine, bundle_path: Path, batch: int) -> None:
    scorer = Scorer(bundle=str(bundle_path), alpha=0.05, mode=RevealMode.P_VALUES, threads=1)
    with running(engine) as server, Client(server.ports.grpc) as client:
        expected = [said(one) for one in client.detect_stream(PICTURES, Options(alpha=0.05))]  # type: ignore[arg-type]
    found = []
    for start in range(0, 64, batch):
        scored = scorer(columns(bundle_path, PICTURES[start : start + batch]))
        found += [{name: row(scored, i)[name] for name in expected[0]} for i in range(len(scored["label"]))]
    assert found == expected
    assert {one["is_adversarial"] for one in found} == {True, False}


def test_exact_answers_are_those_of_detect(bundle_path: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path, content in zip(paths, PICTURES, strict=False):
        path.write_bytes(content)
    scored = Scorer(bundle=str(bundle_path), alpha=0.03)(columns(bundle_path, PICTURES[:10]))
    for i, (_, detection) in enumerate(scan_here(str(bundle_path), paths, 0.03, RevealMode.SCORES)):
        assert isinstance(detection, Detection)
        assert said(detection).items() <= row(scored, i).items()


def test_what_is_hidden_is_nan(bundle_path: Path) -> None:
    scored = Scorer(bundle=str(bundle_path), mode=RevealMode.DECISION)(columns(bundle_path, PICTURES[:5]))
    for name in ("probability", "probabilities", "p_value", "p_values"):
        assert np.isnan(scored[name]).all()
    assert not scored["is_flagged"].any()
    assert scored["is_adversarial"].tolist() == [True, False, False, False, False]
    assert (scored["label"] >= 0).all()


def test_a_bad_image_has_its_reason_and_its_neighbours_their_answers(bundle_path: Path) -> None:
    scorer = Scorer(bundle=str(bundle_path))
    alone = scorer(columns(bundle_path, [PICTURES[1]]))
    scored = scorer(columns(bundle_path, [b"hello", PICTURES[1], b""]))
    assert scored["reason"].tolist() == ["FORMAT_UNSUPPORTED", "", "EMPTY_IMAGE"]
    assert scored["label"].tolist() == [-1, alone["label"][0], -1]
    np.testing.assert_array_equal(scored["probabilities"][1], alone["probabilities"][0])
    assert np.isnan(scored["p_value"][[0, 2]]).all()
    only_bad = scorer(columns(bundle_path, [b"hello"]))
    assert only_bad["label"].tolist() == [-1]


def test_columns_of_any_machine_pass_through(bundle_path: Path) -> None:
    scored = Scorer(bundle=str(bundle_path))(columns(bundle_path, PICTURES[:3], first=40))
    assert scored["number"].tolist() == [40, 41, 42]
    assert scored["path"].tolist() == ["0.png", "1.png", "2.png"]
    assert "image" not in scored


def test_an_image_on_which_the_graph_fails_is_one_error(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(bundle=str(bundle_path))
    expected = scorer(columns(bundle_path, PICTURES[:4]))
    measure = scorer.engine.measure

    def fails_on_white(images: np.ndarray) -> Any:
        if (images == 255).all(axis=(1, 2, 3)).any():
            raise RuntimeError("bad alloc")
        return measure(images)

    monkeypatch.setattr(scorer.engine, "measure", fails_on_white)
    scored = scorer(columns(bundle_path, PICTURES[:4]))
    assert scored["reason"].tolist() == ["INTERNAL", "", "", ""]
    np.testing.assert_array_equal(scored["p_values"][1:], expected["p_values"][1:])
    assert scored["label"].tolist() == [-1, *expected["label"][1:]]


def test_a_graph_that_fails_altogether_ends_the_run(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(bundle=str(bundle_path))

    def fails(*_: object) -> Any:
        raise RuntimeError("device lost\nand more")

    monkeypatch.setattr(scorer.engine, "measure", fails)
    monkeypatch.setattr(scorer.engine, "check_canaries", fails)
    with pytest.raises(BundleError, match=r"tiny: the graph fails here: device lost$"):
        scorer(columns(bundle_path, PICTURES[:4]))


def test_another_bundle_than_that_of_the_run_is_refused(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="expected calibration abc as where the run began"):
        Scorer(bundle=str(bundle_path), calibration_id="abc")


def test_alpha_is_checked_as_the_server_checks_it(bundle_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="expected one of"):
        Scorer(bundle=str(bundle_path), alpha=0.03, mode=RevealMode.P_VALUES)
    with pytest.raises(InvalidRequest, match="needs 999 calibration images"):
        Scorer(bundle=str(bundle_path), alpha=0.001)
    with pytest.raises(SetupError, match="--threads"):
        Scorer(bundle=str(bundle_path), threads=-1)


def test_a_name_that_is_no_utf_8_can_be_written(bundle_path: Path) -> None:
    item = Item(path="caf\udce9.png", data=PICTURES[0], error=None)
    decoded = Decoder(str(bundle_path), "")(Chunk(piece=0, first=0, items=(item,), total=None, weight=0.0))
    assert decoded["path"].tolist() == ["caf\\udce9.png"]


def test_an_image_is_resized_as_the_server_does(resizing: Engine, resizing_path: Path) -> None:
    large = made.png(np.random.default_rng(0).integers(0, 256, (40, 24, 1), dtype=np.uint8))
    decoded = columns(resizing_path, [large])
    assert resizing.resizer is not None
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 1), dtype=np.uint8)
    np.testing.assert_array_equal(decoded["image"][0], resizing.resizer.run(pixels))
