"""Which images a step takes, and what they weigh."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from service.errors import SetupError
from training.data import ImageSet
from training.data.batches import ImageSource, epoch_order
from training.losses import total_loss, wanted_images
from training.losses.cross_entropy import AttackedCrossEntropy
from training.methods_proxy import ProxyConfig
from training.models import build_model
from training.proxy.mixing import Mix, ProxySource, batch_split
from training.sections import ModelConfig
from training.shard import Shard

CPU = torch.device("cpu")


def images(count: int, level: int) -> ImageSet:
    """Image i has the value `level` everywhere but in its first two pixels, which are i mod 100 and i div 100."""
    pixels = np.full((count, 8, 8, 1), level, np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = np.arange(count) % 100, np.arange(count) // 100
    return ImageSet(images=pixels, labels=np.arange(count, dtype=np.int64) % 4)


def mix(real: int = 40, generated: int | None = 30, *, shard: Shard | None = None, **keys: float) -> Mix:
    return Mix(
        ProxyConfig(set="some.npz", **keys),  # type: ignore[arg-type]
        ImageSource(images(real, 50), CPU),
        None if generated is None else ProxySource(images(generated, 200), CPU),
        batch_size=16,
        seed=5,
        shard=shard or Shard(),
    )


def numbers(batch: torch.Tensor) -> list[tuple[int, int]]:
    """Level and number of each image of a batch."""
    levels = (batch[:, 0] * 255).round().long()
    return [(int(one[4, 4]), int(one[0, 0] + 100 * one[0, 1])) for one in levels]


@pytest.mark.parametrize(("share", "generated"), [(0.5, 8), (0.25, 4), (0.9, 14), (0.01, 1), (0.99, 15)])
def test_each_batch_has_exactly_its_share_of_generated_images(share: float, generated: int) -> None:
    made = mix(share=share)
    for batch in range(made.steps_an_epoch):
        seen = numbers(made.drawn(0, batch).images())
        assert [sum(level == 200 for level, _ in seen), len(seen)] == [generated, 16]
    assert made.batch_size == 16


def test_an_epoch_sees_every_real_image_once_in_the_order_of_a_run_without_generated_ones() -> None:
    made = mix(share=0.5)
    assert made.steps_an_epoch == 5
    seen = [one for batch in range(5) for one in numbers(made.drawn(2, batch).images()) if one[0] == 50]
    assert [number for _, number in seen] == epoch_order(40, 5, 2).tolist()


def test_generated_images_go_on_from_epoch_to_epoch_and_all_come_before_any_comes_again() -> None:
    made = mix(share=0.5, real=24)  # 3 steps an epoch, 8 generated ones a step
    seen = [
        number for step in range(15) for level, number in numbers(made.drawn(*divmod(step, 3)).images()) if level == 200
    ]
    passes = [seen[start : start + 30] for start in range(0, 120, 30)]
    assert all(sorted(one) == list(range(30)) for one in passes)
    assert passes[0] != passes[1]
    assert len({tuple(one) for one in passes}) == 4


def test_a_set_smaller_than_its_share_comes_several_times_in_a_batch() -> None:
    seen = numbers(mix(generated=3, share=0.5).drawn(0, 0).images())
    counts = np.bincount([number for level, number in seen if level == 200])
    assert sorted(counts.tolist()) == [2, 3, 3]


def test_a_batch_is_that_of_its_number_alone() -> None:
    first, again = mix(), mix()
    for epoch in range(3):
        for batch in range(first.steps_an_epoch):
            first.drawn(epoch, batch)
    late = first.drawn(2, 1)
    assert numbers(late.images()) == numbers(again.drawn(2, 1).images())
    assert torch.equal(late.labels(), again.drawn(2, 1).labels())


def test_labels_stay_with_their_images() -> None:
    drawn = mix().drawn(1, 2)
    assert [number % 4 for _, number in numbers(drawn.images())] == drawn.labels().tolist()


def test_without_generated_images_a_batch_is_a_slice_of_the_order() -> None:
    made = mix(generated=None)
    assert (made.batch_size, made.steps_an_epoch) == (16, 2)
    assert made.drawn(1, 1).positions.tolist() == epoch_order(40, 5, 1)[16:32].tolist()


def test_few_real_images_keep_the_share() -> None:
    made = mix(real=4, share=0.75)
    assert (made.batch_size, made.steps_an_epoch) == (16, 1)
    assert batch_split(16, 0.75, 2) == (2, 6)
    assert batch_split(2, 0.99, 50) == (1, 1)


@pytest.mark.parametrize(("gamma", "share"), [(0.5, 0.5), (0.4, 0.5), (0.4, 0.25), (1.0, 0.5), (0.0, 0.75)])
def test_gamma_weighs_the_means_of_both_kinds_whatever_their_share(gamma: float, share: float) -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(width=4, embedding_dim=8), 1, 8, 8, classes=4).eval()
    made = mix(gamma=gamma, share=share)
    drawn = made.drawn(0, 0)
    clean, labels = drawn.images(), drawn.labels()
    attacked = (clean + 0.1 * torch.rand_like(clean)).clamp(0, 1)
    generator = torch.Generator()
    steps = drawn.steps(clean, attacked, labels, model=model, epoch=0, generator=generator)
    terms = {"classification": AttackedCrossEntropy()}
    loss, logits, values = total_loss(model, terms, steps, wanted_images(terms, steps))
    each = F.cross_entropy(model(attacked), labels, reduction="none")
    is_real = torch.tensor([level == 50 for level, _ in numbers(clean)])
    expected = gamma * each[is_real].mean() + (1 - gamma) * each[~is_real].mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(values["classification"], expected.detach())
    torch.testing.assert_close(logits, torch.cat([model(attacked[is_real]), model(attacked[~is_real])]))
    assert [len(step.source) for step in steps] == [40, 30]


def test_the_rows_of_two_processes_are_those_of_one_and_each_has_its_share() -> None:
    whole = numbers(mix().drawn(0, 1).images())
    halves = [numbers(mix(shard=Shard(rank=rank, world=2)).drawn(0, 1).images()) for rank in range(2)]
    assert halves[0] + halves[1] == whole
    assert [sum(level == 200 for level, _ in half) for half in halves] == [4, 4]


def test_processes_that_cannot_share_each_kind_evenly_are_refused() -> None:
    with pytest.raises(SetupError, match=r"proxy\.share: expected a multiple of 2 real images a batch.* got 11"):
        mix(share=0.3, shard=Shard(rank=0, world=2))


def test_draws_of_a_large_set_are_different_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.proxy.mixing.PERMUTED", 50)
    source = ProxySource(images(400, 200), CPU)
    drawn = [source.draw(20, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all(len(set(one.tolist())) == 20 for one in drawn)
    assert len(set(torch.cat(drawn).tolist())) > 200
    assert sorted(source.draw(400, torch.Generator()).tolist()) == list(range(400))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gamma": 1.5}, r"proxy\.gamma: expected a number from 0 to 1, got 1\.5"),
        ({"gamma": float("nan")}, r"proxy\.gamma: expected a number from 0 to 1, got nan"),
        ({"share": 0.0}, r"proxy\.share: expected a number between 0 and 1, got 0\.0"),
        ({"share": 1.0}, r"proxy\.share: expected a number between 0 and 1, got 1\.0"),
        ({"images": -1}, r"proxy\.images: expected a number of at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        ProxyConfig(**keys)  # type: ignore[arg-type]
