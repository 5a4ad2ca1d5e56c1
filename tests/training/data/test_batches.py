import numpy as np
import torch

from training.data import ImageSet
from training.data.augment import augmented, drawn_moves, flipped, lit, moved, warped
from training.data.batches import ImageSource, epoch_order
from training.sections import TrainConfig


def source() -> ImageSource:
    labels = np.array([2, 0, 1, 0, 2, 2, 0, 1])
    images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    return ImageSource(ImageSet(images=images, labels=labels), torch.device("cpu"))


def test_images_come_as_floats_in_order() -> None:
    assert (source().take(torch.tensor([5, 2])) * 255).flatten().tolist() == [5, 2]


def test_another_image_of_the_class_is_any_but_the_own_one() -> None:
    images, generator = source(), torch.Generator().manual_seed(0)
    sizes = torch.bincount(images.labels)
    for position in range(8):
        label = int(images.labels[position])
        drawn = images.draw_other_of_class(torch.full((60,), position), generator)
        others = set(torch.where(images.labels == label)[0].tolist()) - {position}
        assert set(drawn.tolist()) == (others if sizes[label] > 1 else {position})


def test_the_only_image_of_a_class_stands_for_the_other_one() -> None:
    images = ImageSet(images=np.zeros((3, 1, 1, 1), np.uint8), labels=np.array([1, 0, 1]))
    drawn = ImageSource(images, torch.device("cpu")).draw_other_of_class(
        torch.tensor([1, 0, 1]), torch.Generator().manual_seed(0)
    )
    assert drawn.tolist() == [1, 2, 1]


def test_draws_are_different_positions() -> None:
    drawn = source().draw(5, torch.Generator().manual_seed(0))
    assert len(set(drawn.tolist())) == 5
    assert len(source().draw(50, torch.Generator())) == 8


def test_an_epoch_visits_every_image_once_in_its_own_order() -> None:
    first = epoch_order(20, seed=1, epoch=0)
    assert sorted(first.tolist()) == list(range(20))
    assert torch.equal(first, epoch_order(20, seed=1, epoch=0))
    assert not torch.equal(first, epoch_order(20, seed=1, epoch=1))
    assert not torch.equal(first, epoch_order(20, seed=2, epoch=0))


def test_flips_mirror_whole_images_about_half_of_the_time() -> None:
    images = torch.arange(200 * 6.0).view(200, 1, 2, 3)
    seen = flipped(images, torch.Generator().manual_seed(0))
    is_mirrored = (seen == images.flip(3)).flatten(1).all(dim=1)
    assert ((seen == images).flatten(1).all(dim=1) | is_mirrored).all()
    assert 70 < int(is_mirrored.sum()) < 130


def test_shifts_move_each_image_as_a_whole_and_repeat_its_edge() -> None:
    image = torch.arange(25.0).view(1, 1, 5, 5)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")[0, 0]
    allowed = [padded[row : row + 5, column : column + 5] for row in range(3) for column in range(3)]
    moves = drawn_moves(60, 1, torch.Generator().manual_seed(0))
    assert moves is not None
    seen = moved(image.repeat(60, 1, 1, 1), moves)
    found = {next(n for n, one in enumerate(allowed) if torch.equal(one, each)) for each in seen[:, 0]}
    assert found == set(range(9))
    assert torch.equal(moved(seen, -moves)[:, 0, 1:-1, 1:-1], image[:, 0, 1:-1, 1:-1].repeat(60, 1, 1))


def test_no_shift_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    images = torch.rand(2, 1, 3, 3)
    assert drawn_moves(5, 0, generator) is None
    assert moved(images, None) is images
    assert torch.equal(generator.get_state(), before)


def gradient(height: int, width: int) -> torch.Tensor:
    """(1, 1, H, W), brighter from left to right."""
    return torch.linspace(0.2, 0.8, width).expand(1, 1, height, width).contiguous()


def test_strength_0_draws_nothing() -> None:
    images, generator = gradient(4, 6), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert warped(images, 0, 0, generator) is images
    assert lit(images, 0, 0, generator) is images
    assert drawn_moves(5, 0, generator) is None
    assert moved(images, None) is images
    assert torch.equal(generator.get_state(), before)


def test_a_turned_disc_stays_and_a_turned_bar_turns() -> None:
    rows, columns = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    disc = (12 - (rows**2 + columns**2).sqrt()).clamp(0, 1)
    bar = (3 - rows.abs()).clamp(0, 1)
    images = torch.stack([disc, bar])[:, None]
    seen = warped(images, 90, 0, torch.Generator().manual_seed(1))
    assert (seen[0] - images[0]).abs().max() < 0.35
    assert (seen[1] - images[1]).abs().max() > 0.9


def test_a_turn_of_an_oblong_image_keeps_its_shapes() -> None:
    """A disc stays a disc only where the proportions of the axes are respected."""
    rows, columns = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(65.0) - 32, indexing="ij")
    disc = (10 - (rows**2 + columns**2).sqrt()).clamp(0, 1)[None, None]
    seen = warped(disc.expand(8, 1, 33, 65), 90, 0, torch.Generator().manual_seed(1))
    assert (seen - disc).abs().max() < 0.35


def test_zooming_changes_sizes_within_the_bound() -> None:
    rows, columns = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    disc = (16 - (rows**2 + columns**2).sqrt()).clamp(0, 1)[None, None]
    seen = warped(disc.expand(64, 1, 65, 65), 0, 0.25, torch.Generator().manual_seed(0))
    ratios = (seen.sum(dim=(1, 2, 3)) / disc.sum()).sqrt()
    assert 0.74 < float(ratios.min()) < 0.80
    assert 1.20 < float(ratios.max()) < 1.26


def test_light_changes_mean_and_spread_within_bounds() -> None:
    images = gradient(5, 7).expand(200, 1, 5, 7)
    brighter = lit(images, 0.1, 0, torch.Generator().manual_seed(0)).mean(dim=(1, 2, 3)) - images.mean()
    assert 0.09 < float(brighter.abs().max()) <= 0.1 + 1e-6
    spread = lit(images, 0, 0.3, torch.Generator().manual_seed(0)).std(dim=(1, 2, 3)) / images[0].std()
    assert 0.69 < float(spread.min()) < 0.72
    assert 1.28 < float(spread.max()) < 1.31
    strong = lit(images, 1.0, 0.9, torch.Generator().manual_seed(0))
    assert strong.min() >= 0
    assert strong.max() <= 1


def test_augmentation_computes_in_float32_whatever_surrounds_it() -> None:
    config = TrainConfig(epochs=1, rotate=20, zoom=0.2, brightness=0.1, contrast=0.1)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = augmented(images, config, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        inside = augmented(images, config, torch.Generator().manual_seed(1))
    assert torch.equal(inside, plain)
