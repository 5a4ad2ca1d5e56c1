"""What an attacker does to his queries so that they look unlike each other, or less like a search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.redteam.search import Answer, Attack, Goal, Search, rounded
from service.detection.types import Bytes8
from training.changes import Change, by_image, jpeg, moved

__all__ = ["BLINDS", "Blinded", "Careful"]

Blind = Callable[[Bytes8, np.random.Generator], Bytes8]
"""An image (H, W, C) to another one that should be read alike."""

PIXELS, BRIGHTNESS, NOISE = 2, 12, 2
"""At most: pixels that an image is shifted by, levels that it is made brighter or darker by, levels of noise."""
QUALITIES = (75, 96)


def _shift(image: Bytes8, generator: np.random.Generator) -> Bytes8:
    down, across = generator.integers(-PIXELS, PIXELS + 1, 2).tolist()
    return _changed(image, moved(down, across), generator)


def _brightness(image: Bytes8, generator: np.random.Generator) -> Bytes8:
    return rounded(image.astype(np.float64) + generator.integers(-BRIGHTNESS, BRIGHTNESS + 1))


def _jpeg(image: Bytes8, generator: np.random.Generator) -> Bytes8:
    return _changed(image, by_image(jpeg(int(generator.integers(*QUALITIES)))), generator)


def _changed(image: Bytes8, change: Change, generator: np.random.Generator) -> Bytes8:
    return np.asarray(change(image[None], generator)[0])


def _noise(image: Bytes8, generator: np.random.Generator) -> Bytes8:
    return rounded(image.astype(np.float64) + generator.integers(-NOISE, NOISE + 1, image.shape))


BLINDS: Mapping[str, Blind] = {"shift": _shift, "brightness": _brightness, "jpeg": _jpeg, "noise": _noise}


@dataclass(frozen=True, kw_only=True)
class Blinded:
    """Query blinding: each query is changed at random before it is sent; what wins is asked about as it is, too.

    Source: Chen, Carlini and Wagner 2019 (arXiv 1907.05587).
    """

    attack: Attack
    blind: str
    """A key of BLINDS."""

    def search(self, goal: Goal, generator: np.random.Generator) -> Search:
        """See Attack."""
        change = BLINDS[self.blind]
        search = self.attack.search(goal, generator)
        try:
            images = next(search)
            while True:
                answers = list((yield np.stack([change(image, generator) for image in images])))
                rows = [row for row, answer in enumerate(answers) if goal.won(answer)]
                if rows:
                    for row, answer in zip(rows, (yield images[rows]), strict=True):
                        answers[row] = answer
                images = search.send(answers)
        except StopIteration:
            return


@dataclass(frozen=True, kw_only=True)
class Careful:
    """Asymmetric cost: flags are dear and queries are cheap, so harmless ones go before each that could be flagged.

    Their number doubles with each flag and halves where none came for a while. They are the clean image under noise,
    each another one: near the search, and as dull as augmentation. A budget for it counts flags.

    The cost is that of arXiv 2506.06933; the way to save it is made for a history whose evidence falls with
    harmless queries.
    """

    attack: Attack
    most: int = 64
    """Harmless queries before each other one."""
    calm: int = 8
    """Queries without a flag after which their number halves."""

    def search(self, goal: Goal, generator: np.random.Generator) -> Search:
        """See Attack."""
        search = self.attack.search(goal, generator)
        ahead, quiet = 1, 0
        try:
            images = next(search)
            while True:
                answers: list[Answer] = []
                for image in images:
                    if ahead:
                        yield np.stack([_noise(goal.image, generator) for _ in range(ahead)])
                    told: Sequence[Answer] = yield image[None]
                    answers += told
                    quiet = 0 if told[0].is_flagged else quiet + 1
                    if told[0].is_flagged:
                        ahead = min(max(1, 2 * ahead), self.most)
                    elif quiet >= self.calm:
                        ahead, quiet = ahead // 2, 0
                images = search.send(answers)
        except StopIteration:
            return
