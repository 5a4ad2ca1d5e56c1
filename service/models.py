"""The bundle that is served, what it replaced while calls still use that, and what replaces it."""

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import count

from service.detection.engine import Engine
from service.engines import load_engine
from service.errors import AdvsentryError, SetupError, Unavailable
from service.loaded import LoadedModel
from service.memory import trim
from service.metrics import Metrics
from service.rpc.pipeline import Pipeline, Served
from service.settings import Settings
from service.watching.opening import OpenWatch, open_watch
from service.watching.watch import HistoryWatch

__all__ = ["Models"]

log = logging.getLogger(__name__)

RETIRE_LOOK_S = 0.05
"""Between two looks whether a replaced bundle still has calls."""


class Models:
    """One that is served at any time; used from one event loop."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        *,
        decoders: Executor,
        on_health: Callable[[bool], None],
        on_replaced: Callable[[], None] = lambda: None,
        open_watch: OpenWatch = open_watch,
    ) -> None:
        """Takes the first. Needs a running event loop.

        Args:
            on_health: told False when the worker of the one that is served is stuck or lost, and True when it is well
                again or another is served.
            on_replaced: called when another is served, with whose p-values those before are not to be compared.
            open_watch: makes the query history of a bundle.

        Raises:
            SetupError: the settings of the history and the bundle do not go together.
        """
        self._settings = settings
        self._metrics = metrics
        self._decoders = decoders
        self._on_health = on_health
        self._on_replaced = on_replaced
        self._open_watch = open_watch
        self._numbers = count(1)
        self._number = next(self._numbers)
        self._loop = asyncio.get_running_loop()
        watch = open_watch(engine.bundle, settings, metrics, loop=self._loop, is_first=True)
        self.current = self._made(engine, watch, self._number)
        self.served = Served(self.current.pipeline(decoders))
        self._reloading = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], LoadedModel] = {}
        self._is_ending = False
        self.lost = asyncio.Event()
        """Set when the worker is gone: there is nothing left but to end."""

    @property
    def retiring(self) -> int:
        """How many were replaced and may still have calls."""
        return len(self._retiring)

    async def start(self) -> None:
        """Warms the first."""
        async with self._reloading:  # a reload waits until there is something to replace
            self.current.tell_facts()
            await self.current.start()
            self._watch_worker()

    def end(self) -> None:
        """Takes no other from now on."""
        self._is_ending = True

    async def close(self, within_s: float) -> bool:
        """Finishes what waits, and lets all go.

        Returns:
            Whether all was finished in time. If not, a run of the graph does not come back, and its thread would keep
            the process from its end.
        """
        self.end()
        for task in list(self._retiring):
            task.cancel()
        self._lost_watch.cancel()
        closing = {asyncio.create_task(model.close()) for model in (self.current, *self._retiring.values())}
        _, left = await asyncio.wait(closing, timeout=within_s)
        for task in left:
            task.cancel()
        return not left

    async def reload(self) -> str:
        """Serves the bundle as its files are now; calls and streams go on meanwhile.

        Returns:
            What is served now, and what was before.

        Raises:
            AdvsentryError: why all stays as it is.
        """
        async with self._reloading:
            started, number = time.monotonic(), next(self._numbers)
            try:
                await self._wait_for_room()
                model = await self._next(number)
            except Exception as error:
                self._metrics.reloads["refused"].inc()
                if isinstance(error, AdvsentryError):
                    log.error("the bundle was not reloaded: %s", error)
                    raise
                log.exception("the bundle was not reloaded")
                raise AdvsentryError("the bundle was not reloaded; the server's log says why") from error
            before = self.current
            self._take_over(model, number)
            self._metrics.reloads["loaded"].inc()
            text = f"serving {_name(model)}, before that {_name(before)}"
            log.info("reloaded in %.2f s: %s", time.monotonic() - started, text)
            return text

    async def _wait_for_room(self) -> None:
        """Waits until none is retiring: three at once would be one more than the memory was planned for."""
        latest = time.monotonic() + self._settings.max_deadline_s + self._settings.stuck_s + 1
        while self._retiring:
            if time.monotonic() > latest:
                raise Unavailable(
                    "the bundle before the one that is served runs a batch that does not come back, and there is room "
                    "for two; restart the server"
                )
            await asyncio.wait(self._retiring, timeout=latest - time.monotonic())

    async def _next(self, number: int) -> LoadedModel:
        provider = self.current.engine.graph.provider
        if provider != "CPUExecutionProvider":
            raise SetupError(
                f"the bundle runs on {provider}, whose memory a process gives back only at its end: restart the "
                "server, or start it with --workers, which puts new processes in the place of the old"
            )
        engine = await asyncio.to_thread(load_engine, self._settings)
        watch = await asyncio.to_thread(
            self._open_watch, engine.bundle, self._settings, self._metrics, loop=self._loop, is_first=False
        )
        model = self._made(engine, watch, number)
        try:
            await model.start()
            await model.check()
            if self._is_ending:
                raise Unavailable("the server is ending")
        except BaseException:
            self.current.batcher.show()
            await model.close()
            raise
        return model

    def _made(self, engine: Engine, watch: HistoryWatch | None, number: int) -> LoadedModel:
        def on_health(is_well: bool) -> None:
            if number == self._number:  # else of one that is not served yet or no more
                self._on_health(is_well)

        return LoadedModel(engine, self._settings, self._metrics, on_health, watch)

    def _take_over(self, model: LoadedModel, number: int) -> None:
        old, pipeline = self.current, weakref.ref(self.served.current)
        self.current, self._number = model, number
        self.served.replace(model.pipeline(self._decoders))
        model.tell_facts(old)
        self._lost_watch.cancel()
        self._watch_worker()
        self._on_health(True)
        self._on_replaced()
        if old.watch is not None:
            old.watch.close()  # at once: last calls go unobserved, or each reload under load would hold a history more
        task = asyncio.create_task(self._retire(old, pipeline), name="retire")
        self._retiring[task] = old
        task.add_done_callback(self._retired)

    async def _retire(self, model: LoadedModel, pipeline: "weakref.ref[Pipeline]") -> None:
        """Closes a replaced bundle's queue when no call can use it any more.

        Each call and each item holds the pipeline that it began with, for no longer than the longest deadline.
        """
        latest = time.monotonic() + self._settings.max_deadline_s + 1
        while pipeline() is not None and time.monotonic() < latest:
            await asyncio.sleep(RETIRE_LOOK_S)
        await model.close()

    def _retired(self, task: "asyncio.Task[None]") -> None:
        del self._retiring[task]
        if not self._is_ending:
            self._loop.run_in_executor(None, trim)

    def _watch_worker(self) -> None:
        self._lost_watch = asyncio.create_task(self._wait_for_loss(self.current), name="lost worker")

    async def _wait_for_loss(self, model: LoadedModel) -> None:
        await model.batcher.lost.wait()
        self.lost.set()


def _name(model: LoadedModel) -> str:
    manifest = model.engine.bundle.manifest
    return f"{manifest.name} version {manifest.version}"
