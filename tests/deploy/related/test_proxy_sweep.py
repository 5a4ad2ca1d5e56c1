"""The table over the number of generated images."""

from typing import Any

import pytest

from deploy.related.proxy_sweep import METRICS, sweep


def result(name: str, seed: int, accuracy: float) -> dict[str, Any]:
    return {
        "name": f"{name}-s{seed}",
        "seed": seed,
        "command": f"advsentry-train robustness runs/{name}-s{seed}",
        "recipe": {"attack": {"norm": "linf", "eps": 0.2}},
        "data": {"set": "mnist", "attacked_images": 10},
        "metrics": dict.fromkeys(METRICS, accuracy),
    }


def test_sizes_stand_in_order_with_mean_and_deviation_in_percent() -> None:
    found = sweep(
        [
            *(result("mnist-proxy-pca-10000", seed, accuracy) for seed, accuracy in enumerate((0.5, 0.7))),
            result("mnist-proxy-pca-2000", 0, 0.4),
            result("mnist-proxy-real", 0, 0.25),
            result("mnist-proxy-pixel-10000", 0, 0.1),
        ]
    ).splitlines()
    assert [line.split(" | ")[:2] for line in found[2:]] == [
        ["| 0", "25.0"],
        ["| 2000", "40.0"],
        ["| 10000", "60.0 ± 14.1"],
    ]


def test_without_results_it_says_who_makes_them() -> None:
    with pytest.raises(ValueError, match=r"deploy/related/proxy\.sh makes them"):
        sweep([])
