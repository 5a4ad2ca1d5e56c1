import torch

from tests.training.evaluation.small import Twin
from training.attacks.rounding import from_8_bit
from training.evaluation.rounding import predict, to_8_bit_fooling


def test_an_image_right_behind_the_boundary_still_fools_after_rounding() -> None:
    clean = torch.full((1, 8, 8, 1), 100, dtype=torch.uint8)
    clean[:, :4, :4] = 101  # class 0 leads by one level
    unit, labels = from_8_bit(clean), torch.tensor([0])
    attacked = unit.clone()
    attacked[:, :, :4, 4:] += 1.3 / 255  # class 1 leads; the nearest level, 101, would be a tie that class 0 wins
    assert predict(Twin(), attacked).item() == 1
    rounded = to_8_bit_fooling(Twin(), attacked, unit, labels)
    assert predict(Twin(), from_8_bit(rounded)).item() == 1
    assert int((rounded.int() - clean.int()).abs().max()) == 2


def test_where_the_nearest_level_fools_it_is_taken_and_the_untouched_stays() -> None:
    clean = torch.full((1, 8, 8, 1), 100, dtype=torch.uint8)
    unit = from_8_bit(clean)
    attacked = unit.clone()
    attacked[:, :, :4, 4:] += 5.4 / 255
    rounded = to_8_bit_fooling(Twin(), attacked, unit, torch.tensor([0])).int() - clean.int()
    assert sorted(rounded.unique().tolist()) == [0, 5]
