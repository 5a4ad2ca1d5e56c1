"""Array types and records of the query history.

Axes everywhere: N queries, H height, W width, C channels, D embedding dimensions, k values of a sketch, T tables of
projections. A slot is a place of the store, from 0 to its capacity.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NOBODY",
    "Bools",
    "Bytes8",
    "Component",
    "Float32s",
    "Float64s",
    "Hashes",
    "Integers",
    "Keys",
    "Listener",
    "Observation",
    "Query",
    "Shorts",
    "Slots",
]

Bytes8: TypeAlias = NDArray[np.uint8]
Bools: TypeAlias = NDArray[np.bool_]
Float32s: TypeAlias = NDArray[np.float32]
Float64s: TypeAlias = NDArray[np.float64]
Hashes: TypeAlias = NDArray[np.uint64]
Integers: TypeAlias = NDArray[np.int64]
Keys: TypeAlias = NDArray[np.uint32]
"""Hashes under a secret; 0 stands for none."""
Shorts: TypeAlias = NDArray[np.int16]
Slots: TypeAlias = NDArray[np.int64]

NOBODY = ""
"""The client of a query whose sender nobody vouches for: such queries have the global scope only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """What the history wants to know of an answered image."""

    client: str
    """The authenticated identity; `NOBODY` without one."""
    image: Bytes8
    """(H, W, C), as the graph got it."""
    embedding: Float32s
    """(D,), unit L2 norm."""
    label: int
    margin: float
    """How far the answer was from another label: the largest probability minus the second, say, or any other number
    that falls towards the decision boundary. The same at calibration and later."""
    p_value: float
    """The fused p-value of the image, in (0, 1]."""
    now: float
    """Unix time in seconds."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """Queries that hang together, each near to another of them; exact repeats do not count."""

    size: int
    """Queries still kept."""
    per_s: float
    """Queries a second since the first."""
    pixel_links: int
    """How often a query repeated another's pixels in part."""
    label_flips: int
    """How often a query's label was another than that of the component's last one."""
    verdict_flips: int
    """The same of the verdict."""
    near_boundary: int
    """Answers with a small margin, or a p-value near the verdict's level."""
    clients: int
    """About how many sent them."""
    statistic: float
    """Evidence in nats, at least 0; 0 of components with too little to be judged by."""
    added: float = 0.0
    """What this query added to the evidence, in nats; below 0 where it is more like a harmless one."""
    number: int = -1
    """By which it is known until it is gone or part of a larger one; -1 where it has none."""
    absorbed: tuple[int, ...] = ()
    """Numbers of those that became part of it by this query."""
    is_new: bool = False
    """Whether it began with this query; another one that is gone may have had its number."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the history says of one query."""

    is_repeat: bool
    """The same pixels are kept already: a retry, a cache, a popular image. Says nothing of an attack."""
    repeats: int
    """How often these pixels came again."""
    is_low_entropy: bool
    """Too few pieces of the image are distinct to recognise it by them."""
    own: Component | None
    """Of the client's queries; None when the query is like no other."""
    everyone: Component | None
    """Of all clients' queries; None when the query is like no other."""
    statistic: float
    """The larger evidence of both, in nats; 0 of a low-entropy image."""
    p_value: float
    """How often a benign query has as much evidence, at most; 1 where there is none."""
    step: int = -1
    """Of a repeat: the number of everyone's component in which the kept query was a step of a search; else -1."""


class Listener(Protocol):
    """Who is told of what other processes observed.

    That is from any thread, and while the history is held: he must not ask it anything.
    """

    def saw(self, client: int, observation: Observation, now: float) -> None:
        """A query was observed that evidence speaks against, or that made components begin or become one.

        Args:
            client: its number, as `History.number` gives it.
            now: Unix time of the query, by this process's clock.
        """

    def forgave(self, client: int, components: Collection[int]) -> None:
        """A client was forgiven, and with him components of everyone's by their numbers."""
