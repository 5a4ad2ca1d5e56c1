"""What the edge asks of those who look at the sequence of a caller's images; without a word of how they do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.detection.types import Scored
from service.detection.verdict import RevealMode
from service.rpc.call import Caller

__all__ = ["NOTHING", "Noticed", "Watch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Noticed:
    """What an answer to N images has to heed."""

    p_values: Sequence[float | None] | None = None
    """(N,) of images that belong to a search, for this caller to see; None when there is nothing to show."""
    is_plain: bool = False
    """Whether the caller gets label and verdict alone."""


NOTHING = Noticed()


class Watch(Protocol):
    """Looks at each image that was answered; used from the event loop."""

    def ceiling(self, caller: Caller, mode: RevealMode) -> RevealMode:
        """What a caller may see at most, who might see as much as `mode` without it."""

    def names_detectors(self, caller: Caller) -> bool:
        """Whether a caller may learn what detectors there are."""

    async def look(self, scored: Sequence[Scored], caller: Caller) -> Noticed:
        """Takes the images of one answer, before it is sent; never waits for long.

        Raises:
            PermissionRefused: the caller gets no more answers.
        """
