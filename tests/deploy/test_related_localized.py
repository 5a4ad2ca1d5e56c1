"""Figures of localized training over seeds, by hand from made-up measurements."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy import results
from deploy.related.localized import SETS, collected, main


def write(folder: Path, name: str, metrics: dict[str, float], **changes: Any) -> None:
    result: dict[str, Any] = {
        "name": name,
        "command": f"advsentry-train robustness runs/{name} --out {name}.json --images 1000 --mask pixels --seed 0",
        "seconds": 10.0,
        "data": {"set": "mnist", "masks": "PixelMasks(level=0.1, dilate=0)"},
        "metrics": {"training_seconds": 5.0, **metrics},
    }
    (folder / f"{name}.json").write_text(json.dumps({**result, **changes}), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clean = {"natural": (0.99, 0.98, 0.97), "global": (0.95,) * 3, "localized": (0.98, 0.98, 0.98), "once": (0.97,) * 3}
    attacked = {
        "natural": (0.19, 0.18, 0.17),
        "global": (0.9,) * 3,
        "localized": (0.83, 0.90, 0.97),
        "once": (0.5,) * 3,
    }
    for method in SETS["mnist"][0]:
        for seed in range(3):
            metrics = {"clean_accuracy": clean[method][seed], "background_pgd_accuracy": attacked[method][seed]}
            write(tmp_path, f"mnist-{method}-s{seed}", metrics)
    return tmp_path


def test_what_is_recovered_by_hand(folder: Path) -> None:
    _, figures = collected("mnist", folder)
    assert figures["taken_by_background_pgd"] == pytest.approx(0.8)
    assert figures["recovered"] == pytest.approx((0.64 + 0.72 + 0.80) / 3 / 0.8)
    assert figures["recovered_least_seed"] == pytest.approx(0.8)
    assert figures["clean_change"] == pytest.approx(0.0)
    assert figures["clean_change_least_seed"] == pytest.approx(-0.01)
    assert figures["clean_change_global"] == pytest.approx(-0.03)
    assert figures["mnist-localized-s2/background_pgd_accuracy"] == 0.97


def test_part_is_held_against_plain_training_by_hand(tmp_path: Path) -> None:
    for seed in range(3):
        same = {"pgd_20_accuracy": 0.5, "pgd_100_accuracy": 0.4, "worst_accuracy": 0.3}
        write(tmp_path, f"gtsrb-global-s{seed}", {"clean_accuracy": 0.8, **same})
        write(tmp_path, f"gtsrb-part-s{seed}", {"clean_accuracy": 0.8 + 0.01 * seed, **same, "worst_accuracy": 0.2})
    _, figures = collected("gtsrb", tmp_path)
    assert figures["part_minus_global_clean_accuracy"] == pytest.approx(0.01)
    assert figures["part_minus_global_worst_accuracy"] == pytest.approx(-0.1)


def test_the_result_is_one_that_the_page_shows(folder: Path) -> None:
    out = folder / "mnist-localized.json"
    assert main(["mnist", str(folder), "--result", str(out)]) == 0
    result = json.loads(out.read_text("utf-8"))
    assert tuple(result) == results.FIELDS
    assert result["seconds"] == 12 * 15.0
    text = results.page([result], {"mnist-localized": {"recovered": ">= 0.8", "clean_change": ">= -0.003"}})
    assert "| recovered | >= 0.8 | 0.9 | yes |" in text
    assert "| mnist-natural-s0 |" in text


def test_what_cannot_be_quoted_is_refused(folder: Path) -> None:
    good = json.loads((folder / "mnist-once-s1.json").read_text("utf-8"))
    write(folder, "mnist-once-s1", good["metrics"], data={"quick": True})
    with pytest.raises(SystemExit, match=r"mnist-once-s1\.json: measured with --quick"):
        collected("mnist", folder)
    write(folder, "mnist-once-s1", good["metrics"], command="advsentry-train robustness x --images 10 --seed 0")
    with pytest.raises(SystemExit, match="expected runs that were measured alike, got --images 10"):
        collected("mnist", folder)
    (folder / "mnist-once-s1.json").unlink()
    with pytest.raises(SystemExit, match=r"mnist-once-s1\.json: expected a measurement"):
        collected("mnist", folder)


def test_nothing_taken_is_nothing_to_recover(folder: Path) -> None:
    write(folder, "mnist-natural-s0", {"clean_accuracy": 0.9, "background_pgd_accuracy": 0.9})
    with pytest.raises(ValueError, match="expected the attack on the background to take accuracy, got 0"):
        collected("mnist", folder)
