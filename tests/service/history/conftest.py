import numpy as np
import pytest

from service.history.calibrate import calibrate
from service.history.calibration import Calibration
from tests.service.history import toy

ALPHA = 0.01


def benign_streams(seed: int, count: int) -> list[list]:
    """Gliding and standing cameras, retries and random traffic, in turn."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        kind = number // 2 % 4  # so that streams of odd and of even places are of all kinds
        if kind == 0:
            images = toy.frames(generator, 40)
        elif kind == 1:
            images = toy.frames(generator, 40, speed=0.0)
        elif kind == 2:
            images = np.repeat(toy.pictures(generator, 6), 4, axis=0)
        else:
            images = toy.pictures(generator, 24)
        made.append(toy.stream(images, f"benign {seed} {number}", start=number / 7))
    return made


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    unrelated = toy.stream(toy.pictures(np.random.default_rng(1), 300), "random", start=0.0)
    return calibrate(unrelated, benign_streams(2, 64), alpha=ALPHA, secret=bytes(32))
