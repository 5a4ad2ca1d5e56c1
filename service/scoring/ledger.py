"""What is finished of a run: a line a shard, behind one line of what it was told. `kill -9` may come at any time."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service.errors import SetupError

__all__ = ["MANIFEST", "Finished", "Ledger", "Totals", "shard_name"]

MANIFEST = "_manifest.jsonl"
"""Readers of Parquet folders pass over names that begin with an underscore or a dot."""
LEFT_OVER = ".shard-*.parquet.tmp"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A shard of the output that is whole and in its place."""

    piece: int
    shard: int
    size: int
    """Bytes of the file."""
    images: int
    errors: int
    adversarial: int


def shard_name(piece: int, shard: int) -> str:
    """The file of a shard.

    >>> shard_name(3, 0)
    'shard-000003-0000.parquet'
    """
    return f"shard-{piece:06d}-{shard:04d}.parquet"


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Of all finished shards."""

    images: int = 0
    errors: int = 0
    adversarial: int = 0
    shards: int = 0

    def plus(self, one: Finished) -> "Totals":
        """With one shard more."""
        return Totals(
            images=self.images + one.images,
            errors=self.errors + one.errors,
            adversarial=self.adversarial + one.adversarial,
            shards=self.shards + 1,
        )


class Ledger:
    """The manifest of an output folder, held by one run at a time. A shard is in it only after its file is in place."""

    def __init__(self, folder: Path, told: Mapping[str, object]) -> None:
        """Takes the folder, and reads what is finished there.

        Args:
            told: everything that the answers and their order follow from; as JSON.

        Raises:
            SetupError: the folder cannot be used, another run holds it, it was begun with other settings or inputs, or
                a finished shard is gone.
        """
        self.folder = folder
        self.totals = Totals()
        self._shards: dict[int, set[int]] = {}
        self._ended: set[int] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / MANIFEST).open("a+b")
        except OSError as error:
            raise SetupError(f"--out {folder}: cannot be written: {error.strerror}") from error
        try:
            self._take(json.loads(json.dumps(told)))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def has_ended(self, piece: int) -> bool:
        """Whether all of a piece is finished."""
        return piece in self._ended

    def shards(self, piece: int) -> frozenset[int]:
        """The shards of a piece that are finished."""
        return frozenset(self._shards.get(piece, ()))

    def finish(self, one: Finished) -> None:
        """Notes a shard whose file is in place."""
        self._note(one)
        self._append(asdict(one))

    def end(self, piece: int) -> None:
        """Notes that all of a piece is finished."""
        self._ended.add(piece)
        self._append({"ended": piece})

    def _take(self, told: Mapping[str, Any]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SetupError(
                f"--out {self.folder}: another run writes there; wait for it, or choose another"
            ) from error
        except OSError as error:  # such as a network's disk without locks
            raise SetupError(f"--out {self.folder}: cannot be locked: {error.strerror}; choose another disk") from error
        lines = self._whole_lines()
        if not lines:
            self._check_empty()
            self._append(told)
            return
        self._check_told(lines[0], told)
        for line in lines[1:]:
            if "ended" in line:
                self._ended.add(line["ended"])
            else:
                self._note(self._checked(line))
        for left in self.folder.glob(LEFT_OVER):
            left.unlink()

    def _whole_lines(self) -> list[dict[str, Any]]:
        """The lines that were written whole; what a kill left behind them is cut off."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise SetupError(
                f"{self.folder / MANIFEST}: no manifest of a run: {error}; choose another --out"
            ) from error

    def _check_empty(self) -> None:
        found = next((one.name for one in self.folder.iterdir() if one.name != MANIFEST), None)
        if found is not None:
            (self.folder / MANIFEST).unlink()
            raise SetupError(f"--out {self.folder}: expected an empty folder or that of an earlier run, found {found}")

    def _check_told(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for name in now.keys() | before.keys():
            if before.get(name) != now.get(name):
                raise SetupError(
                    f"--out {self.folder}: was begun with {name} {before.get(name)}, this run has {now.get(name)}; go "
                    "on with the same, or choose another --out"
                )

    def _checked(self, line: Mapping[str, Any]) -> Finished:
        one = Finished(**line)
        path = self.folder / shard_name(one.piece, one.shard)
        found = path.stat().st_size if path.is_file() else None
        if found != one.size:
            got = "none" if found is None else f"{found}"
            raise SetupError(f"{path}: expected the finished shard of {one.size} bytes, got {got}; put it back")
        return one

    def _note(self, one: Finished) -> None:
        self._shards.setdefault(one.piece, set()).add(one.shard)
        self.totals = self.totals.plus(one)

    def _append(self, line: Mapping[str, object]) -> None:
        try:
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SetupError(f"--out {self.folder}: cannot be written: {error.strerror}") from error
