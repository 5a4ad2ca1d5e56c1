"""Terms that go by what they saw in the step before: their part of a checkpoint."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from training.losses.protocol import LossTerm

__all__ = ["Remembering", "load_term_states", "term_states"]


@runtime_checkable
class Remembering(Protocol):
    """What such a term has beside that of LossTerm."""

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes back to where state() was taken."""


def term_states(terms: Mapping[str, LossTerm]) -> dict[str, dict[str, Any]]:
    """By name of the term; empty where none remembers."""
    return {name: term.state() for name, term in terms.items() if isinstance(term, Remembering)}


def load_term_states(terms: Mapping[str, LossTerm], states: Mapping[str, Mapping[str, Any]]) -> None:
    """Takes them back."""
    for name, term in terms.items():
        if isinstance(term, Remembering):
            term.load_state(states[name])
