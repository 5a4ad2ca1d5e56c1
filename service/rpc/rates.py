"""How many images a caller may send in a second, and how many calls it may have open."""

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote

from service.errors import Overloaded

__all__ = ["Bucket", "Rates", "Slots", "peer_key"]

MOST_BUCKETS = 10_000


class Bucket:
    """A token bucket: `per_s` tokens come in each second, up to `burst`; an image takes one.

    A call with more images than `burst` is let in by a full bucket and paid for afterwards, so that it is neither
    refused for ever nor cheaper.
    """

    __slots__ = ("_clock", "_since", "_tokens", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes rates above 0; starts full."""
        self.per_s, self.burst = per_s, burst
        self._clock = clock
        self._tokens, self._since = burst, clock()

    @property
    def is_full(self) -> bool:
        """Whether it is as good as new."""
        return self.fits(self.burst)

    def fits(self, items: float) -> bool:
        """Whether so many images may be taken now."""
        return self._wait_s(items) == 0.0

    def take(self, items: int) -> None:
        """Takes tokens for so many images.

        Raises:
            Overloaded: there are too few; says when there will be enough. None is taken then.
        """
        wait_s = self._wait_s(items)
        if wait_s > 0:
            raise Overloaded(
                f"over your rate of {self.per_s:g} images/s; come back in {wait_s:.3f} s",
                retry_after_ms=max(1, int(1000 * wait_s) + 1),
            )
        self._tokens -= items

    async def room(self, items: int) -> None:
        """Waits until so many images may be taken."""
        while (wait_s := self._wait_s(items)) > 0:
            await asyncio.sleep(wait_s)

    def _wait_s(self, items: float) -> float:
        now = self._clock()
        self._tokens = min(self.burst, self._tokens + (now - self._since) * self.per_s)
        self._since = now
        return max(0.0, (min(items, self.burst) - self._tokens) / self.per_s)


class Rates:
    """A bucket for each caller, in a table that nobody can make grow or make forget.

    Only a bucket that is full again is dropped for a newcomer, which loses nothing. While there is none, newcomers
    share one bucket, so a flood of addresses shuts out itself and not those who were there before.
    """

    def __init__(self, per_s: float, *, most: int = MOST_BUCKETS, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the rate of whoever has none of its own, in images/s; 0 for no limit."""
        self._per_s = per_s
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._shared: Bucket | None = None

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, key: str, per_s: float | None = None, burst: float | None = None) -> Bucket | None:
        """The bucket of a caller; None where it may send as much as it likes.

        Args:
            per_s: its own rate; None for that of the server, 0 for no limit.
            burst: what it may send at once; None or 0 for one second's worth, one image at least.
        """
        rate = self._per_s if per_s is None else per_s
        if rate <= 0:
            return None
        most = burst or max(1.0, rate)
        found = self._buckets.get(key)
        if found is None:
            return self._new(key, rate, most)
        self._buckets.move_to_end(key)
        found.per_s, found.burst = rate, most  # a new file may say other rates
        return found

    def _new(self, key: str, rate: float, most: float) -> Bucket:
        if len(self._buckets) >= self._most:
            oldest = next(iter(self._buckets))
            if not self._buckets[oldest].is_full:
                if self._shared is None:
                    self._shared = Bucket(rate, most, self._clock)
                return self._shared
            del self._buckets[oldest]
        made = self._buckets[key] = Bucket(rate, most, self._clock)
        return made


class Slots:
    """How many calls each caller has open: once half of all are taken, no caller may have more than a quarter.

    A call may do nothing for as long as it likes, as an idle stream does; so one caller could take all there are.
    """

    def __init__(self, most: int) -> None:
        """Takes the calls of all callers together."""
        self._most = most
        self._all = 0
        self._of: dict[str, int] = {}  # of callers with any

    def take(self, key: str) -> None:
        """Counts a call.

        Raises:
            Overloaded: the caller has too many.
        """
        own = self._of.get(key, 0)
        if 2 * self._all >= self._most and 4 * own >= self._most:
            raise Overloaded(f"you have {own} calls open; end some of them", retry_after_ms=1000)
        self._of[key] = own + 1
        self._all += 1

    def give(self, key: str) -> None:
        """Counts it no more."""
        self._all -= 1
        self._of[key] -= 1
        if not self._of[key]:
            del self._of[key]


def peer_key(peer: str) -> str:
    """The address of a connection as gRPC words it: without its port, and of IPv6 the 64 bits that one customer has.

    >>> peer_key("ipv4:192.0.2.1:5000"), peer_key("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5000")
    ('192.0.2.1', '2001:db8:1:2::/64')
    """
    return _network(peer.rpartition(":")[0])


@lru_cache(maxsize=1024)
def _network(peer: str) -> str:
    kind, _, host = unquote(peer).partition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return kind
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
