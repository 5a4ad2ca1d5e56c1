import numpy as np
import torch

from training.data import ImageSet
from training.data.batches import ImageSource, epoch_order, shifted


def source() -> ImageSource:
    labels = np.array([2, 0, 1, 0, 2, 2, 0, 1])
    images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    return ImageSource(ImageSet(images=images, labels=labels), torch.device("cpu"))


def test_images_come_as_floats_in_order() -> None:
    assert (source().take(torch.tensor([5, 2])) * 255).flatten().tolist() == [5, 2]


def test_an_image_of_a_class_is_of_that_class_and_any_of_it() -> None:
    images, generator = source(), torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 2] * 60)
    drawn = images.draw_of_class(labels, generator)
    assert torch.equal(images.labels[drawn], labels)
    assert set(drawn.tolist()) == set(range(8))


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
