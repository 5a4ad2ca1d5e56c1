"""Methods and networks together: each pair trains another network than either alone, or is refused; and all in one."""

from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.detection.engine import Engine
from service.errors import SetupError
from tests.training.test_methods import recipe
from training.checkpoint import load_parts, load_run
from training.config import Recipe, load_recipe
from training.evaluation.twin import torch_twin
from training.export import export
from training.fit import fit
from training.generators import Learning
from training.graph import torch_outputs
from training.loop import Loop
from training.method_names import method_names
from training.parity import compare_outputs
from training.precision import deterministic
from training.proxy.generating import generate

Sections = dict[str, dict[str, Any]]
CPU = torch.device("cpu")
SMALL: Sections = {"data": {"train": 60, "selection": 20}, "train": {"epochs": 1, "batch_size": 20}}
PURSUIT = {"name": "pursuit", "depth": 1, "sweeps": 1, "inference": "deep"}
METHODS: dict[str, Sections] = {
    "tla": {"tla": {"weight": 0.5, "pool": 16}},
    "sar": {"sar": {"weight": 0.06}},
    "pairing": {"pairing": {"weight": 0.2}},
    "trades": {"trades": {"weight": 6.0}},
    "awp": {"awp": {"weight": 0.01}},
    "averaging": {"averaging": {"kind": "ema"}},
    "pursuit": {"model": PURSUIT},
    "metric": {"metric": {"weight": 1.0, "steps": 1}},
    "metric-alone": {"metric": {"weight": 1.0, "steps": 1, "classification_weight": 0.0}, "attack": {"name": "none"}},
    "minmax": {"minmax": {"combine": "learned", "norms": ["linf", "l2"], "eps": [0.1, 0.8]}},
    "msd": {"minmax": {"combine": "msd", "norms": ["linf", "l2"], "eps": [0.1, 0.8]}},
    "localized": {"localized": {"region": "background", "mask": "saliency"}},
    "part": {"localized": {"region": "foreground", "mask": "cam", "elsewhere_eps": 0.08, "clean_ratio": 0.0}},
    "proxy": {"proxy": {"set": "the fit part stands for it", "gamma": 0.4}},
}
NOT_ATTACKED = r'{}\.weight: expected 0 with attack\.name = "none"'
NO_MAPS = r"localized\.mask: expected a network whose embedding follows from its last feature maps, got Pursuit"
NORMS = r'localized\.region: expected "none" with minmax\.combine'
UNATTACKED_PART = r"attack\.name: expected pgd or fgsm, which localized\.region confines, got 'none'"
REFUSED = {  # anything else goes together
    ("sar", "metric-alone"): NOT_ATTACKED.format("sar"),
    ("pairing", "metric-alone"): NOT_ATTACKED.format("pairing"),
    ("trades", "metric-alone"): NOT_ATTACKED.format("trades"),
    ("awp", "metric-alone"): r"awp\.weight: expected 0 with metric\.classification_weight = 0",
    ("metric-alone", "minmax"): r"attack\.name: expected pgd with minmax, got 'none'",
    ("metric-alone", "msd"): r"attack\.name: expected pgd with minmax, got 'none'",
    ("metric-alone", "localized"): UNATTACKED_PART,
    ("metric-alone", "part"): UNATTACKED_PART,
    ("trades", "minmax"): r"trades\.weight: expected 0 with minmax\.combine = learned",
    ("minmax", "localized"): NORMS,
    ("minmax", "part"): NORMS,
    ("msd", "localized"): NORMS,
    ("msd", "part"): NORMS,
    ("pursuit", "part"): NO_MAPS,
    ("localized", "proxy"): r'localized\.region: expected "none" with proxy\.set, got "background"',
    ("part", "proxy"): r'localized\.region: expected "none" with proxy\.set, got "foreground"',
}
SAME_SECTION = {frozenset(pair) for pair in (("metric", "metric-alone"), ("minmax", "msd"), ("localized", "part"))}
PAIRS = [pair for pair in combinations(METHODS, 2) if frozenset(pair) not in SAME_SECTION]
"""A pair of one section has but one of the two."""


def together(*names: str) -> Recipe:
    sections: Sections = {name: dict(values) for name, values in SMALL.items()}
    for name in names:
        for section, values in METHODS[name].items():
            sections[section] = {**sections.get(section, {}), **values}
    return recipe(**sections)


@cache
def trained(*names: str) -> dict[str, Tensor]:
    """The weights after two steps, and the average of them if there is one."""
    given = together(*names)
    _, parts = load_parts(given, None)
    with deterministic(1):
        loop = Loop(given, parts, 10, CPU, proxy=parts.fit if given.proxy.is_on else None)
        loop.step()
        loop.step()
    found = loop.model.state_dict()
    if loop.averager is not None:
        found |= {f"averaged {name}": value for name, value in loop.averager.model.state_dict().items()}
    return {name: value.clone() for name, value in found.items()}


def are_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("pair", PAIRS, ids=" + ".join)
def test_a_pair_trains_or_is_refused(pair: tuple[str, str]) -> None:
    if message := REFUSED.get(pair):
        with pytest.raises(SetupError, match=f"^{message}"):
            trained(*pair)
        return
    found = trained(*pair)
    assert all(bool(value.isfinite().all()) for value in found.values())
    for alone in pair:
        assert not are_equal(found, trained(alone))


def test_tla_and_sar_on_generated_images_against_a_mix_of_norms_with_deep_pursuit(tmp_path: Path) -> None:
    path = tmp_path / "made.npz"
    short = [
        *(f"proxy.set={path}", "data.train=200", "train.epochs=1", "attack.warmup_epochs=0", "attack.steps=1"),
        *("model.width=4", "model.embedding_dim=16", "model.sweeps=1", "averaging.decay=0.5"),
        'export.detectors=["gaussian", "spectrum"]',
    ]
    given = load_recipe("digits-all", short)
    assert method_names(given).keys() >= {"tla", "sar", "minmax", "proxy"}
    generate("pca-gaussian", given, None, path, images=100, learning=Learning())
    fit(given, None, tmp_path / "run", device=CPU)
    bundle = export(tmp_path / "run", tmp_path / "bundle", data_root=None)
    run, engine = load_run(tmp_path / "run"), Engine.load(bundle.path, threads=1)
    parts = run.parts(None)
    images = np.ascontiguousarray(parts.test.images[:33])
    found = compare_outputs(torch_outputs(torch_twin(run, parts, engine), images), engine.graph.run(images))
    assert found.labels == 0
    assert max(found.logits, found.embedding) < 1e-4
    assert found.scores < 1e-3
    card = (tmp_path / "bundle" / "model_card.md").read_text(encoding="utf-8")
    assert "linf perturbations of up to 0.1 (pixels in [0, 1]), together with l2 up to 0.5 and l1 up to 2." in card
    assert f"those of `{path}`, at 0.5 of the loss" in card
