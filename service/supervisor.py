"""Several serving processes on one port, under one that only watches: starts, restarts, signals, reloads, metrics.

The processes are started, never forked: gRPC and the graph do not live through a fork. The kernel spreads connections
over them, so each connection ends after a while for the spread to even out.
"""

import asyncio
import contextlib
import json
import logging
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder

from service.app import Ports
from service.detection.bundle import find_bundle
from service.detection.processors import cpu_quota
from service.errors import AdvsentryError, BundleError, SetupError, Unavailable
from service.merging import Merged, Page
from service.ports import check_ports, reserve_port
from service.private_folder import private_folder
from service.private_http import FORGIVE, HISTORY, RELOAD, Command, PrivateHttp, metrics_names
from service.process import Worker
from service.reload import BundleWatch, ask_loop, fingerprint
from service.settings import Settings
from service.signals import on_signals
from service.watching.report import merged
from service.worker import Order

__all__ = ["Supervisor", "supervise"]

log = logging.getLogger(__name__)

START_TRIES = 5
"""Starts in a row that may fail while no other process serves."""
SHORT_LIFE_S = 10.0
"""A process that ends sooner is started again after a pause, doubled each time."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 4.0
END_S = 1.0
"""In which the end of a process is noticed that no longer answers."""


class WorkerEnded(Exception):
    """A process ended before it served; its own error stands on standard error."""


class Supervisor:
    """The processes by number, from 1."""

    def __init__(self, settings: Settings) -> None:
        """Starts nothing yet. Needs a running event loop."""
        self._settings = settings
        self._workers: dict[int, Worker] = {}
        self._all: set[Worker] = set()
        self._to_close = contextlib.ExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._reloads = 0  # begun
        self._good = ""  # where the bundle lay, behind all links, that every process served last
        self._loop = asyncio.get_running_loop()
        self._is_ending = False
        self._started = 0
        self.failed = asyncio.Event()
        """Set when no process can be started any more."""
        registry = CollectorRegistry()
        self._merged = Merged(self._pages)
        registry.register(self._merged)
        self._registry = registry
        self._restarts = Counter(
            "advsentry_process_restarts", "Processes started in the place of others.", registry=registry
        )
        states = Gauge(
            "advsentry_processes", "Processes, as many as are asked for and as serve.", ["state"], registry=registry
        )
        states.labels("wanted").set(settings.workers)
        states.labels("serving").set_function(lambda: sum(worker.is_serving for worker in self._workers.values()))

    async def start(self) -> Ports:
        """Starts the first process, and when that serves, the others.

        Raises:
            SetupError: a port cannot be had.
            WorkerEnded: a process ended before it served.
        """
        settings = self._settings
        check_ports(settings)
        self._port = self._to_close.enter_context(reserve_port(settings.host, settings.port))
        self._health_port: int | None = None
        if settings.health_port >= 0:
            place = settings.health_host, settings.health_port
            reserved = self._to_close.enter_context(reserve_port(*place, flags="--health-port or --health-host"))
            self._health_port = reserved.getsockname()[1]
        folder = private_folder()
        if folder is None:
            raise SetupError(
                "--workers takes a folder for sockets, and none can be made; set TMPDIR to one that can be written"
            )
        self._folder = folder
        self._to_close.callback(shutil.rmtree, self._folder, ignore_errors=True)
        http = PrivateHttp(
            (settings.metrics_host, settings.metrics_port),
            scrape=self._scrape,
            commands=self._commands() if settings.admin else None,
            names=metrics_names(settings),
        )
        self._to_close.callback(http.close)
        loaded, lies_at = fingerprint(settings.bundle), _place(settings.bundle)
        async with self._reloading:  # a reload waits until there is something to reload
            self._workers[1] = await self._started_worker(1)
            others = range(2, settings.workers + 1)
            for number, worker in zip(others, await asyncio.gather(*map(self._started_worker, others)), strict=True):
                self._workers[number] = worker
            self._good = lies_at
        for number in self._workers:
            self._tasks.add(asyncio.create_task(self._keep(number), name=f"worker {number}"))
        if settings.watch_s:
            watch = BundleWatch(settings.bundle, self.reload, loaded)
            self._tasks.add(asyncio.create_task(watch.watch(settings.watch_s), name="bundle watch"))
        return Ports.of(settings, grpc=self._port.getsockname()[1], metrics=http.port, health=self._health_port)

    async def stop(self) -> bool:
        """Has each process end as it does by itself, and waits for all.

        Returns:
            Whether every one ended in order.
        """
        self._is_ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        running = list(self._all)
        for worker in running:
            worker.send(signal.SIGTERM)
        statuses = await asyncio.gather(*(worker.ended() for worker in running))
        self._to_close.close()
        return not set(statuses) - {0, -signal.SIGTERM}  # the latter of one that was still starting

    def kill(self) -> None:
        """Ends every process at once."""
        for worker in list(self._all):  # a thread takes out what has ended
            worker.send(signal.SIGKILL)

    async def reload(self) -> str:
        """Has each process serve the bundle as its files are now, one after another.

        Returns:
            What is served now.

        Raises:
            AdvsentryError: why a process goes on with what it has; Unavailable when that is not for the bundle.
        """
        async with self._reloading:
            self._reloads += 1
            place = _place(self._settings.bundle)
            if self._settings.device != "cpu":  # the memory of a GPU comes back with the end of its process
                text = await self._replace_all()
                self._good = place
                return text
            text = ""
            for number, worker in sorted(self._workers.items()):
                if not worker.is_serving:
                    continue  # the one that takes its place reads the files, see `_restarted`
                try:
                    text = await asyncio.to_thread(worker.reload)
                except AdvsentryError as error:
                    if isinstance(error, Unavailable) and await _ends(worker):
                        log.warning("worker %d ended before it reloaded; the one in its place reads the files", number)
                        continue
                    log.error("worker %d does not reload: %s", number, error)
                    if not text:
                        raise
                    kind = Unavailable if isinstance(error, Unavailable) else AdvsentryError
                    raise kind(f"worker {number} goes on as it was, those before it reloaded: {error}") from error
            if text:
                self._good = place
            text = text or "no process serves now; those that start read the files"
            log.info("reloaded: %s", text)
            return text

    async def _replace_all(self) -> str:
        for number in sorted(self._workers):
            try:
                new = await self._started_worker(number)
            except (WorkerEnded, OSError) as error:  # which may well be for the bundle
                log.error("not reloaded: %s", error)
                raise AdvsentryError(f"the processes that serve stay: {error}") from error
            old, self._workers[number] = self._workers[number], new
            old.send(signal.SIGTERM)
        log.info("every process was replaced")
        return f"{len(self._workers)} new processes serve, the old ones end"

    async def _started_worker(self, number: int, fallback: str = "") -> Worker:
        """A process that serves.

        Args:
            fallback: see Order.

        Raises:
            WorkerEnded: it ended before, or took too long.
        """
        settings, self._started = self._settings, self._started + 1
        threads = settings.threads or max(1, cpu_quota() // settings.workers)
        own = replace(
            settings,
            port=self._port.getsockname()[1],
            health_port=-1 if self._health_port is None else self._health_port,
            threads=threads,
            watch_s=0.0,
        )
        order = Order(settings=own, number=number, socket=self._folder / f"{self._started}.sock", fallback=fallback)
        worker = await Worker.start(order)
        self._all.add(worker)
        self._tasks.add(task := asyncio.create_task(self._forget(worker)))
        task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(settings.start_s):
                if await worker.serves():
                    return worker
        except TimeoutError:
            worker.send(signal.SIGKILL)
            raise WorkerEnded(
                f"worker {number} did not serve within {settings.start_s:g} s; --start-s allows another time"
            ) from None
        raise WorkerEnded(f"worker {number} ended before it served; its own line says why")

    async def _forget(self, worker: Worker) -> None:
        await worker.ended()
        await asyncio.to_thread(self._merged.keep, partial(self._taken_out, worker))

    def _taken_out(self, worker: Worker) -> Page:
        """Called between two scrapes: a page with neither this process nor its last counts would have counters fall."""
        self._all.discard(worker)
        return worker.take_page()

    async def _keep(self, number: int) -> None:
        """Has another process take the place of one that ended."""
        pause = 0.0
        while True:
            worker = self._workers[number]
            status = await worker.ended()
            if worker is not self._workers[number]:
                continue  # a reload replaced it
            pause = 0.0 if worker.age_s > SHORT_LIFE_S else _longer(pause)
            log.error("worker %d ended unexpectedly, status %d", number, status)
            new = await self._restarted(number, pause)
            if self._workers[number] is worker:
                self._workers[number] = new
            else:  # a reload has put another in its place meanwhile
                new.send(signal.SIGTERM)

    async def _restarted(self, number: int, pause: float) -> Worker:
        failures = 0
        while True:
            await asyncio.sleep(pause)
            self._restarts.inc()
            reloads = self._reloads
            # What a reload refused must not keep a process from coming back, where a link leads to it now.
            fallback = "" if _place(self._settings.bundle) == self._good else self._good
            try:
                worker = await self._started_worker(number, fallback)
                while reloads != self._reloads:  # it may have read the files before they were replaced
                    reloads = self._reloads
                    await self._reload_new(worker)
                return worker
            except (WorkerEnded, OSError) as error:
                log.error("%s", error)
                failures += 1
                pause = _longer(pause)
                if failures >= START_TRIES and not any(worker.is_serving for worker in self._workers.values()):
                    self.failed.set()

    async def _reload_new(self, worker: Worker) -> None:
        if self._settings.device == "cpu":  # else the reload has replaced, or will replace, it
            try:
                await asyncio.to_thread(worker.reload)
            except AdvsentryError as error:
                log.error("a new worker goes on with the bundle that it read: %s", error)

    def _pages(self) -> list[Page]:
        return [worker.page() for worker in list(self._all)]

    def _scrape(self, accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _commands(self) -> dict[str, Command]:
        return {
            RELOAD: lambda _: ask_loop(self._loop, self.reload()),
            HISTORY: lambda _: merged([json.loads(text) for text in self._ask_all(HISTORY)]),
            FORGIVE: lambda client: str(self._forgiven(client)),
        }

    def _forgiven(self, client: str) -> int:
        """How many flags there were: of processes that share a history each has the same."""
        flags = [int(text) for text in self._ask_all(FORGIVE, client)]
        return max(flags, default=0) if self._settings.history_url else sum(flags)

    def _ask_all(self, path: str, content: str = "") -> list[str]:
        """What each process that serves answers; raises as `Worker.ask`."""
        return [worker.ask(path, content) for _, worker in sorted(self._workers.items()) if worker.is_serving]


def _place(bundle: str) -> str:
    """Where a bundle lies, behind all links; empty without one."""
    try:
        return str(find_bundle(bundle).resolve())
    except (BundleError, OSError):
        return ""


async def _ends(worker: Worker) -> bool:
    """Whether a process that gave no answer has ended, which is noticed a moment later."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(worker.ended(), END_S)
    return not worker.is_serving


def _longer(pause: float) -> float:
    return min(LONGEST_PAUSE_S, 2 * pause or FIRST_PAUSE_S)


async def supervise(settings: Settings, on_ready: Callable[[Ports], None]) -> int:
    """Runs `settings.workers` processes until a signal, or until none can be started.

    Returns:
        The exit status: 0 after a signal when all ended in order, else 1.
    """
    supervisor = Supervisor(settings)
    ended = on_signals(reload=supervisor.reload, before_exit=supervisor.kill)
    waits = [asyncio.create_task(event.wait()) for event in (ended, supervisor.failed)]
    starting = asyncio.create_task(supervisor.start())
    is_well = True
    try:
        await asyncio.wait({starting, *waits}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            on_ready(starting.result())
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        is_well = not supervisor.failed.is_set()
    except WorkerEnded as error:  # its own line says more
        log.info("%s", error)
        is_well = False
    finally:
        starting.cancel()
        for wait in waits:
            wait.cancel()
        is_well = await supervisor.stop() and is_well
    return 0 if is_well else 1
