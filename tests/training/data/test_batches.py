import numpy as np
import torch

from training.data import ImageSet
from training.data.batches import ImageSource, epoch_order, flipped, shifted


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
    moved = shifted(image.repeat(60, 1, 1, 1), 1, torch.Generator().manual_seed(0))
    found = {next(n for n, one in enumerate(allowed) if torch.equal(one, each)) for each in moved[:, 0]}
    assert found == set(range(9))


def test_no_shift_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    images = torch.rand(2, 1, 3, 3)
    assert shifted(images, 0, generator) is images
    assert torch.equal(generator.get_state(), before)
