"""Recipes against several norms: what they refuse, how they train, and what becomes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.detection.engine import Engine
from service.errors import SetupError
from tests.training.test_methods import CPU, recipe, same, weights
from training.attacks import FirstFooling, Pgd
from training.attacks.ball import Ball
from training.attacks.ball_pgd import BallPgd, SteepestOfBalls
from training.attacks.rounding import from_8_bit
from training.checkpoint import load_run, read_checkpoint
from training.config import recipe_from_dict, recipe_to_dict
from training.domain_attacks import DomainAttacks, domain_attacks
from training.export import export
from training.fit import Outcome, fit
from training.loop import Loop
from training.measure import measuring_attack
from training.method_names import method_names

NORMS: dict[str, Any] = {"norms": ["linf", "l2", "l1"], "eps": [0.1, 0.8, 3.0]}
COMBINES = ("learned", "average", "max", "msd")


@pytest.mark.parametrize(
    ("section", "others", "message"),
    [
        ({"norms": []}, {}, r"minmax\.norms: expected one norm or more, got \[\]"),
        ({"norms": ["l2", "l2"], "eps": [1, 1]}, {}, r"minmax\.norms: expected each norm once"),
        ({"norms": ["linf", "l7"], "eps": [0.1, 1]}, {}, r"minmax\.norms: expected one of linf, l2, l1, l0, got 'l7'"),
        ({"eps": [0.1]}, {}, r"minmax\.eps: expected a budget for each of \['linf', 'l2', 'l1'\], got \[0\.1\]"),
        ({"eps": [0.1, -1, 3]}, {}, r"minmax\.eps: expected numbers above 0"),
        ({"norms": ["l0"], "eps": [1.5]}, {}, r"minmax\.eps: expected a whole number for norm l0, got 1\.5"),
        ({"norms": ["linf"], "eps": [8]}, {}, r"minmax\.eps: expected at most 1 for norm linf, got 8"),
        ({"gamma": 0}, {}, r"minmax\.gamma: expected a number above 0, got 0"),
        ({"spread": 2}, {}, r"minmax\.spread: expected a number above 0, at most 1, got 2"),
        ({"combine": "worst"}, {}, r"minmax\.combine: expected one of none, learned, average, max, msd, got 'worst'"),
        ({}, {"attack": {"eps": 0.2}}, r"attack\.eps: expected with minmax a budget among its own, .* got \{'linf': 0"),
        ({}, {"attack": {"norm": "l2", "eps": 0.1}}, r"attack\.eps: expected with minmax a budget among its own"),
        ({}, {"attack": {"name": "n_fgsm"}}, r"attack\.name: expected pgd with minmax, got 'n_fgsm'"),
        ({}, {"attack": {"loss": "kl"}}, r"attack\.loss: expected ce with minmax, got 'kl'"),
        ({}, {"attack": {"guard": True}}, r"attack\.guard: expected none with minmax, got True"),
        ({}, {"attack": {"step": 0.1}}, r"attack\.step: expected none with minmax, got 0\.1"),
        ({}, {"trades": {"weight": 6}}, r"trades\.weight: expected 0 with minmax\.combine = learned, whose weighted"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    section: dict[str, Any], others: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(SetupError, match=f"^{message}"):
        recipe(minmax={"combine": "learned", **NORMS, **section}, **others)


def test_norms_that_no_bundle_can_state_may_stand_alone() -> None:
    given = recipe(minmax={"combine": "average", "norms": ["l1"], "eps": [3]}, attack={"eps": 0.3})
    assert recipe_from_dict(recipe_to_dict(given)) == given


@pytest.mark.parametrize("combine", COMBINES)
def test_methods_are_called_by_their_names(combine: str) -> None:
    names = method_names(recipe(minmax={"combine": combine, **NORMS}))
    expected = {"learned": "min-max", "average": "AVG", "max": "MAX", "msd": "MSD"}[combine]
    assert names == {"minmax": f"{expected} of linf, l2, l1"}


def test_budgets_grow_while_the_warm_up_lasts() -> None:
    attacks = DomainAttacks(recipe(minmax={"combine": "learned", **NORMS}, attack={"warmup_epochs": 1.0}), 10)
    first, *_ = attacks.at(4)
    assert isinstance(first, BallPgd)
    assert first.ball.eps == pytest.approx(0.05)
    assert [attack.ball.eps for attack in attacks.at(9) if isinstance(attack, BallPgd)] == [0.1, 0.8, 3.0]
    assert domain_attacks(recipe(), 10) is None
    (msd,) = DomainAttacks(recipe(minmax={"combine": "msd", **NORMS}), 10).at(0)
    assert isinstance(msd, SteepestOfBalls)
    assert len(msd.balls) == 3


def test_epochs_are_chosen_by_the_worst_norm() -> None:
    attack = measuring_attack(recipe(minmax={"combine": "learned", **NORMS}))
    assert isinstance(attack, FirstFooling)
    assert [one.ball for one in attack.attacks if isinstance(one, BallPgd)] == [
        Ball(norm="linf", eps=0.1),
        Ball(norm="l2", eps=0.8),
        Ball(norm="l1", eps=3),
    ]
    assert measuring_attack(recipe()) == Pgd(eps=0.1, steps=10)


class Bright(torch.nn.Module):
    """Two classes, of which the second gains with the mean brightness."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = 9 * images.flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(bright), bright], dim=1)


def test_terms_of_one_attacked_image_see_the_worst_norm() -> None:
    clean, labels = torch.full((4, 1, 8, 8), 0.2), torch.zeros(4, dtype=torch.long)
    model, draws = Bright(), torch.Generator().manual_seed(0)
    attacks = DomainAttacks(recipe(minmax={"combine": "average", "norms": ["l1", "linf"], "eps": [0.5, 0.1]}), 10)
    worst, versions = attacks(0, model, clean, labels, draws)
    assert len(versions) == 2
    assert torch.equal(worst, versions[1])  # 0.1 on each of 64 values is far more than 0.5 together


def short(**sections: Any) -> Any:
    return recipe(**{"train": {"epochs": 1}, "data": {"train": 100}, **sections})


def test_off_is_without_effect_whatever_the_other_keys_say(tmp_path: Path) -> None:
    fit(short(), None, tmp_path / "plain", device=CPU)
    fit(short(minmax={"combine": "none", **NORMS, "gamma": 9}), None, tmp_path / "off", device=CPU)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "off"))


def test_combinations_train_differently_and_together_with_tla_and_sar(tmp_path: Path) -> None:
    terms = {"tla": {"weight": 0.5, "pool": 16}, "sar": {"weight": 0.02}}
    fit(short(), None, tmp_path / "plain", device=CPU)
    found = [weights(tmp_path / "plain")]
    for combine in COMBINES:
        fit(short(minmax={"combine": combine, **NORMS}, **terms), None, tmp_path / combine, device=CPU)
        found.append(weights(tmp_path / combine))
    assert not any(same(left, right) for n, left in enumerate(found) for right in found[:n])


def test_one_linf_domain_is_plain_adversarial_training(tmp_path: Path) -> None:
    exact = {"train": {"epochs": 1, "precision": "float32"}}
    fit(short(**exact), None, tmp_path / "plain", device=CPU)
    one = {"combine": "learned", "norms": ["linf"], "eps": [0.1]}
    fit(short(**exact, minmax=one), None, tmp_path / "one", device=CPU)
    plain, found = weights(tmp_path / "plain"), weights(tmp_path / "one")
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_a_run_resumes_exactly(tmp_path: Path) -> None:
    given = short(minmax={"combine": "learned", **NORMS}, attack={"warmup_epochs": 0.5}, train={"epochs": 2})

    def stop(loop: Loop) -> None:
        if loop.steps_done == 3:
            raise KeyboardInterrupt

    fit(given, None, tmp_path / "whole", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        fit(given, None, tmp_path / "stopped", device=CPU, on_step=stop)
    assert read_checkpoint(tmp_path / "stopped")["loop"]["epoch"] == 1
    assert fit(given, None, tmp_path / "stopped", device=CPU) is Outcome.FINISHED
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    assert load_run(tmp_path / "whole").recipe == given


def test_a_bundle_of_tla_sar_and_several_norms_answers_as_torch_does(tmp_path: Path) -> None:
    terms = {"tla": {"weight": 0.5, "pool": 16, "own_noise": False}, "sar": {"weight": 0.02}}
    fit(short(minmax={"combine": "learned", **NORMS}, **terms), None, tmp_path / "run", device=CPU)
    bundle = export(tmp_path / "run", tmp_path / "norms", data_root=None)
    assert (bundle.manifest.threat_model.norm, bundle.manifest.threat_model.eps) == ("linf", 0.1)
    assert bundle.manifest.training["minmax"]["norms"] == ["linf", "l2", "l1"]
    card = (tmp_path / "norms" / "model_card.md").read_text(encoding="utf-8")
    assert "together with l2 up to 0.8 and l1 up to 3" in card
    run = load_run(tmp_path / "run")
    images = run.parts(None).test.images[:32]
    with torch.no_grad():
        expected = run.model(from_8_bit(images)).numpy()
    np.testing.assert_allclose(Engine(bundle, threads=1).measure(images).outputs.logits, expected, atol=1e-4)


def test_a_run_that_no_bundle_can_state_is_not_exported(tmp_path: Path) -> None:
    fit(short(minmax={"combine": "max", "norms": ["l1"], "eps": [3]}), None, tmp_path / "run", device=CPU)
    with pytest.raises(
        SetupError, match=r"^minmax\.norms: expected linf or l2, which a bundle can state, got \['l1'\]"
    ):
        export(tmp_path / "run", tmp_path / "bundle", data_root=None)
