"""What attackers ask: one protocol for a server in this process and for one that runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deploy.redteam.search import Answer
from service.detection.types import Bytes8

__all__ = ["Backend", "Call", "Told"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """Images that one attacker sends at once."""

    attacker: int
    """Who has a history of his own, as if he were alone with the server."""
    account: str
    images: Bytes8
    """(N, H, W, C)."""
    now: float
    """Unix time of the first image, in seconds."""
    every_s: float
    """Between two images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What came of one image, and what only we may know."""

    answer: Answer
    is_flagged: bool
    """By the history, told or not."""


class Backend(Protocol):
    """Answers the calls of several attackers."""

    def ask(self, calls: Sequence[Call]) -> list[list[Told]]:
        """Each call's answers, one for each image, in order."""
