"""A classifier with known answers: two classes by the mean of a corner, and a verdict by the sharpest edge."""

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar, cast

import numpy as np

from deploy.redteam.search import Answer, Attack, Goal, driven, linf
from service.detection.types import Bytes8

Value = TypeVar("Value")

SIDE, EPS = 12, 16
ALPHA = 0.05


def goal(*, eps: int = EPS) -> Goal:
    """A grey image of class 0, near enough to class 1 for the budget."""
    image = np.full((SIDE, SIDE, 3), 120, np.uint8)
    return Goal(image=image, label=0, eps=eps, others=np.full((1, SIDE, SIDE, 3), 200, np.uint8))


def answer(image: Bytes8) -> Answer:
    """Class 1 where the corner is 8 levels brighter than 120, by log-odds that are the difference."""
    corner = image[:6, :6].astype(np.float64).mean() - 128
    odds = 1 / (1 + np.exp(-corner / 4))
    return Answer(
        label=int(odds > 0.5),
        is_accepted=True,
        probabilities=np.array([1 - odds, odds]),
        p_value=0.5,
        alpha=ALPHA,
    )


def oracle(images: Bytes8) -> list[Answer]:
    return [answer(image) for image in images]


class Watched:
    """The same, where what `recognises` an image by those before it refuses it."""

    def __init__(self, recognises: Callable[[Bytes8, Sequence[Bytes8]], bool]) -> None:
        self.recognises = recognises
        self.kept: list[Bytes8] = []
        self.refused: list[bool] = []

    def __call__(self, images: Bytes8) -> list[Answer]:
        answers = []
        for image in images:
            is_known = self.recognises(image, self.kept)
            self.kept.append(image)
            self.refused.append(is_known)
            answers.append(Answer(is_refused=True, is_flagged=True) if is_known else answer(image))
        return answers


def found(attack: Attack, goal: Goal, ask: Callable[[Bytes8], list[Answer]], queries: int, seed: int = 0) -> int | None:
    """The first query within the budget that won."""
    asked, first = 0, None

    def listening(images: Bytes8) -> list[Answer]:
        nonlocal asked, first
        answers = ask(images)
        for one, norm in zip(answers, linf(images, goal.image), strict=True):
            asked += 1
            if first is None and goal.won(one) and norm <= goal.eps:
                first = asked
        return answers

    driven(attack.search(goal, np.random.default_rng(seed)), listening, queries)
    return first


def result(asking: Generator[Bytes8, Sequence[Answer], Value], ask: Callable[[Bytes8], list[Answer]]) -> Value:
    """What a part of a search comes to."""
    images = next(asking)
    while True:
        try:
            images = asking.send(ask(images))
        except StopIteration as end:
            return cast(Value, end.value)
