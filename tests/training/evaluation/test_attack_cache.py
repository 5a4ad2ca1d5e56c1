"""A stopped measurement goes on where it was, and nothing that has changed is taken for what was kept."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.detection.types import Bytes8
from tests import tiny
from tests.training.evaluation.small import BUDGETS, Twin
from training.evaluation import attacking
from training.evaluation.attack_cache import AttackCache, Made, digest
from training.evaluation.attacking import AttackRun, attack_images
from training.evaluation.battery import battery
from training.evaluation.strength import FULL
from training.evaluation.suite import SuiteEntry, full_suite, quick_suite

IMAGES = tiny.images(10, seed=3)
LABELS = np.arange(10) % 4


@dataclass(frozen=True)
class Noise:
    """Random signs; fails at the call of this number."""

    fails_at: int = 99
    calls: list[int] = dataclasses.field(default_factory=list, repr=False)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        self.calls.append(len(images))
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        signs = torch.randint(0, 2, images.shape, generator=generator) * 2 - 1
        return (images + 0.1 * signs).clamp(0, 1)

    def __repr__(self) -> str:
        return "Noise()"


def entry(attack: Noise) -> SuiteEntry:
    return SuiteEntry(name="noise", title="Noise", description="Noise.", norm="linf", eps=0.1, attack=attack)


def attacked(attack: Noise, cache: AttackCache | None, *, images: Bytes8 = IMAGES, seed: int = 0) -> AttackRun:
    return attack_images(
        Twin().eval(),
        images,
        LABELS,
        entry(attack),
        seed=seed,
        progress=lambda line: None,
        batch=3,
        cache=cache,
    )


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, warnings: list[str]) -> AttackCache:
    return AttackCache(tmp_path / "attacked", warn=warnings.append)


def test_a_stopped_attack_goes_on_to_the_images_of_an_uninterrupted_one(
    cache: AttackCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacking, "_KEEP_EVERY_S", 0.0)
    whole = attacked(Noise(), None).images
    with pytest.raises(KeyboardInterrupt):
        attacked(Noise(fails_at=3), cache)
    again = Noise()
    went_on = attacked(again, cache)
    assert again.calls == [3, 1]
    np.testing.assert_array_equal(went_on.images, whole)
    assert went_on.spared > 0


def test_what_is_whole_is_not_made_again(cache: AttackCache) -> None:
    first, second = attacked(Noise(), cache), Noise()
    found = attacked(second, cache)
    assert second.calls == []
    np.testing.assert_array_equal(found.images, first.images)


def test_what_one_of_several_processes_kept_is_not_made_again(cache: AttackCache, tmp_path: Path) -> None:
    whole = attacked(Noise(), cache).images
    (kept,) = (tmp_path / "attacked").iterdir()
    name, key = kept.stem.split("-")
    made = cache.find(name, key)
    kept.unlink()
    cache.add(name, key, Made(batches={number: made.batches[number] for number in (1, 3)}, seconds=2.0))
    again = Noise()
    went_on = attacked(again, cache)
    assert again.calls == [3, 3]
    np.testing.assert_array_equal(went_on.images, whole)
    assert went_on.spared == 2.0
    assert [path.name for path in (tmp_path / "attacked").iterdir()] == [kept.name]


def test_little_work_is_kept_only_at_the_end(cache: AttackCache, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        attacked(Noise(fails_at=3), cache)
    assert not (tmp_path / "attacked").exists()


def test_another_seed_or_image_is_attacked_anew(cache: AttackCache) -> None:
    attacked(Noise(), cache)
    other_seed, other_images = Noise(), Noise()
    attacked(other_seed, cache, seed=1)
    attacked(other_images, cache, images=255 - IMAGES)
    assert (len(other_seed.calls), len(other_images.calls)) == (4, 4)


def test_the_digest_is_of_the_network_too() -> None:
    model, same, other = Twin(), Twin(), Twin()
    with torch.no_grad():
        other.scale.mul_(1.001)
    first = digest(model, IMAGES, LABELS, "noise")
    assert digest(same, IMAGES, LABELS, "noise") == first
    assert first not in {
        digest(other, IMAGES, LABELS, "noise"),
        digest(nn.Sequential(same), IMAGES, LABELS, "noise"),
        digest(same, IMAGES, LABELS[::-1], "noise"),
        digest(same, IMAGES, LABELS, "more noise"),
    }


def test_a_damaged_file_counts_as_none(cache: AttackCache, tmp_path: Path) -> None:
    whole = attacked(Noise(), cache).images
    (kept,) = (tmp_path / "attacked").iterdir()
    for content in (kept.read_bytes()[:-40], b"", b"not a zip file"):
        kept.write_bytes(content)
        again = Noise()
        np.testing.assert_array_equal(attacked(again, cache).images, whole)
        assert len(again.calls) == 4


def test_a_folder_that_cannot_be_written_costs_a_line_and_no_figure(
    cache: AttackCache, warnings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "attacked").write_text("in the way", encoding="utf-8")
    for seed in (0, 1):
        assert len(attacked(Noise(), cache, seed=seed).images) == 10
    (line,) = warnings
    assert line.startswith("attacked images are not kept: ")


def test_the_words_of_an_attack_are_the_same_in_another_process() -> None:
    for one in (*battery(BUDGETS, 10, FULL), *full_suite(BUDGETS), *quick_suite(BUDGETS)):
        assert " at 0x" not in repr(one.attack), one.name
