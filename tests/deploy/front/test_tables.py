"""Tables that people read first say what results say, the bad news too."""

from typing import Any

import pytest

from deploy.front.sweeps import ALPHA, LARGEST, Sweep, shipped_sweeps
from deploy.front.tables import between, front_table
from deploy.results import load
from service.detection.bundle import SHIPPED
from tests.deploy.test_results import RESULT
from training.evaluation.bootstrap import Estimate
from training.evaluation.records import SweepAt, SweepPoint


def estimate(value: float) -> Estimate:
    return Estimate(value=value, interval=None, n=50)


def sweep(name: str, *, left: float = 0.25, misread_within: float | None = 20 / 255) -> Sweep:
    row = SweepAt(alpha=ALPHA, robust_accuracy=estimate(left), strict=estimate(left))
    point = SweepPoint(
        share=LARGEST, norm="linf", eps=8 / 255, accuracy=estimate(0.1), alone=estimate(0.1), rejection=(row,)
    )
    return Sweep(bundle=name, norm="linf", eps=4 / 255, points=(point,), misread_within=misread_within)


def evaluation(name: str) -> dict[str, Any]:
    metrics = {"pgd_accuracy": 0.5, "mean_auroc": 0.75, "adaptive_worst_linf_accuracy": 0.4, "clean_accuracy": 0.875}
    return {**RESULT, "name": name, "metrics": metrics, "data": {"test_images": 60, "attacked_images": 50}}


def test_each_bundle_tells_where_it_breaks() -> None:
    table = front_table([evaluation("b"), RESULT, evaluation("a")], [sweep("a"), sweep("b", misread_within=0.4)])
    assert "| | a | b |" in table
    assert "| largest change that it was trained and measured for | L∞ 4/255 | L∞ 4/255 |" in table
    assert "| clean accuracy | 0.875 | 0.875 |" in table
    assert "| the same within twice that change | 0.25 | 0.25 |" in table
    assert "| more than 90 % are misread within | 20/255 | 0.4 |" in table
    assert "* a: 60 clean test images, 50 attacked, 50 of them within twice; commit abc" in table


def test_a_bundle_that_no_attack_broke_is_said_to_be_one() -> None:
    table = front_table([evaluation("a")], [sweep("a", misread_within=None)])
    assert "| more than 90 % are misread within | none does |" in table


def test_a_result_without_its_sweep_is_an_error() -> None:
    with pytest.raises(ValueError, match="no report with growing changes of b"):
        front_table([evaluation("a"), evaluation("b")], [sweep("a")])


def test_a_page_without_its_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected BEGIN and END around the table"):
        between("END BEGIN", "BEGIN", "END", "")


def test_every_shipped_bundle_has_its_sweep_and_its_result() -> None:
    names = {path.name for path in SHIPPED.iterdir() if path.is_dir()}
    found = {one.bundle: one for one in shipped_sweeps()}
    assert found.keys() == names
    metrics = {result["name"]: result["metrics"] for result in load()}
    for name, one in found.items():
        of_all = [value for key, value in metrics[name].items() if key.endswith("_breaks_at")]
        assert one.misread_within in of_all, name
