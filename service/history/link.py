"""The stream in Redis: one round trip a call, which ends in time or fails."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from service.errors import SetupError

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:  # the extra `redis`
    redis = None

__all__ = ["START", "Id", "Item", "Link", "LinkLost"]

TIMEOUT_S = 0.05
"""For an answer; `socket_timeout` of the URL takes its place."""
CONNECT_S = 0.25
"""For a connection, which no query waits for; `socket_connect_timeout` of the URL takes its place."""
FIELD = b"r"

Id: TypeAlias = tuple[int, int]
"""Of an entry: milliseconds of Redis's clock, and a number within one."""
Item: TypeAlias = tuple[Id, bytes]
"""An entry; b"" where it is none of ours."""

START: Id = (0, 0)


class LinkLost(Exception):
    """The stream is not to be had; the text says why, without addresses or passwords."""


class Link:
    """The stream of one history."""

    def __init__(self, url: str, *, stream: str, most: int) -> None:
        """Connects with the first call only.

        Args:
            url: as redis.Redis.from_url takes it.
            most: entries that are kept, about.

        Raises:
            SetupError: the package `redis` is not installed.
        """
        if redis is None:
            raise SetupError("a history in Redis wants the package redis: pip install 'advsentry[redis]'")
        self.stream, self.most = stream, most
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )

    def seconds(self) -> float:
        """Redis's clock."""
        with _told():
            seconds, micros = self._client.time()
        return float(seconds) + float(micros) / 1e6

    def last(self) -> Id:
        """Of the last entry; `START` where there is none."""
        with _told():
            found = self._client.xrevrange(self.stream, count=1)
        return _items(found)[0][0] if found else START

    def read(self, after: Id, *, count: int, before: Id | None = None) -> list[Item]:
        """The first entries after one, and before one."""
        with _told():
            end = "+" if before is None else f"({_text(before)}"
            return _items(self._client.xrange(self.stream, f"({_text(after)}", end, count))

    def append(self, contents: Sequence[bytes], *, after: Id, count: int) -> tuple[list[Item], list[Id]]:
        """Appends entries; gives theirs, and the first that others appended after one.

        Nobody can come in between, so fewer than `count` are all.
        """
        pipe = self._client.pipeline(transaction=True)
        pipe.xrange(self.stream, f"({_text(after)}", "+", count)
        for content in contents:
            pipe.xadd(self.stream, {FIELD: content}, maxlen=self.most, approximate=True)
        with _told():
            found, *made = pipe.execute()
        return _items(found), [_id(one) for one in made]

    def tend(self, *, oldest: float, lasts_s: float) -> None:
        """Drops what is older than a time, and all of it when nobody has come back for so long."""
        pipe = self._client.pipeline(transaction=False)
        pipe.xtrim(self.stream, minid=f"{max(0, int(1000 * oldest))}-0", approximate=True)
        pipe.expire(self.stream, int(lasts_s) + 1)
        with _told():
            pipe.execute()

    def close(self) -> None:
        """Leaves, but for a call that another thread waits for; the next call connects anew."""
        self._client.connection_pool.disconnect(inuse_connections=False)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise LinkLost(_reason(error)) from error


def _reason(error: Exception) -> str:
    """In words of our own: an error's text may hold an address or a user's name."""
    named = redis.exceptions
    for kind, reason in (
        ((named.AuthenticationError, named.AuthorizationError, named.NoPermissionError), "Redis refuses this user"),
        ((named.TimeoutError,), "Redis does not answer in time"),
        ((named.ReadOnlyError,), "Redis is a replica that takes no writes"),
        ((named.OutOfMemoryError,), "Redis has no memory left"),
        ((named.BusyLoadingError,), "Redis is loading"),
        ((named.ConnectionError,), "Redis cannot be reached"),
    ):
        if isinstance(error, kind):
            return reason
    word = str(error).rpartition("caused error: ")[2].split(" ")[0]  # in a pipeline the command comes before it
    return f"Redis answers {word}" if word.isupper() and word.isalpha() else "Redis answers with an error"


def _items(found: Any) -> list[Item]:
    return [(_id(one), (fields or {}).get(FIELD, b"")) for one, fields in found]


def _id(text: bytes) -> Id:
    millis, _, number = text.partition(b"-")
    return int(millis), int(number)


def _text(one: Id) -> str:
    return f"{one[0]}-{one[1]}"
