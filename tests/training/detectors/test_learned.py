"""Detectors that are networks of their own: what they learn, and that it can be kept."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from tests.training.detectors.made_up import CLASSES, views
from training.attacks.rounding import nearest_8_bit
from training.detectors import CleanViews, Detector, Learned
from training.detectors.adversarial_sensor import AdversarialSensor
from training.detectors.companion import Companion
from training.detectors.perturbation_sensor import PerturbationSensor
from training.forging import benign, forge

KINDS: tuple[type[Learned], ...] = (Companion, PerturbationSensor, AdversarialSensor)
EPS = 16 / 255


def striped(count: int, seed: int) -> CleanViews:
    """Images whose class is where a bright bar lies, with logits that say so."""
    clean = views(count, seed=seed)
    images = 0.3 * clean.images
    for row in range(count):
        images[row, :, 2 * (row % CLASSES)] += 0.6
    logits = 4.0 * torch.nn.functional.one_hot(clean.labels, CLASSES)
    lessons = dataclasses.replace(clean.lessons, images=nearest_8_bit(images).numpy(), effort=0.2)
    return dataclasses.replace(clean, images=images, logits=logits, lessons=lessons)


def scored(detector: Detector, clean: CleanViews, images: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return detector(clean.images if images is None else images, clean.logits, clean.embedding)


def above(first: Tensor, second: Tensor) -> float:
    """The AUROC of the first over the second."""
    return float((first[:, None] > second[None]).double().mean())


def test_a_companion_doubts_a_class_that_it_does_not_see() -> None:
    detector, fresh = Companion.fit(striped(240, seed=0)), striped(80, seed=1)
    wrong = dataclasses.replace(fresh, logits=fresh.logits.roll(1, dims=1))
    assert scored(detector, fresh).median() < 0 < scored(detector, wrong).median()
    assert above(scored(detector, wrong), scored(detector, fresh)) > 0.95


def test_a_sensor_tells_forged_perturbations_from_harmless_noise() -> None:
    clean = views(240)
    lessons = dataclasses.replace(clean.lessons, effort=0.3)
    detector = PerturbationSensor.fit(dataclasses.replace(clean, lessons=lessons))
    fresh, draw = views(120, seed=1), torch.Generator().manual_seed(5)
    forged = torch.cat([forge(part, draw, eps=EPS) for part in fresh.images.split(10)])
    changed = torch.cat([benign(part, draw, eps=EPS) for part in fresh.images.split(10)])
    assert above(scored(detector, fresh, forged), scored(detector, fresh)) > 0.7
    assert above(scored(detector, fresh, forged), scored(detector, fresh, changed)) > 0.65


@pytest.mark.parametrize("kind", KINDS)
def test_kept_weights_give_the_detector_again(kind: type[Learned]) -> None:
    clean = views(60)
    fitted = kind.fit(clean)
    restored = kind.restored(views(12, seed=3), fitted.state_dict())
    assert torch.equal(scored(restored, clean), scored(fitted, clean))
    assert list(restored.parameters()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_another_network_are_refused(kind: type[Learned]) -> None:
    other = kind.fit(views(60, channels=3)).state_dict()
    with pytest.raises(SetupError, match=f"{kind.kind}: expected the weights of its network"):
        kind.restored(views(60), other)


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_leaves_torchs_random_numbers_alone(kind: type[Learned]) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    kind.fit(views(60))
    assert torch.equal(torch.get_rng_state(), before)


def test_learning_tells_how_far_it_is() -> None:
    lines: list[str] = []
    clean = views(60)
    Companion.fit(
        dataclasses.replace(clean, lessons=dataclasses.replace(clean.lessons, effort=0.35, tell=lines.append))
    )
    assert len(lines) == 1
    assert lines[0].startswith("companion: step 100 of 105, loss ")


def test_a_sensor_needs_neighbours() -> None:
    clean = views(60)
    tiny = dataclasses.replace(clean, images=clean.images[:, :, :3, :3])
    with pytest.raises(SetupError, match="expected images of 4 x 4 pixels or more, got 3 x 3"):
        PerturbationSensor.fit(tiny)


@pytest.mark.parametrize("change", [forge, benign])
@pytest.mark.parametrize("channels", [1, 3])
def test_changes_are_8_bit_images_and_repeatable(change: object, channels: int) -> None:
    assert callable(change)
    images = views(16, channels=channels).images
    for seed in range(30):
        changed = change(images, torch.Generator().manual_seed(seed), eps=EPS)
        again = change(images, torch.Generator().manual_seed(seed), eps=EPS)
        assert changed.shape == images.shape
        assert torch.equal(changed, again)
        levels = (255 * changed).numpy()
        np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_forgeries_keep_near_the_size_of_an_attack() -> None:
    images = 0.25 + 0.5 * views(32, channels=3, side=16).images
    length = EPS * (3 * 16 * 16) ** 0.5
    sizes = []
    for seed in range(60):
        change = forge(images, torch.Generator().manual_seed(seed), eps=EPS) - images
        lengths = change.flatten(1).norm(dim=1) / length
        assert lengths.max() < 3 * 1.4
        sizes.append(float(lengths.median()))
    assert min(sizes) > 0.02
    assert max(sizes) > 0.5
