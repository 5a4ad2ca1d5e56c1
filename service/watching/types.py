"""What the parts of the watch share."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from service.history.types import NOBODY, Listener, Observation, Query

__all__ = ["Kept", "Mode", "Rules"]


class Mode(StrEnum):
    """What becomes of a query that belongs to a search."""

    OBSERVE = "observe"
    """Log and metrics."""
    ANNOTATE = "annotate"
    """Besides, those who may see scores are told in the answer."""
    REJECT = "reject"
    """Besides, who has too many flags is refused, or gets label and verdict alone."""
    SILENT = "silent"
    """Log and metrics, and who may not see scores gets label and verdict alone, whoever he is; perhaps late an end."""

    @property
    def waits(self) -> bool:
        """Whether an answer waits until its query is observed."""
        return self in (Mode.ANNOTATE, Mode.REJECT)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What an operator chose."""

    mode: Mode
    level: float
    """Share of harmless queries that may be flagged."""
    window_s: float
    """In which flags count."""
    flags: int
    """Of one client, with which it has too many."""
    late_flags: int = 0
    """How many more there are at most, drawn for each client, before one is cut off with `silent`; 0 for never."""
    is_plain: bool = False
    """Whether who has too many gets label and verdict alone, and is not refused; with `reject`."""
    wait_s: float = 0.1
    """That an answer waits at most."""

    def cuts_off(self, client: str) -> bool:
        """Whether too many flags of a client have a consequence; for `NOBODY`, of a component."""
        return self.mode is Mode.REJECT or (self.mode is Mode.SILENT and self.late_flags > 0 and client != NOBODY)


class Kept(Protocol):
    """A history, whoever else shares it; used from one thread."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes have it, too."""

    @property
    def is_degraded(self) -> bool:
        """Whether it sees less than it should."""

    @property
    def degraded_reason(self) -> str:
        """Why; for people."""

    @property
    def nbytes(self) -> int:
        """What it holds."""

    @property
    def room(self) -> int:
        """How many queries at once cost least for each, at least 1."""

    def observe_all(self, queries: Sequence[Query]) -> list[Observation]:
        """Compares queries of one shape with those before, and keeps them."""

    def number(self, client: str) -> int:
        """A keyed number of a client, the same in all processes that share the history; from any thread."""

    def listen(self, listener: Listener) -> None:
        """Has a listener told of what other processes observe, and observed."""

    def forgive_number(self, number: int) -> Collection[int]:
        """Drops what speaks against a client's queries; gives the numbers of everyone's components they are in.

        Args:
            number: of the client, as `number` gives it.
        """

    def close(self) -> None:
        """Gives back what it holds."""

    def __len__(self) -> int: ...
