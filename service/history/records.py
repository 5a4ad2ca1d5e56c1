"""Entries as bytes, for other processes.

A record is who sent it, when and what: an entry, or the number of a client who is forgiven. All numbers are
little-endian. Keys of cells are sent though they follow from the embedding: the others need not work them out again.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.history.entries import Entry
from service.history.fingerprints import SKETCH
from service.history.projections import CELLS

__all__ = ["FORMAT", "Record", "packed", "unpacked"]

FORMAT = 2
"""Part of the stream's name; a record of another format is never read."""
_HEAD = struct.Struct("<QdB")
_ENTRY = struct.Struct("<QQIidBB")
_CLIENT = struct.Struct("<Q")
_IS_ENTRY, _IS_FORGIVEN = 1, 2
_MOST_SKETCHES = 3


@dataclass(frozen=True, slots=True)
class Record:
    """What one process tells the others."""

    sender: int
    """A random number of the process."""
    sent: float
    """When, by the stream's clock, in seconds."""
    what: Entry | int
    """An entry, whose time is when it was sent; or the number of the client who is forgiven."""


def packed(record: Record) -> bytes:
    """The record as bytes."""
    what = record.what
    if isinstance(what, int):
        return _HEAD.pack(record.sender, record.sent, _IS_FORGIVEN) + _CLIENT.pack(what)
    fields = (what.client, what.digest, what.generation, what.label, what.margin, what.marks, len(what.sketches))
    arrays = [np.asarray(keys, "<u4") for keys in (*what.sketches, what.cells, what.own_cells)]
    embedding = what.embedding.astype("<i2")
    head = _HEAD.pack(record.sender, record.sent, _IS_ENTRY) + _ENTRY.pack(*fields)
    return b"".join([head, *(array.tobytes() for array in arrays), embedding.tobytes()])


def unpacked(content: bytes, dimensions: int) -> Record:
    """What `packed` made into bytes.

    Raises:
        ValueError: they are none of it.
    """
    try:
        sender, sent, kind = _HEAD.unpack_from(content)
        if kind == _IS_FORGIVEN and len(content) == _HEAD.size + _CLIENT.size:
            return Record(sender, sent, _CLIENT.unpack_from(content, _HEAD.size)[0])
        client, digest, generation, label, margin, marks, count = _ENTRY.unpack_from(content, _HEAD.size)
    except struct.error as error:
        raise ValueError(f"expected a record, got {len(content)} bytes: {error}") from error
    start = _HEAD.size + _ENTRY.size
    keys = count * SKETCH + 2 * CELLS
    if kind != _IS_ENTRY or not 1 <= count <= _MOST_SKETCHES or len(content) != start + 4 * keys + 2 * dimensions:
        raise ValueError(f"expected a record of {dimensions} dimensions, got {len(content)} bytes of kind {kind}")
    found = np.frombuffer(content, "<u4", keys, start).astype(np.uint32)
    embedding: NDArray[np.int16] = np.frombuffer(content, "<i2", dimensions, start + 4 * keys)
    entry = Entry(
        client=client,
        digest=digest,
        generation=generation,
        sketches=tuple(found[: count * SKETCH].reshape(count, SKETCH)),
        cells=found[-2 * CELLS : -CELLS],
        own_cells=found[-CELLS:],
        embedding=embedding.astype(np.int16),
        label=label,
        margin=margin,
        marks=marks,
        now=sent,
    )
    return Record(sender, sent, entry)
