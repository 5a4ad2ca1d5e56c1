"""Components of near queries: union-find over records of fixed size, and what is summed up in each."""

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.history.reserved import reserved
from service.history.types import Integers, Slots

__all__ = ["RECORD", "SAMPLE", "Components", "Member"]

NONE = -1
SAMPLE = 8
"""Of its margins that a component remembers."""
RECORD = np.dtype(
    [
        ("parent", np.int32),
        ("size", np.int32),
        ("label", np.int32),
        ("is_adversarial", np.int32),
        ("label_flips", np.int32),
        ("verdict_flips", np.int32),
        ("near_boundary", np.int32),
        ("pixel_links", np.int32),
        ("clients", np.uint64),
        ("began", np.float64),
        ("evidence", np.float64),
        ("raised", np.int32),
        ("offered", np.int32),
        ("sample", np.float32, SAMPLE),
    ]
)
"""`label` and `is_adversarial` are those of the last query; `clients` is a bit map for linear counting; `raised` counts
the queries that added to the evidence; `sample` holds margins drawn at random from the `offered` ones."""
_NUMBERS = tuple(name for name in RECORD.fields or () if name != "sample")
_SUMS = ("size", "label_flips", "verdict_flips", "near_boundary", "pixel_links", "raised", "evidence")
_BITS = 64


class Member:
    """What a component remembers of one query."""

    __slots__ = ("client", "is_adversarial", "is_near", "label", "now")

    def __init__(self, *, client: int, label: int, is_adversarial: bool, is_near: bool, now: float) -> None:
        self.client, self.label, self.now = client, label, now
        self.is_adversarial, self.is_near = is_adversarial, is_near


class Components:
    """The components of one scope.

    A query that is near none has no record; two that are near each other get one. Joining two components adds up their
    sums. The ids of merged and left components come back when `rebuild` points every slot to its root, which happens
    with each expired bucket, and when ids run out.
    """

    def __init__(self, slots: int, seed: bytes) -> None:
        """Takes the capacity of the store, and a secret seed of up to 64 bytes, which draws hang on."""
        self._seed = seed
        self.of = np.full(slots, NONE, np.int32)
        self.rows: NDArray[np.void] = reserved(slots // 2 + 3, RECORD)
        self.columns: dict[str, Any] = {name: self.rows[name].data for name in _NUMBERS}
        """The numbers of `rows` by name: for one at a time several times as fast."""
        self._of = self.of.data
        self._parents = self.columns["parent"]
        self._samples: NDArray[np.float32] = self.rows["sample"]
        self._free: list[int] = []
        self._fresh = 0  # ids from here on were never used

    @property
    def nbytes(self) -> int:
        """Of what was written to of the arrays; the list of free ids is at most 32 bytes for two slots more."""
        return self.of.nbytes + self._fresh * RECORD.itemsize

    def root(self, number: int) -> int:
        """The component that an id has become part of; shortens the way there."""
        parents = self._parents
        root = number
        while parents[root] != root:
            root = parents[root]
        while parents[number] != root:
            parents[number], number = root, parents[number]
        return root

    def row(self, number: int) -> Any:
        """The record of a root, to read and write; numpy's own type for it is not in its stubs."""
        return self.rows[number]

    def joined(self, others: Sequence[tuple[int, Member]]) -> int:
        """The root of the component that one slot to three are in from now on; takes what each was, too."""
        if len(self._free) + len(self.rows) - self._fresh < len(others):
            self.rebuild()  # leaves components of two and more, so ids for three more at least
        root = NONE
        for slot, member in others:
            number = self._of[slot]
            found = self._made(slot, member) if number == NONE else self.root(number)
            if root == NONE:
                root = found
            elif found != root:
                root = self._united(root, found)
        return root

    def add(self, slot: int, root: int, member: Member) -> None:
        """Puts a slot into a component."""
        columns = self.columns
        self._of[slot] = root
        columns["size"][root] += 1
        columns["near_boundary"][root] += member.is_near
        columns["label_flips"][root] += columns["label"][root] != member.label
        columns["verdict_flips"][root] += columns["is_adversarial"][root] != member.is_adversarial
        columns["label"][root], columns["is_adversarial"][root] = member.label, member.is_adversarial
        columns["clients"][root] |= 1 << member.client % _BITS

    def weigh(self, root: int, added: float) -> None:
        """Adds to a component's evidence, which stays at 0 or above."""
        columns = self.columns
        columns["evidence"][root] = max(0.0, columns["evidence"][root] + added)
        columns["raised"][root] += added > 0

    def link(self, root: int) -> None:
        """Counts a query that repeated pixels."""
        self.columns["pixel_links"][root] += 1

    def number(self, slot: int) -> int:
        """That of the component that a slot is in; `NONE` of one in none."""
        number = self._of[slot]
        return NONE if number == NONE else self.root(number)

    def evidence(self, slot: int) -> float:
        """That of the component that a slot is in; 0 of one in none."""
        number = self._of[slot]
        return 0.0 if number == NONE else float(self.columns["evidence"][self.root(number)])

    def ranked(self, root: int, margin: float) -> int:
        """How many of the remembered margins are at most so large, from 0 to `SAMPLE`; `NONE` while there are fewer.

        Then this one may take the place of one of them: each is remembered as likely as another (Vitter 1985).
        """
        sample, offered = self._samples[root], self.columns["offered"][root]
        margin = float(np.float32(margin))  # as it is remembered
        rank = NONE if offered < SAMPLE else sum(kept <= margin for kept in sample.tolist())
        place = offered if offered < SAMPLE else self._drawn(struct.pack("<dq", margin, offered)) % (offered + 1)
        if place < SAMPLE:
            sample[place] = margin
        self.columns["offered"][root] = offered + 1
        return rank

    def sizes(self, slots: Slots) -> Integers:
        """How many queries each slot's component keeps; 1 for those of none."""
        numbers, parents = self.of[slots], self.rows["parent"]
        has = numbers != NONE
        sizes, roots = np.ones(len(slots), np.int64), numbers[has]
        while not np.array_equal(higher := parents[roots], roots):
            roots = higher
        sizes[has] = self.rows["size"][roots]
        return sizes

    def forget(self, slots: Slots, *, is_expired: bool) -> None:
        """Takes slots out.

        With what expires goes its share of the evidence. With what is pushed out it does not, or an attacker could push
        out what speaks against him.
        """
        counts = Counter(self.of[slots].tolist())
        del counts[NONE]
        for number, count in counts.items():
            row = self.row(self.root(number))
            if is_expired:
                row["evidence"] *= (row["size"] - count) / row["size"]
            row["size"] -= count
        self.of[slots] = NONE

    def forgive(self, slots: Slots) -> set[int]:
        """Drops what speaks against the components that slots are in; gives their numbers."""
        numbers = self.of[slots]
        roots = {self.root(number) for number in np.unique(numbers[numbers != NONE]).tolist()}
        for root in roots:
            row = self.row(root)
            for name in _SUMS[1:]:  # all but the size
                row[name] = 0
        return roots

    def rebuild(self) -> None:
        """Points every slot to its root, and frees the ids of what was merged and of components of less than two."""
        rows = self.rows[: self._fresh]
        parents, ids = rows["parent"], np.arange(self._fresh)
        roots = np.where(parents == NONE, ids, parents)
        while not np.array_equal(higher := roots[roots], roots):
            roots = higher
        has = self.of != NONE
        self.of[has] = roots[self.of[has]]
        is_kept = (parents == ids) & (rows["size"] >= 2)
        self.of[has] = np.where(is_kept[self.of[has]], self.of[has], NONE)
        parents[~is_kept] = NONE
        self._free = np.flatnonzero(~is_kept).tolist()

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that is kept, by name; `rebuild` comes before."""
        return {"of": self.of, "rows": self.rows[: self._fresh]}

    def restore(self, array_of: Callable[[str], NDArray[Any]]) -> None:
        """Takes what `arrays` gave, by name.

        Raises:
            ValueError: it is of another size.
        """
        self.of[:], rows = array_of("of"), array_of("rows")
        self._fresh = len(rows)
        self.rows[: self._fresh] = rows
        self.rebuild()

    def clients(self, root: int) -> int:
        """About how many clients a component's queries come from (linear counting, Whang et al. 1990)."""
        is_unset = _BITS - int(self.columns["clients"][root]).bit_count()
        return max(1, round(_BITS * math.log(_BITS / max(1, is_unset))))

    def _drawn(self, what: bytes) -> int:
        """The same number for the same, so that histories with one secret agree, and nobody else can tell."""
        return int.from_bytes(hashlib.blake2b(what, key=self._seed, digest_size=8).digest(), "little")

    def _made(self, slot: int, member: Member) -> int:
        number = self._id()
        self.rows[number] = 0
        row = self.row(number)
        row["parent"], row["label"], row["is_adversarial"] = number, member.label, member.is_adversarial
        row["began"] = member.now
        self.add(slot, number, member)
        return number

    def _id(self) -> int:
        if self._free:
            return self._free.pop()
        self._fresh += 1
        return self._fresh - 1

    def _united(self, one: int, other: int) -> int:
        kept, gone = (one, other) if self.rows["size"][one] >= self.rows["size"][other] else (other, one)
        row, old = self.row(kept), self.row(gone)
        for name in _SUMS:
            row[name] += old[name]
        row["clients"] |= old["clients"]
        row["began"] = min(row["began"], old["began"])
        old["parent"] = kept
        return kept
