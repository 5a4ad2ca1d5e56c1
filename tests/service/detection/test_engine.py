"""The engine on the tiny bundle: what a caller of `service.detection` sees."""

import numpy as np
import pytest

from service.detection.engine import Engine
from service.detection.types import Verdict
from service.errors import InvalidRequest
from tests import tiny


def test_clean_images_get_their_class_and_a_clean_verdict(engine: Engine) -> None:
    images = tiny.images(50, seed=3)
    corners = images[:, 1::4, 1::4, 0].reshape(50, 4).argmax(axis=1)
    detections = engine.detect(images)
    assert [d.top.index for d in detections] == corners.tolist()
    assert sum(d.verdict is Verdict.ADVERSARIAL for d in detections) <= 3


def test_an_odd_image_is_adversarial_and_its_flags_say_why(engine: Engine) -> None:
    detection = engine.detect(tiny.odd_image()[None], alpha=0.01)[0]
    assert detection.verdict is Verdict.ADVERSARIAL
    assert detection.p_value == pytest.approx(1 / 300)
    assert detection.detectors[0].p_value_at_floor
    assert detection.flags[0].message == "the image is brighter than in 99.67 % of clean images"


def test_an_alpha_that_the_calibration_cannot_support_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="needs 999 calibration images, the bundle has 299"):
        engine.detect(tiny.images(1), alpha=0.001)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_an_answer_does_not_depend_on_its_batch(engine: Engine, batch: int) -> None:
    images = tiny.images(64)
    whole = engine.measure(images).outputs
    parts = [engine.measure(images[i : i + batch]).outputs for i in range(0, 64, batch)]
    assert np.array_equal(np.concatenate([part.scores for part in parts]), whole.scores)
