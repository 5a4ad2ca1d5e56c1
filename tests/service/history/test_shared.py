"""Several processes with one history: a real Redis server, and what befalls it."""

import math
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.redis_process import RedisProcess, wait_for
from service.history import shared
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.history import History
from service.history.opening import open_history
from service.history.shared import SharedHistory
from service.history.types import Observation, Query
from tests.service.history import toy

pytest.importorskip("redis", reason="the package redis (the extra `redis`) is not installed")
pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None,
    reason="there is no redis-server here (Debian: apt-get install redis-server)",
)
ROOT = Path(__file__).parents[3]
BOUNDS = Bounds(entries=2000)
KEY = bytes(range(32))
LEVEL = 0.05
Opened = Callable[..., SharedHistory]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    made = RedisProcess(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def opened(server: RedisProcess, calibration: Calibration, tmp_path: Path) -> Iterator[Opened]:
    """Opens what another process would."""
    secret, made = tmp_path / "secret", list[SharedHistory]()
    secret.touch(mode=0o600)
    secret.write_text(KEY.hex(), encoding="utf-8")

    def opener(url: str = server.url, bounds: Bounds = BOUNDS, *, waits: bool = True) -> SharedHistory:
        history = open_history(url, calibration, dimensions=toy.DIMENSIONS, bounds=bounds, secret=secret)
        assert isinstance(history, SharedHistory)
        made.append(history)
        assert not waits or history._has_begun.wait(60.0)
        return history

    yield opener
    for history in made:
        history.close()


def search(seed: int = 102, count: int = 40) -> list[Query]:
    return toy.stream(np.stack(toy.asked(toy.square, count, seed)), "searcher", start=0.0, every=0.0)


def traffic(count: int, *, seed: int = 1) -> list[Query]:
    return toy.stream(toy.pictures(np.random.default_rng(seed), count), "customer", start=0.0, every=0.0)


def stream_of(server: RedisProcess) -> bytes:
    (name,) = server.client().keys()
    return bytes(name)


def timeless(seen: list[Observation]) -> list[Observation]:
    """Without what the machine's pace decides."""
    return [
        replace(
            one, **{scope: part and replace(part, per_s=0.0) for scope, part in vars(one).items() if scope in SCOPES}
        )
        for one in seen
    ]


SCOPES = ("own", "everyone")


def test_the_flags_of_several_processes_are_those_of_one(opened: Opened, calibration: Calibration) -> None:
    alone = History(calibration, dimensions=toy.DIMENSIONS, bounds=BOUNDS, secret=KEY)
    processes = [opened(), opened(), opened()]
    queries = [query for pair in zip(search(102), traffic(40), search(103), strict=True) for query in pair]
    queries += queries[:10]  # repeats, which another process may have seen first
    generator, place, seen, expected = np.random.default_rng(0), 0, list[Observation](), list[Observation]()
    while place < len(queries):
        batch = queries[place : place + int(generator.integers(1, 6))]
        seen += processes[generator.integers(len(processes))].observe_all(batch)
        # By the same clock, since the fingerprints' secret, and so how many keys are shared by chance, follows from it.
        expected += alone.observe_all([replace(query, now=processes[0]._now()) for query in batch])
        place += len(batch)
    assert timeless(seen) == timeless([replace(one, repeats=min(1, one.repeats)) for one in expected])
    assert min(one.p_value for one in seen) <= LEVEL
    assert not any(one.is_degraded for one in processes)


def test_a_search_by_way_of_another_process_is_known(opened: Opened, server: RedisProcess, tmp_path: Path) -> None:
    ours, queries = opened(), search(count=31)
    (tmp_path / "calibration").write_bytes(ours._replica.calibration.to_bytes())
    words = [server.url, str(tmp_path / "calibration"), str(tmp_path / "secret"), "30"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.service.history.another_process", *words], cwd=ROOT, check=False, timeout=120
    )
    assert done.returncode == 0
    seen = ours.observe(queries[30])
    assert seen.own
    assert seen.own.size > 25


def test_a_process_without_queries_follows_the_others(opened: Opened) -> None:
    busy, idle = opened(), opened()
    busy.observe_all(traffic(20))
    wait_for(lambda: len(idle) == 20)


def test_a_new_process_knows_what_came_before_it(opened: Opened) -> None:
    first, queries = opened(), search(count=41)
    for query in queries[:40]:
        first.observe(query)
    first.observe_all(traffic(200))
    first.leave()
    second = opened()
    assert not second.is_degraded
    assert len(second) == len(first)
    assert timeless([second.observe(queries[40])]) == timeless([first.observe(queries[40])])


def test_a_client_is_forgiven_in_all_processes(opened: Opened) -> None:
    one, other = opened(), opened()
    *queries, last = search(count=50)
    seen = [one.observe(query) for query in queries]
    assert seen[-1].statistic > 0
    other.forgive("searcher")
    after = one.observe(last)
    assert after.own
    assert after.own.label_flips + after.own.pixel_links <= 2


class Heard:
    """Listens to what others observe."""

    def __init__(self) -> None:
        self.flags: list[tuple[int, Observation]] = []
        self.forgiven: list[int] = []
        self.times: list[float] = []

    def saw(self, client: int, observation: Observation, now: float) -> None:
        assert now > 0
        self.times.append(now)
        if observation.p_value < 1:
            self.flags.append((client, observation))

    def forgave(self, client: int, components: Collection[int]) -> None:
        assert components
        self.forgiven.append(client)


def test_each_hears_what_the_others_observed_and_nobody_his_own(opened: Opened) -> None:
    one, other, heard = opened(), opened(), (Heard(), Heard())
    one.listen(heard[0])
    other.listen(heard[1])
    seen = [one.observe(query) for query in search(count=50)]
    flagged = [observation for observation in seen if observation.p_value < 1]
    assert min(observation.p_value for observation in flagged) <= LEVEL
    wait_for(lambda: len(heard[1].flags) == len(flagged))
    assert timeless([observation for _, observation in heard[1].flags]) == timeless(flagged)
    assert {client for client, _ in heard[1].flags} == {other.number("searcher")} == {one.number("searcher")}
    assert heard[0].flags == []
    other.forgive("searcher")
    wait_for(lambda: heard[0].forgiven == [one.number("searcher")])
    late = Heard()
    third = opened()
    third.listen(late)
    assert late.forgiven == [one.number("searcher")]
    late.flags.clear()
    one.observe_all(search(103))
    wait_for(lambda: len(late.flags) > 0)


def test_who_comes_late_hears_what_was_before_him(opened: Opened) -> None:
    one, heard = opened(), Heard()
    seen = [one.observe(query) for query in search(count=50)]
    late = opened()
    late.listen(heard)
    assert len(heard.flags) == sum(observation.p_value < 1 for observation in seen) > 0


def test_the_time_of_what_others_observed_is_by_the_clock_of_who_hears(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, heard = opened(), opened(), Heard()
    other.listen(heard)
    plain = time.time
    monkeypatch.setattr(time, "time", lambda: plain() - 7200.0)
    one.observe_all(search(count=20))
    wait_for(lambda: len(heard.times) > 0)
    assert np.abs(np.array(heard.times) - time.time()).max() < 60.0


def test_processes_of_other_bounds_do_not_mix(opened: Opened, server: RedisProcess) -> None:
    one, other = opened(), opened(bounds=Bounds(entries=3000))
    one.observe_all(traffic(3))
    other.observe_all(traffic(4))
    assert len(server.client().keys()) == 2
    assert (len(one), len(other)) == (3, 4)


def edited(image: np.ndarray) -> np.ndarray:
    changed = image.copy()
    changed[:4, :4] = 0
    return changed


def test_all_replace_the_secret_at_the_same_entry(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks that say what time it is at Redis are moved by hand."""
    monkeypatch.setattr(shared, "LATE_S", math.inf)
    monkeypatch.setattr(shared, "TEND_S", math.inf)
    bounds = Bounds(entries=500, window_s=100.0, rotate_s=300.0)
    one, other = opened(bounds=bounds), opened(bounds=bounds)
    first, *images = toy.pictures(np.random.default_rng(0), 13)
    one.observe(toy.query(first, "a", 0.0))
    ends = 300.0 * (2 + one._replica.clock // 300.0)
    missed, generations = 0, []
    for place, now in enumerate((ends - 90, ends - 1, ends + 1, ends + 90, ends + 300 - 1, ends + 300 + 1)):
        for process in (one, other):
            process._ahead = now - time.monotonic()
            process.observe(toy.query(images[2 * place], "a", 0.0))
            process.observe(toy.query(edited(images[2 * place]), "a", 0.0))
        before, after = (one, other) if place % 2 else (other, one)
        before.observe(toy.query(images[2 * place + 1], "a", 0.0))
        seen = after.observe(toy.query(edited(images[2 * place + 1]), "a", 0.0))
        missed += not (seen.own and seen.own.pixel_links)
        generations.append(one._replica.generations)
        assert other._replica.generations == generations[-1]
    assert missed == 0
    number = int(ends // 300)
    assert generations == [
        (number - 1, number),
        (number - 1, number),
        (number,),
        (number,),
        (number, number + 1),
        (number + 1,),
    ]


def test_nothing_in_redis_can_be_read(opened: Opened, server: RedisProcess, tmp_path: Path) -> None:
    history, queries = opened(), traffic(50)
    named = [replace(query, client=f"somebody-{number}") for number, query in enumerate(queries)]
    entries = history._replica.keyed(named)
    history.observe_all(named)
    history.forgive("somebody-7")
    assert server.client().xlen(stream_of(server)) == 51
    server.client().config_set("rdbcompression", "no")
    server.client().save()
    found = (tmp_path / "dump.rdb").read_bytes()
    assert stream_of(server) in found
    sought = [KEY, KEY.hex().encode(), b"somebody", history._replica._digest_key]
    for query, entry in zip(named, entries, strict=True):
        sought += [query.image.tobytes()[:16], query.image[5].tobytes()[:16], query.embedding.tobytes()[:16]]
        sought += [
            entry.digest.to_bytes(8, "little"),
            entry.client.to_bytes(8, "little"),
            entry.sketches[0].tobytes()[-16:],
        ]
        sought += [entry.embedding.tobytes()[:16], entry.cells.tobytes()[:16]]
    assert not [one for one in sought if one in found]


def test_what_is_none_of_ours_is_skipped_and_told(
    opened: Opened, server: RedisProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared, "TEND_S", 0.05)
    one, other = opened(), opened()
    one.observe_all(traffic(2))
    client, name = server.client(), stream_of(server)
    (_, fields), *_ = client.xrange(name)
    changed = bytearray(fields[b"r"])
    changed[100] ^= 1
    garbage = [b"", b"r", bytes(len(changed)), bytes(changed), fields[b"r"][:-1], fields[b"r"] * 1000]
    for content in garbage:
        client.xadd(name, {b"r": content})
    client.xadd(name, {b"something": b"else", b"and": b"more"})
    seen = other.observe_all(traffic(2, seed=2))
    assert [one.is_repeat for one in seen] == [False, False]
    assert other.skipped == len(garbage) + 1
    wait_for(lambda: any("entries of the stream that nobody" in record.message for record in caplog.records))
    assert len(other) == 4
    assert not other.is_degraded


def test_a_record_that_is_played_again_later_is_skipped(opened: Opened, server: RedisProcess) -> None:
    one, other = opened(), opened()
    *queries, last = search(count=50)
    for query in queries:
        one.observe(query)
    one.forgive("searcher")
    client, name = server.client(), stream_of(server)
    ((number, fields),) = client.xrevrange(name, count=1)
    for query in search(count=80)[50:]:
        one.observe(query)
    client.xadd(name, fields, id=f"{int(number.split(b'-')[0]) + 700_000}-0")
    seen = other.observe(last)
    assert other.skipped == 1
    assert seen.own
    assert seen.own.pixel_links > 10, "what spoke against the client still does"


def test_the_stream_is_bounded(opened: Opened, server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "TEND_S", 0.1)
    history = opened(bounds=Bounds(entries=256))
    for seed in range(4):
        history.observe_all(traffic(100, seed=seed))
    assert 256 <= server.client().xlen(stream_of(server)) <= 256 + 100
    wait_for(lambda: 0 < server.client().ttl(stream_of(server)) <= 3900)


def test_what_is_older_than_the_window_leaves_the_stream(
    opened: Opened, server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "TEND_S", 0.05)
    history = opened(bounds=Bounds(entries=2000, window_s=0.1))
    history.observe_all(traffic(150))
    wait_for(lambda: server.client().xlen(stream_of(server)) < 100)  # nodes of some entries go as a whole


def comes_back(*histories: SharedHistory) -> None:
    wait_for(lambda: not any(history.is_degraded for history in histories))


def quick(history: SharedHistory, queries: list[Query]) -> list[Observation]:
    """Observes; far less than what the server hangs for, and enough for a busy machine."""
    began = time.monotonic()
    seen = [history.observe(query) for query in queries]
    assert time.monotonic() - began < 10
    return seen


def test_redis_is_killed_and_comes_back_empty(opened: Opened, server: RedisProcess) -> None:
    one, other, queries = opened(), opened(), search(count=50)
    for query in queries[:20]:
        one.observe(query)
    wait_for(lambda: len(other) == 20)
    server.kill()
    seen = quick(one, queries[20:40])
    assert one.is_degraded
    assert one.degraded_reason == "Redis cannot be reached"
    assert seen[-1].own
    assert seen[-1].own.size >= 35, "what was there before Redis went still is"
    assert one.losses > 0
    server.start()
    comes_back(one, other)
    assert one.degraded_reason == ""
    last = other.observe(queries[40])
    assert last.own
    assert last.own.size >= 35, "what came meanwhile was sent when Redis was back"
    third = opened()
    wait_for(lambda: len(third) == 21)


def test_redis_hangs(opened: Opened, server: RedisProcess) -> None:
    one, other = opened(hasty(server)), opened()
    one.observe_all(traffic(5))
    server.send(signal.SIGSTOP)
    try:
        seen = quick(one, traffic(5, seed=2) + traffic(5))
        assert [query.is_repeat for query in seen] == [False] * 5 + [True] * 5
        assert one.is_degraded
        assert one.degraded_reason == "Redis does not answer in time"
    finally:
        server.send(signal.SIGCONT)
    comes_back(one, other)
    wait_for(lambda: len(other) == 10)


def test_redis_hangs_again_and_again(opened: Opened, server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the thread that follows the others asks Redis, too."""
    for name, seconds in (("TEND_S", 0.0), ("POLL_S", 0.02), ("MOST_WAIT_S", 0.1)):
        monkeypatch.setattr(shared, name, seconds)
    histories, queries = (opened(hasty(server)), opened(hasty(server))), traffic(60)
    for start in range(0, len(queries), 6):
        server.send(signal.SIGSTOP)
        quick(histories[0], queries[start : start + 3])
        server.send(signal.SIGCONT)
        quick(histories[1], queries[start + 3 : start + 6])
        comes_back(*histories)
    wait_for(lambda: [len(history) for history in histories] == [60, 60])
    assert [history.skipped for history in histories] == [0, 0]


def hasty(server: RedisProcess) -> str:
    return server.url.replace("timeout=1", "timeout=0.05")


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("requirepass", "another", "Redis refuses this user"),
        ("maxmemory", "1", "Redis has no memory left"),
        ("min-replicas-to-write", "3", "Redis answers NOREPLICAS"),
    ],
)
def test_redis_refuses(opened: Opened, server: RedisProcess, option: str, value: str, reason: str) -> None:
    client = server.client()
    before = client.config_get(option)[option]
    history = opened()
    client.config_set(option, value)
    client.client_kill_filter(_type="normal", skipme=True)  # who is let in already stays so
    quick(history, traffic(3))
    assert history.is_degraded
    wait_for(lambda: history.degraded_reason == reason)
    client.config_set(option, before)
    comes_back(history)


def test_a_replica_that_takes_no_writes_is_said(opened: Opened, server: RedisProcess) -> None:
    history = opened()
    server.client().replicaof("127.0.0.1", 1)
    quick(history, traffic(3))
    wait_for(lambda: history.degraded_reason == "Redis is a replica that takes no writes")
    server.client().replicaof("NO", "ONE")
    comes_back(history)


def test_a_stream_that_is_dropped_or_something_else_is_borne(opened: Opened, server: RedisProcess) -> None:
    one, other = opened(), opened()
    one.observe_all(traffic(5))
    wait_for(lambda: len(other) == 5)
    name = stream_of(server)
    server.client().flushall()
    other.observe_all(traffic(5, seed=2))
    one.observe_all(traffic(5, seed=3))
    assert (len(one), len(other)) == (15, 10)
    wait_for(lambda: len(other) == 15)
    assert not one.is_degraded
    server.client().set(name, "no stream")
    quick(one, traffic(5, seed=4))
    assert one.degraded_reason == "Redis answers WRONGTYPE"
    server.client().delete(name)
    comes_back(one, other)
    wait_for(lambda: len(other) == 20)


def test_a_user_with_the_rights_that_the_page_names_is_enough(opened: Opened, server: RedisProcess) -> None:
    (rights,) = re.findall(
        r"^    user advsentry (on .*)$", (ROOT / "docs" / "history.md").read_text("utf-8"), re.MULTILINE
    )
    server.client().execute_command("ACL", "SETUSER", "advsentry", *rights.replace("PASSWORD", "pass").split())
    history = opened(server.url.replace("unix://", "unix://advsentry:pass@"))
    history.observe_all(traffic(3))
    history.forgive("customer")
    assert not history.is_degraded
    assert opened(server.url.replace("unix://", "unix://advsentry:wrong@")).is_degraded


def test_a_history_that_starts_without_redis_shares_once_it_is_there(opened: Opened, server: RedisProcess) -> None:
    server.kill()
    one, other = opened(), opened()
    assert one.is_degraded
    quick(one, traffic(5))
    assert len(one) == 5
    server.start()
    comes_back(one, other)
    wait_for(lambda: len(other) == 5)


def test_nobody_waits_for_a_redis_that_hangs_at_the_start(
    opened: Opened, server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "START_S", 0.01)
    server.send(signal.SIGSTOP)
    try:
        history = opened(server.url.replace("timeout=1", "timeout=10"), waits=False)
        quick(history, traffic(5))
        assert history.is_degraded
        assert history.degraded_reason == "Redis was not asked yet"
    finally:
        server.send(signal.SIGCONT)
    comes_back(history)
    other = opened()
    wait_for(lambda: len(other) == 5)


def test_too_much_to_send_later_is_counted(
    opened: Opened, server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "OUTBOX", 4)
    one, other = opened(), opened()
    server.kill()
    quick(one, traffic(7))
    assert one.unsent == 3
    assert one.losses > 0
    server.start()
    comes_back(one, other)
    wait_for(lambda: len(other) == 4)


def test_who_leaves_has_a_history_of_his_own(opened: Opened) -> None:
    history = opened()
    history.leave()
    assert history.observe_all(traffic(3))
    assert history.is_degraded
    assert history.degraded_reason == "the history is closed"


def test_closing_gives_the_replica_back(opened: Opened) -> None:
    history = opened()
    history.observe_all(traffic(3))
    arrays = weakref.ref(history._replica.store.embeddings)
    history.close()
    assert arrays() is None
