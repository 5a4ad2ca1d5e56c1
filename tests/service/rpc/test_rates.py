"""service/rpc/rates.py: images a second, images under way, and tables that nobody can blow up."""

import pytest

from service.errors import Overloaded
from service.rpc.call import Call
from service.rpc.rates import Bucket, Rates, peer_key
from service.rpc.shares import FairShare, Share


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_gives_its_burst_and_then_its_rate(clock: Clock) -> None:
    bucket = Bucket(10.0, 20.0, clock)
    bucket.take(20)
    for waits, more in ((0.1, 1), (0.5, 5)):
        with pytest.raises(Overloaded, match=r"your rate of 10 images/s; come back in") as caught:
            bucket.take(more)
        assert waits * 1000 <= caught.value.retry_after_ms <= waits * 1000 + 2
        clock.now += caught.value.retry_after_ms / 1000
        bucket.take(more)
    taken = 0
    for _ in range(1000):  # ten seconds
        clock.now += 0.01
        try:
            bucket.take(1)
            taken += 1
        except Overloaded:
            pass
    assert 99 <= taken <= 101


def test_a_call_larger_than_the_burst_waits_for_a_full_bucket_and_is_paid_for(clock: Clock) -> None:
    bucket = Bucket(10.0, 10.0, clock)
    bucket.take(1)
    with pytest.raises(Overloaded):
        bucket.take(100)
    clock.now += 0.1
    bucket.take(100)
    with pytest.raises(Overloaded) as caught:
        bucket.take(1)
    assert 9000 < caught.value.retry_after_ms <= 9200  # it owes 90 images


def test_an_idle_bucket_saves_no_more_than_its_burst(clock: Clock) -> None:
    bucket = Bucket(10.0, 5.0, clock)
    clock.now += 1000
    bucket.take(5)
    with pytest.raises(Overloaded):
        bucket.take(1)


def test_each_caller_has_a_bucket_and_some_have_none(clock: Clock) -> None:
    rates = Rates(5.0, clock=clock)
    assert rates.bucket("a") is rates.bucket("a") is not rates.bucket("b")
    assert rates.bucket("free", 0.0) is None
    assert Rates(0.0).bucket("a") is None
    slow = Rates(0.0).bucket("a", 0.5)
    assert slow is not None
    assert (slow.per_s, slow.burst) == (0.5, 1.0)
    own = rates.bucket("a", 7.0, 70.0)  # a new file says so
    assert own is rates.bucket("a", 7.0, 70.0)
    assert own is not None
    assert (own.per_s, own.burst) == (7.0, 70.0)


def test_a_flood_of_addresses_neither_grows_the_table_nor_drives_others_out(clock: Clock) -> None:
    rates = Rates(1.0, most=100, clock=clock)
    honest = rates.bucket("honest")
    assert honest is not None
    honest.take(1)
    refused = 0
    for number in range(10_000):
        bucket = rates.bucket(f"flood{number}")
        assert bucket is not None
        try:
            bucket.take(1)
        except Overloaded:
            refused += 1
    assert len(rates) == 100
    assert rates.bucket("honest") is honest
    assert refused == 10_000 - 99 - 1  # 99 had buckets of their own, one took the token of the shared one
    clock.now += 10  # all are full again: any may go
    assert rates.bucket("newcomer") is not rates.bucket("another")
    assert len(rates) == 100


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:%5B::1%5D:5000", "::/64"),
        ("ipv6:[2001:db8:1:2:3::6]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::7%5D:1", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:5000", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::/64"),
        ("unix:", "unix"),
        ("", ""),
        ("ipv4:nonsense:1", "ipv4"),
    ],
)
def test_a_key_is_what_one_customer_has(peer: str, key: str) -> None:
    assert peer_key(peer) == key


def test_what_is_refused_by_its_share_or_its_rate_costs_nothing_with_the_other() -> None:
    everyone = FairShare(2)
    Share(everyone, "other").take(1)
    call = Call(share=Share(everyone, "a"), bucket=Bucket(0.001, 10.0))
    call.takes(items=2, size_bytes=1)
    for _ in range(20):
        with pytest.raises(Overloaded, match="while others wait"):
            call.takes(items=1, size_bytes=1)
    call.gave(2)
    call.takes(items=2, size_bytes=1)
    call.gave(2)
    with pytest.raises(Overloaded, match="over your rate"):
        call.takes(items=7, size_bytes=1)
    assert everyone._held == {"other": 1}
    call.takes(items=6, size_bytes=1)
