"""Rows in any order, once or more, to shards: each row in its shard once, each shard written when it is whole."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from service.scoring.decoding import NO_NUMBER, Columns
from service.scoring.ledger import Finished, Ledger, shard_name
from service.scoring.tables import write_shard

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Shards"]


@dataclass(kw_only=True)
class _Open:
    """A shard that is not whole yet."""

    seen: "np.ndarray[Any, Any]"
    """(images of a shard,) whether the row is here."""
    parts: list[Columns] = field(default_factory=list)


class Shards:
    """Gathers rows by piece and shard.

    A cluster may compute a row again when a machine is lost, and hand rows over in any order; so rows are known by
    their numbers, never by when they come.
    """

    def __init__(self, ledger: Ledger, table: "Callable[[Columns], pa.Table]", shard_images: int) -> None:
        self._ledger = ledger
        self._table = table
        self._shard_images = shard_images
        self._open: dict[tuple[int, int], _Open] = {}
        self._totals: dict[int, int] = {}

    def add(self, columns: Columns) -> None:
        """Takes scored rows; writes what is whole with them."""
        keys = np.stack([columns["piece"], columns["number"] // self._shard_images], axis=1)
        for piece, shard in np.unique(keys, axis=0).tolist():
            rows = np.flatnonzero((keys == (piece, shard)).all(axis=1))
            if shard == NO_NUMBER:
                self._totals[piece] = int(columns["total"][rows[0]])
            elif shard not in self._ledger.shards(piece):
                self._keep(piece, shard, {name: values[rows] for name, values in columns.items()})
        for piece in np.unique(columns["piece"]).tolist():
            self._write_whole(piece)

    def _keep(self, piece: int, shard: int, columns: Columns) -> None:
        held = self._open.setdefault((piece, shard), _Open(seen=np.zeros(self._shard_images, np.bool_)))
        places = columns["number"] % self._shard_images
        _, first = np.unique(places, return_index=True)
        new = first[~held.seen[places[first]]]
        held.seen[places[new]] = True
        held.parts.append({name: values[new] for name, values in columns.items()})

    def _write_whole(self, piece: int) -> None:
        total = self._totals.get(piece)
        for key in [key for key in self._open if key[0] == piece]:
            wanted = self._shard_images
            if total is not None:
                wanted = min(wanted, total - key[1] * self._shard_images)
            if np.count_nonzero(self._open[key].seen) == wanted:
                self._write(*key, self._open.pop(key).parts)
        if total is not None and len(self._ledger.shards(piece)) * self._shard_images >= total:
            del self._totals[piece]
            if not self._ledger.has_ended(piece):
                self._ledger.end(piece)

    def _write(self, piece: int, shard: int, parts: list[Columns]) -> None:
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.argsort(joined["number"])
        table = self._table({name: values[order] for name, values in joined.items()})
        errors = int(np.count_nonzero(joined["error"] != ""))
        images, adversarial = len(order), int(np.count_nonzero(joined["is_adversarial"]))
        size = write_shard(self._ledger.folder / shard_name(piece, shard), table)
        self._ledger.finish(
            Finished(piece=piece, shard=shard, size=size, images=images, errors=errors, adversarial=adversarial)
        )
