"""What may happen to the processes of a supervisor at the same time; with stand-ins, so that the order is ours."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from service import supervisor
from service.errors import AdvsentryError, SetupError, Unavailable
from service.merging import Page, read_page
from service.settings import Settings
from service.supervisor import Supervisor
from service.worker import Order

WAIT_S = 20
PAGE = "# TYPE advsentry_images_total counter\nadvsentry_images_total 5\n"


class StandIn:
    """A process that serves and ends when it is told."""

    made: "list[StandIn]" = []  # noqa: RUF012  # of one test

    def __init__(self, order: Order) -> None:
        self.order = order
        self.may_serve = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.is_serving = False
        self.age_s = 1000.0
        self.reloads = 0
        self.signals: list[int] = []

    @classmethod
    async def start(cls, order: Order) -> "StandIn":
        cls.made.append(cls(order))
        return cls.made[-1]

    async def serves(self) -> bool:
        await self.may_serve.wait()
        self.is_serving = True
        return True

    async def ended(self) -> int:
        await self.has_ended.wait()
        return 0

    def end(self) -> None:
        self.is_serving = False
        self.has_ended.set()

    def send(self, number: signal.Signals) -> None:
        self.signals.append(number)
        self.end()

    def reload(self) -> str:
        self.reloads += 1
        return "serving"

    def page(self) -> Page:
        return read_page(PAGE)

    take_page = page


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def supervised(monkeypatch: pytest.MonkeyPatch, **settings: object) -> AsyncIterator[Supervisor]:
    StandIn.made = []
    monkeypatch.setattr(supervisor, "Worker", StandIn)
    made = Supervisor(Settings(port=0, metrics_port=0, **settings))  # type: ignore[arg-type]
    starting = asyncio.create_task(made.start())
    for number in range(made._settings.workers):
        await until(lambda least=number: len(StandIn.made) > least)  # type: ignore[misc]
        StandIn.made[number].may_serve.set()
    await starting
    try:
        yield made
    finally:
        for worker in StandIn.made:
            worker.end()
        await made.stop()


def test_a_process_that_starts_during_a_reload_reloads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with supervised(monkeypatch, workers=2) as made:
            first, second = StandIn.made
            first.end()
            await until(lambda: len(StandIn.made) == 3)
            new = StandIn.made[2]  # which may have read the old files by now
            await made.reload()
            assert (second.reloads, new.reloads) == (1, 0)
            new.may_serve.set()
            await until(lambda: made._workers[1] is new)  # type: ignore[comparison-overlap]
            assert new.reloads == 1

    asyncio.run(run())


def test_a_process_that_ends_during_its_reload_does_not_keep_the_others_from_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with supervised(monkeypatch, workers=3) as made:
            first, second, third = StandIn.made
            loop = asyncio.get_running_loop()

            def die() -> str:
                loop.call_soon_threadsafe(loop.call_later, 0.05, second.end)  # the connection is gone before
                raise Unavailable("worker 2: no answer")

            monkeypatch.setattr(second, "reload", die)
            assert await made.reload() == "serving"
            assert (first.reloads, third.reloads) == (1, 1)
            await until(lambda: len(StandIn.made) == 4)
            first.end()
            third.end()
            assert await made.reload() == "no process serves now; those that start read the files"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "error"),
    [(Unavailable, Unavailable("no answer: timed out")), (AdvsentryError, AdvsentryError("a byte is wrong"))],
)
def test_a_reload_stops_at_a_process_that_goes_on_without_it(
    kind: type[AdvsentryError], error: AdvsentryError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "END_S", 0.01)

    async def run() -> None:
        async with supervised(monkeypatch, workers=3) as made:
            first, second, third = StandIn.made

            def refuse() -> str:
                raise error

            monkeypatch.setattr(second, "reload", refuse)
            with pytest.raises(AdvsentryError, match=f"worker 2 goes on as it was, .*: {error}") as caught:
                await made.reload()
            assert type(caught.value) is kind
            assert (first.reloads, third.reloads) == (1, 0)

    asyncio.run(run())


def test_only_what_all_loaded_is_fallen_back_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second, link = tmp_path / "a", tmp_path / "b", tmp_path / "link"
    for path in (first, second):
        path.mkdir()
    link.symlink_to(first)

    async def fallback() -> str:
        """Of one that takes the place of another."""
        StandIn.made[-1].end()
        count = len(StandIn.made)
        await until(lambda: len(StandIn.made) > count)
        new = StandIn.made[-1]
        new.may_serve.set()
        await until(lambda: new.is_serving)
        await asyncio.sleep(0.01)
        return new.order.fallback

    async def run() -> None:
        async with supervised(monkeypatch, workers=1, bundle=str(link)) as made:
            assert StandIn.made[0].order.fallback == ""
            assert await fallback() == ""  # it is what the link leads to
            link.unlink()
            assert await fallback() == str(first)
            link.symlink_to(second)

            def refuse() -> str:
                raise AdvsentryError("a byte is wrong")

            monkeypatch.setattr(StandIn.made[-1], "reload", refuse)
            with pytest.raises(AdvsentryError):
                await made.reload()
            assert await fallback() == str(first)
            await made.reload()
            link.unlink()
            assert await fallback() == str(second)

    asyncio.run(run())


def test_of_two_processes_in_the_place_of_one_the_older_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with supervised(monkeypatch, workers=1, device="auto") as made:
            StandIn.made[0].end()
            await until(lambda: len(StandIn.made) == 2)
            reload = asyncio.create_task(made.reload())
            await until(lambda: len(StandIn.made) == 3)
            _, restarted, replacing = StandIn.made
            replacing.may_serve.set()
            await reload
            restarted.may_serve.set()
            await until(lambda: bool(restarted.signals))
            assert made._workers[1] is replacing  # type: ignore[comparison-overlap]
            assert not replacing.signals

    asyncio.run(run())


def test_counters_do_not_fall_while_a_process_ends_during_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with supervised(monkeypatch, workers=2) as made:
            with made._merged._lock:  # as a scrape holds it
                StandIn.made[0].end()
                await until(lambda: len(StandIn.made) == 3)
                assert len(made._pages()) == 3
            await until(lambda: len(made._all) == 2)
            assert b"advsentry_images_total 15.0" in generate_latest(made._registry)

    asyncio.run(run())


@pytest.mark.parametrize("hosts", [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_health_does_not_share_the_port_of_calls(hosts: tuple[str, str]) -> None:
    async def run() -> None:
        settings = Settings(workers=1, port=50051, health_port=50051, host=hosts[0], health_host=hosts[1])
        await Supervisor(settings).start()

    with pytest.raises(SetupError, match="expected two ports, got 50051 twice"):
        asyncio.run(run())


def test_a_process_that_does_not_come_to_serve_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        StandIn.made = []
        monkeypatch.setattr(supervisor, "Worker", StandIn)
        made = Supervisor(Settings(port=0, metrics_port=0, workers=1, start_s=1))
        with pytest.raises(supervisor.WorkerEnded, match="worker 1 did not serve within 1 s; --start-s"):
            await asyncio.wait_for(made.start(), WAIT_S)
        assert StandIn.made[0].signals == [signal.SIGKILL]
        await made.stop()

    asyncio.run(run())
