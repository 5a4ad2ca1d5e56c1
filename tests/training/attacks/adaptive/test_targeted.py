"""Attacks led to several classes in turn."""

import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks.adaptive import AdaptivePgd, Loop, MultiTargeted, Selective


class Bars(nn.Module):
    """Three classes that lead where their pixel is brightest; class 2 is the suspicious one."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = 10 * images.flatten(1)[:, :3]
        return logits, torch.softmax(logits, dim=1)[:, 2].double()


IMAGES = torch.tensor([[[[0.6, 0.2, 0.5, 0.0]]]])
LABELS = torch.tensor([0])
LOOP = Loop(eps=0.25, steps=20, rounds=False)


def attacked(attack: MultiTargeted, targets: Tensor | None = None) -> tuple[int, float]:
    found = attack(Bars(), IMAGES, LABELS, torch.Generator().manual_seed(0), targets=targets)
    assert bool(found.found[0])
    return int(Bars()(found.images)[0].argmax()), float(found.scores[0])


def test_the_less_suspicious_class_is_found_though_it_lies_farther() -> None:
    one = MultiTargeted(attack=AdaptivePgd(loop=LOOP, rule=Selective()), classes=1)
    both = MultiTargeted(attack=AdaptivePgd(loop=LOOP, rule=Selective()), classes=2)
    assert attacked(one)[0] == 2
    label, suspicion = attacked(both)
    assert label == 1
    assert suspicion < attacked(one)[1]


def test_a_given_target_is_the_only_one() -> None:
    both = MultiTargeted(attack=AdaptivePgd(loop=LOOP, rule=Selective()), classes=2)
    assert attacked(both, torch.tensor([2]))[0] == 2


def test_more_classes_than_there_are_wrong_ones_are_all_of_them() -> None:
    many = MultiTargeted(attack=AdaptivePgd(loop=LOOP, rule=Selective()), classes=9)
    assert attacked(many)[0] == 1


def test_no_class_is_refused() -> None:
    with pytest.raises(SetupError, match="classes"):
        MultiTargeted(attack=AdaptivePgd(loop=LOOP, rule=Selective()), classes=0)
