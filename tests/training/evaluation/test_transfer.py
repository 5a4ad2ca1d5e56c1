"""Attacks by way of another run's network: whose gradients, which runs, and what the cache tells apart."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from service.errors import SetupError
from training.__main__ import main
from training.checkpoint import Run, load_run, read_checkpoint, write_checkpoint
from training.evaluation import transfer
from training.evaluation.attack_cache import AttackCache
from training.evaluation.attacking import attack_images
from training.evaluation.blind_strength import QUICK
from training.evaluation.suite import Budgets
from training.evaluation.transfer import transfer_suite

BUDGETS = Budgets(linf=0.1, l2=0.4)


def test_the_gradients_are_those_of_the_other_network(run: tuple[Path, Path], other: Path, tmp_path: Path) -> None:
    loaded = load_run(run[0])
    test = loaded.parts(run[1]).test
    images, labels = np.ascontiguousarray(test.images[:8]), test.labels[:8]
    cache = AttackCache(tmp_path / "kept", warn=lambda line: None)
    suite = transfer_suite(loaded, [other], BUDGETS, QUICK)
    assert [entry.name for entry in suite] == ["transfer1_pgd", "transfer1_apgd_ce"]
    for entry in suite:
        bare = dataclasses.replace(entry, attack=entry.attack.attack)  # type: ignore[attr-defined]
        found, by_other, by_own = (
            attack_images(model, images, labels, one, seed=0, progress=lambda line: None, cache=cache).images
            for model, one in ((loaded.model, entry), (load_run(other).model, bare), (loaded.model, bare))
        )
        assert np.array_equal(found, by_other)
        assert not np.array_equal(found, by_own)


def test_the_words_hold_the_other_networks_identity(run: tuple[Path, Path], other: Path) -> None:
    loaded = load_run(run[0])
    before = [repr(entry.attack) for entry in transfer_suite(loaded, [other], BUDGETS, QUICK)]
    assert before == [repr(entry.attack) for entry in transfer_suite(loaded, [other], BUDGETS, QUICK)]
    content = read_checkpoint(other)
    weights = (content["loop"]["best_averaged"] or content["loop"]["best"] or content["loop"])["model"]
    next(iter(weights.values())).mul_(1.001)
    write_checkpoint(other, content)
    after = [repr(entry.attack) for entry in transfer_suite(loaded, [other], BUDGETS, QUICK)]
    assert not set(before) & set(after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("a", "b")}, r"expected the class names of .*, got \('a', 'b'\)"),
        ({"input_shape": (9, 9, 1)}, r"expected the shape of images of .*, \(8, 8, 1\), got \(9, 9, 1\)"),
        ({}, "expected another network, got the weights of"),
    ],
    ids=["classes", "shape", "itself"],
)
def test_a_run_of_something_else_or_itself_is_refused(
    run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str
) -> None:
    loaded = load_run(run[0])

    def changed(path: Path, *, device: torch.device) -> Run:
        return dataclasses.replace(load_run(path, device=device), **change)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "load_run", changed)
    with pytest.raises(SetupError, match=message):
        transfer_suite(loaded, [run[0]], BUDGETS, QUICK)


def test_the_command_judges_them_on_this_bundle(
    run: tuple[Path, Path], bundle_path: Path, other: Path, tmp_path: Path
) -> None:
    given = ["evaluate", str(bundle_path), "--run", str(run[0]), "--data", str(run[1]), "--out", str(tmp_path / "out")]
    given += ["--budget", "quick", "--non-adaptive", "--images", "10", "--transfer", str(other)]
    assert main([*given, "--attacks", "fgsm,transfer1_pgd"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [attack["title"] for attack in report["attacks"]] == ["FGSM", "PGD by way of other"]
    assert f"--transfer {other}" in report["provenance"]["command"]
    assert not any("left out" in remark for remark in report["remarks"])
