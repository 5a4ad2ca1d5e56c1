"""Whether images of several callers come at the same time."""

__all__ = ["CONTENDED_S", "Contention"]

CONTENDED_S = 5.0
"""Seconds for which others count after their last image."""


class Contention:
    """Remembers until when more than one caller counts; of all callers only the last, since two are a contention."""

    __slots__ = ("_key", "_since", "until")

    def __init__(self) -> None:
        self._key = ""
        self._since = -CONTENDED_S
        self.until = 0.0
        """Time to which several callers count."""

    def note(self, key: str, now: float) -> None:
        """Takes note of a caller's image; one without a key, such as a canary's, is no caller's."""
        if not key:
            return
        if key != self._key:
            if now - self._since < CONTENDED_S:
                self.until = now + CONTENDED_S
            self._key = key
        self._since = now
