"""The page's section on where the classifier looks: figures by hand, pictures, and when there is none."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.detection.engine import Engine
from tests.training.evaluation import small
from tests.training.evaluation.test_report import Reader
from training.attacks.rounding import from_8_bit
from training.evaluation.decisions import decide
from training.evaluation.evaluate import Evaluation
from training.evaluation.judging import Attacked
from training.evaluation.looking import looking
from training.evaluation.report import page
from training.evaluation.report_looking import looking_section, overlay
from training.evaluation.suite import chosen, quick_suite
from training.models import Classifier


class Quadrants(Classifier):
    """As small.Twin, with its image as the map that a pooling makes the embedding of."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(20 * torch.eye(4))

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images.mean(dim=1, keepdim=True),)

    def embed_maps(self, maps: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)

    def embed(self, images: Tensor) -> Tensor:
        return self.embed_maps(self.feature_maps(images)[-1])


@pytest.fixture(scope="module")
def evaluation(engine: Engine) -> Evaluation:
    suite = chosen(quick_suite(small.BUDGETS), ("fgsm", "pgd"))
    return small.run(engine, suite, model=Quadrants().eval())


def test_the_page_shows_where_the_classifier_looks(engine: Engine, evaluation: Evaluation) -> None:
    looks = evaluation.looking
    assert looks is not None
    assert (looks.attack, len(looks.examples), looks.is_by_colour) == ("PGD", 6, False)
    images = small.held_out().images[..., 0].astype(np.float64)
    background = images / 255 < 0.1
    assert looks.shares.background == pytest.approx(background.mean())
    # The gradient of every class is the same everywhere, so Grad-CAM is the image itself.
    share = (images * background).sum(axis=(1, 2)) / images.sum(axis=(1, 2))
    assert looks.shares.cam == pytest.approx(share.mean(), abs=1e-5)
    html = page(small.report(engine, evaluation), evaluation)
    reader = Reader()
    reader.feed(html)
    assert "Where the classifier looks" in html
    assert len(reader.addresses) == 2 * 5 + 6 * 5
    assert reader.open == []


def test_a_classifier_without_maps_has_no_section(engine: Engine, evaluation: Evaluation) -> None:
    assert small.run(engine, chosen(quick_suite(small.BUDGETS), ("fgsm",))).looking is None
    none = dataclasses.replace(evaluation, looking=None)
    assert "Where the classifier looks" not in page(small.report(engine, none), none)


def test_names_are_escaped(evaluation: Evaluation) -> None:
    assert evaluation.looking is not None
    example = dataclasses.replace(evaluation.looking.examples[0], label="<b>", attacked_label="<i>")
    html = looking_section(dataclasses.replace(evaluation.looking, examples=(example,), attack="<u>"))
    assert "&lt;b&gt;" in html
    assert "&lt;i&gt;" in html
    assert "<u>" not in html


def test_attacks_on_some_images_show_nothing(engine: Engine) -> None:
    subject = small.subject(engine, 8)
    entry = chosen(quick_suite(small.BUDGETS), ("fgsm",))[0]
    some = Attacked(
        entry=entry,
        images=subject.images[:3],
        decisions=decide(engine, subject.images[:3]),
        disagreements=0,
        seconds=0.0,
        rows=np.arange(3),
    )
    names = engine.bundle.manifest.class_names
    assert looking(Quadrants(), subject, [some], names, np.arange(2)) is None
    assert looking(Quadrants(), subject, [], names, np.arange(2)) is None


def test_a_map_lies_over_the_image() -> None:
    image = np.array([[[0, 100, 200], [100, 100, 100]]], np.uint8)
    over = overlay(image, np.array([[0.0, 2.0]]))
    assert over.shape == (1, 2, 3)
    assert over[0, 0].tolist() == [round(0.4 * 100 + 0.6 * value) for value in (68, 1, 84)]
    assert over[0, 1].tolist() == [round(0.4 * 100 + 0.6 * value) for value in (253, 231, 37)]
    assert (overlay(image, np.zeros((1, 2))) == over[:, :1]).all()


def test_the_network_answers_as_the_twin() -> None:
    images = from_8_bit(small.held_out(8).images)
    assert torch.allclose(Quadrants()(images), small.Twin()(images), atol=1e-4)
