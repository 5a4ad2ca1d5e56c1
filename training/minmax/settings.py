"""What the paper sets for each experiment, budget and norm; images of one channel are taken for digits.

Source: Wang et al. 2021 (NeurIPS), the settings of their code. They have `universal` and `transforms` in Linf alone;
for the other norms we take those of `ensemble`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from training.attacks.ball import BallNorm

__all__ = ["KINDS", "Kind", "Published", "published"]

Kind = Literal["ensemble", "universal", "transforms"]
KINDS: tuple[Kind, ...] = ("ensemble", "universal", "transforms")


@dataclass(frozen=True)
class Published:
    """One row of the settings; see training.attacks.minmax.MinMax."""

    eps: float
    alpha: float
    beta: float
    gamma: float


_STEPS: Mapping[Kind, int] = {"ensemble": 50, "universal": 20, "transforms": 20}
_GREY: Mapping[BallNorm, Published] = {
    "linf": Published(0.2, 4, 50, 3),
    "l2": Published(3, 10, 100, 3),
    "l1": Published(20, 4, 100, 5),
    "l0": Published(30, 1, 100, 7),
}
_COLOUR: Mapping[BallNorm, Published] = {
    "linf": Published(0.05, 6, 50, 4),
    "l2": Published(3, 10, 100, 4),
    "l1": Published(30, 4, 100, 4),
    "l0": Published(50, 1, 100, 7),
}
_LINF: Mapping[Kind, Published] = {
    "universal": Published(0.2, 6, 50, 4),
    "transforms": Published(0.025, 6, 50, 3),
}


def published(kind: Kind, norm: BallNorm, channels: int) -> tuple[Published, int]:
    """The settings, and the number of steps."""
    row = (_GREY if channels == 1 else _COLOUR)[norm]
    return (_LINF.get(kind, row) if norm == "linf" else row), _STEPS[kind]
