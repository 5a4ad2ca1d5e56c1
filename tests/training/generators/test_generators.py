"""Generators: what they draw, and that diffusion's arithmetic is right where the answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from service.errors import SetupError
from training.data import ImageSet
from training.generators import GENERATORS, Learning
from training.generators.diffusion import Diffusion
from training.generators.gaussian import PcaGaussian, PixelGaussian
from training.generators.schedule import TIMES, drawn, noised, signal
from training.generators.unet import UNet

QUICK = Learning(steps=3, batch_size=8, width=4, sampling_steps=2)


def images(count: int = 60, shape: tuple[int, ...] = (8, 8, 1), classes: int = 3) -> ImageSet:
    """Class c is brighter by 60 levels than the one before, with a common shade of each image."""
    random = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int64) % classes
    shades = 40 + 60 * labels + random.normal(0, 8, count)
    pixels = shades[:, None, None, None] + random.normal(0, 2, (count, *shape))
    return ImageSet(images=np.rint(pixels.clip(0, 255)).astype(np.uint8), labels=labels)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 6, 3)])
def test_a_generator_draws_bytes_of_the_images_shape_and_the_same_for_a_seed(name: str, shape: tuple[int, ...]) -> None:
    labels = np.array([2, 0, 1, 1])
    made = GENERATORS[name](images(shape=shape), 3, QUICK)
    first, again, other = (made.sample(labels, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first.dtype, first.shape) == (np.uint8, (4, *shape))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", [PcaGaussian, PixelGaussian])
def test_gaussians_have_their_class_s_mean_and_spread(kind: type[PcaGaussian]) -> None:
    real = images(300)
    made = kind(real, 3, QUICK).sample(np.full(600, 1), np.random.default_rng(0)).astype(float)
    own = real.images[real.labels == 1].astype(float)
    assert made.mean() == pytest.approx(own.mean(), abs=2)
    assert made.std(axis=0).mean() == pytest.approx(own.std(axis=0).mean(), rel=0.15)


def test_only_components_keep_what_pixels_have_in_common() -> None:
    """Shades of whole images: independent pixels average them out."""
    real = images(300)
    spreads = {
        kind: kind(real, 3, QUICK).sample(np.full(300, 1), np.random.default_rng(0)).mean(axis=(1, 2, 3)).std()
        for kind in (PcaGaussian, PixelGaussian)
    }
    own = real.images[real.labels == 1].mean(axis=(1, 2, 3)).std()
    assert spreads[PcaGaussian] == pytest.approx(own, rel=0.2)
    assert spreads[PixelGaussian] < 0.3 * own


@pytest.mark.parametrize("kind", [PcaGaussian, PixelGaussian])
def test_a_class_of_one_image_is_refused(kind: type[PcaGaussian]) -> None:
    with pytest.raises(SetupError, match="expected two images or more of class 2, got 1"):
        kind(images().take(np.array([0, 3, 1, 4, 2])), 3, QUICK)


def test_signal_falls_from_1_to_nearly_0() -> None:
    values = signal(torch.arange(TIMES + 1))
    assert values[0] == 1
    assert 0 < values[-1] < 0.01
    assert bool((values.diff() < 0).all())


def test_image_and_noise_come_back_from_what_is_predicted() -> None:
    random = torch.Generator().manual_seed(0)
    clean, noise = torch.rand(5, 1, 4, 4, generator=random) * 2 - 1, torch.randn(5, 1, 4, 4, generator=random)
    times = torch.tensor([0.0, 1, 300, 700, 1000])
    seen, v = noised(clean, times, noise)
    a = signal(times)[:, None, None, None].float()
    s = (1 - a.square()).sqrt()
    torch.testing.assert_close(a * seen - s * v, clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(s * seen + a * v, noise, atol=1e-5, rtol=0)
    assert torch.equal(seen[0], clean[0])


def exact(mean: float, deviation: float) -> "object":
    """The best prediction of v for pixels that are independent and normal."""

    def predict(seen: Tensor, times: Tensor) -> Tensor:
        a = signal(times)[:, None, None, None].to(seen)
        s = (1 - a.square()).sqrt()
        found = mean + deviation**2 * a / (a.square() * deviation**2 + s.square()) * (seen - a * mean)
        noise = (seen - a * found) / s
        return a * noise - s * found

    return predict


@pytest.mark.parametrize(("eta", "steps"), [(0.0, 60), (1.0, 200)])
def test_an_exact_network_draws_the_distribution_that_it_knows(eta: float, steps: int) -> None:
    random = torch.Generator().manual_seed(0)
    start = torch.randn(40, 1, 16, 16, generator=random)
    made = drawn(exact(0.3, 0.2), start, steps=steps, eta=eta, generator=random, clip=False)  # type: ignore[arg-type]
    assert float(made.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(made.std()) == pytest.approx(0.2, abs=0.012)


def test_ddim_draws_no_noise_and_ddpm_does() -> None:
    start = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    predict = exact(0.0, 0.5)
    for eta, is_same in ((0.0, True), (1.0, False)):
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        before = generators[0].get_state()
        made = [drawn(predict, start, steps=5, eta=eta, generator=one) for one in generators]  # type: ignore[arg-type]
        assert torch.equal(*made) is is_same
        assert torch.equal(generators[0].get_state(), before) is is_same


def test_the_network_sees_time_and_class() -> None:
    torch.manual_seed(0)
    network = UNet(channels=1, classes=3, width=4)
    torch.nn.init.normal_(network.last[-1].weight)  # type: ignore[arg-type]
    seen = torch.randn(1, 1, 7, 9).expand(4, 1, 7, 9)
    found = network(seen, torch.tensor([10, 10, 10, 900]), torch.tensor([0, 0, 1, 0]))
    assert found.shape == seen.shape
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    assert not torch.allclose(found[0], found[3])


def test_diffusion_learns_the_shades_of_its_classes() -> None:
    learning = Learning(steps=120, batch_size=32, width=8, learning_rate=5e-3, sampling_steps=10)
    made = Diffusion(images(), 3, learning).sample(np.arange(30) % 3, np.random.default_rng(0))
    means = [made[label::3].mean() for label in range(3)]
    assert means[0] + 25 < means[1] < means[2] - 25


def test_training_goes_on_where_its_file_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, random = np.arange(3), np.random.default_rng(0)
    whole = Diffusion(images(), 3, QUICK).sample(labels, random)
    kept = Learning(**{**vars(QUICK), "weights": tmp_path / "weights.pt"})
    stepped = Diffusion._stepped

    def stop(self: Diffusion) -> float:
        if self.step == 2:
            raise KeyboardInterrupt
        return stepped(self)

    with monkeypatch.context() as patch:
        patch.setattr(Diffusion, "_stepped", stop)
        patch.setattr("training.generators.diffusion.SAVE_EVERY_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            Diffusion(images(), 3, kept)
    made = Diffusion(images(), 3, kept)
    assert np.array_equal(made.sample(labels, np.random.default_rng(0)), whole)
    monkeypatch.setattr(Diffusion, "_stepped", None)  # finished: nothing is learned any more
    again = Diffusion(images(), 3, Learning(**{**vars(kept), "sampler": "ddpm"}))
    assert again.step == 3
    with pytest.raises(
        SetupError, match=r"weights\.pt: expected the weights of this model.*images = 60 \(expected 30\)"
    ):
        Diffusion(images(30), 3, kept)
    torch.save({"other": 1}, tmp_path / "weights.pt")
    with pytest.raises(SetupError, match=r"weights\.pt: expected weights of a diffusion model"):
        Diffusion(images(), 3, kept)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"steps": 0}, r"--steps: expected a number of at least 1, got 0"),
        ({"width": 6}, r"--width: expected a multiple of 4, got 6"),
        ({"learning_rate": 0.0}, r"--learning-rate: expected a number above 0"),
        ({"sampler": "euler"}, r"--sampler: expected ddim or ddpm, got 'euler'"),
    ],
)
def test_other_settings_are_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        Learning(**keys)  # type: ignore[arg-type]
