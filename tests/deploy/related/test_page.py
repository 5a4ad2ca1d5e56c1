"""The figures on the pages of the related systems."""

from typing import Any

import pytest

from deploy.related import page

LINES = 60


def seeded(name: str, seed: int, **metrics: float) -> dict[str, Any]:
    return {
        "name": f"{name}-s{seed}",
        "seed": seed,
        "command": f"advsentry-train robustness runs/{name}-s{seed}",
        "recipe": {"attack": {"norm": "linf", "eps": 0.2}},
        "data": {"set": "mnist"},
        "metrics": metrics,
    }


def test_the_committed_pages_are_what_the_script_makes_and_short() -> None:
    pages = page.current_pages()
    assert {path.name for path in pages} == {path.name for path in page.PAGES.glob("*.md")}
    for path, text in pages.items():
        assert path.read_text("utf-8") == text, path.name
        assert len(text.splitlines()) <= LINES, path.name
        assert "|---" in text.partition("<!-- made by")[2], f"{path.name} has no figures"


def test_rows_are_means_over_seeds_with_their_deviation() -> None:
    names = ("clean_accuracy", "norms_linf_accuracy", "norms_l2_accuracy", "norms_l1_accuracy")
    made = [
        seeded("mnist-norms-learned", seed, **dict.fromkeys(names, 0.5), worst_over_norms_accuracy=value)
        for seed, value in enumerate((0.1, 0.2, 0.3))
    ]
    lines = page.tables(made)["min-max"]["norms"].splitlines()
    assert lines[2:] == ["| learned weights | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 20.0 ± 10.0 | 3 |"]
    lines = page.tables(made[:1])["min-max"]["norms"].splitlines()
    assert lines[2:] == ["| learned weights | 50.0 | 50.0 | 50.0 | 50.0 | 10.0 | 1 |"]


def test_generated_sets_stand_beside_their_arc() -> None:
    accuracies = {"clean_accuracy": 0.9, "pgd_100_accuracy": 0.8, "worst_accuracy": 0.7}
    arcs = [
        {"name": f"mnist-proxy-arc-gaussian-{seed}", "seed": seed, "metrics": {"pca-gaussian/arc": arc, "real/arc": 0}}
        for seed, arc in enumerate((0.02, 0.04))
    ]
    made = [seeded(f"mnist-proxy-{name}", 0, **accuracies) for name in ("real", "pca-10000", "pca-2000")]
    rows = [line.split(" | ") for line in page.tables([*made, *arcs])["proxy"]["proxy"].splitlines()[2:]]
    assert [row[-1] for row in rows] == ["0.000 |", " |", "0.030 |"]
    assert rows[1][0] == "| 2,000 of `pca-gaussian`"


def test_networks_of_deep_pursuit_that_were_not_measured_have_no_row() -> None:
    figures = ("clean_accuracy", "pgd_at_0.5_accuracy", "pgd_100_accuracy", "worst_accuracy")
    metrics = {f"mnist-pursuit-skips-t5/{name}": 0.25 for name in figures}
    metrics |= {"mnist-pursuit-skips-t5/seeds": 3, "mnist-pursuit-skips-t5/masking_signs": 2}
    metrics["mnist-pursuit-skips-t5/worst_accuracy_spread"] = 0.01
    lines = page.tables([{"name": "mnist-pursuit", "seed": 0, "metrics": metrics}])["deep-pursuit"]["pursuit"]
    assert lines.splitlines()[2:] == ["| T = 5 | 25.0 | 25.0 | 25.0 | 25.0 ± 1.0 | 2 | 3 |"]


@pytest.mark.parametrize("name", ["deep-pursuit", "proxy", "metric_learning", "min-max", "localized"])
def test_without_results_there_are_no_tables(name: str) -> None:
    assert page.tables([])[name] == {}
