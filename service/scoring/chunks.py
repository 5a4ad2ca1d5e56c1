"""A piece cut into chunks, each of which is decoded, scored and written as one."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from service.errors import InvalidRequest
from service.scoring.archives import Member, members
from service.scoring.inputs import Piece

__all__ = ["Chunk", "Item", "Reading", "chunks"]

CHUNK_BYTES = 8 * 2**20
"""Of the encoded images that a chunk carries; one that is reached ends it."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How pieces are read."""

    root: str
    """What relative paths are relative to."""
    column: str
    """Of the images in Parquet files; empty for the only one."""
    most_bytes: int
    """Of an encoded image."""
    most_images: int
    """Of a chunk."""
    shard_images: int
    """A chunk never lies in two shards of the output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image as it is read."""

    path: str
    data: bytes | None
    """None: an image file, or no image because of `error`."""
    error: InvalidRequest | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Neighbouring images of one shard; the last one of a piece has none, and tells how many the piece has."""

    piece: int
    first: int
    """Number of the first image in its piece."""
    items: tuple[Item, ...]
    total: int | None
    weight: float
    """Bytes of files behind it, those passed over included."""


def chunks(piece: Piece, reading: Reading, finished: Collection[int]) -> Iterator[Chunk]:
    """The images of a piece in their order, without those of the shards that are finished.

    Args:
        finished: numbers of shards of this piece.
    """
    held: list[Item] = []
    number, held_bytes, weight = 0, 0, 0.0

    def chunk(total: int | None = None) -> Chunk:
        return Chunk(piece=piece.number, first=number - len(held), items=tuple(held), total=total, weight=weight)

    for member in _members(piece, reading):
        weight += member.weight
        if number // reading.shard_images not in finished:
            item = _item(member)
            held.append(item)
            held_bytes += len(item.data or b"")
        number += 1
        if held and (
            len(held) == reading.most_images or held_bytes >= CHUNK_BYTES or number % reading.shard_images == 0
        ):
            yield chunk()
            held, held_bytes, weight = [], 0, 0.0
    if held:
        yield chunk()
        held, weight = [], 0.0
    yield chunk(total=number)


def _members(piece: Piece, reading: Reading) -> Iterator[Member]:
    for entry in piece.entries:
        yield from members(entry, root=reading.root, column=reading.column, most_bytes=reading.most_bytes)


def _item(member: Member) -> Item:
    try:
        return Item(path=member.path, data=member.load(), error=None)
    except InvalidRequest as error:
        return Item(path=member.path, data=None, error=error)
