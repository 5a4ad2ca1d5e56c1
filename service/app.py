"""Puts the service together: bundle, queue, gRPC, metrics, health; and takes it apart gently."""

import asyncio
import logging
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.canary import CanaryWatch
from service.detection.engine import Engine
from service.engines import load_engine
from service.errors import AdvsentryError, SetupError, Unavailable
from service.loaded import LoadedModel
from service.memory import keep_trimmed, trim
from service.metrics import Metrics
from service.private_http import PrivateHttp
from service.reload import BundleWatch, ask_loop
from service.rpc import convert_inference
from service.rpc.convert import SERVICE
from service.rpc.detector import DetectorServicer
from service.rpc.health import Health
from service.rpc.inference import InferenceServicer
from service.rpc.pipeline import Pipeline, Served
from service.rpc.server import ConnectionAge, build_server
from service.settings import Settings
from service.telling import listeners

__all__ = ["App", "Ports"]

log = logging.getLogger(__name__)

RETIRE_LOOK_S = 0.05
"""Between two looks whether a replaced bundle still has calls."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the service listens."""

    grpc: str
    metrics: str

    @classmethod
    def of(cls, settings: Settings, *, grpc: int, metrics: int) -> "Ports":
        """Those of the settings' hosts."""
        return cls(grpc=_address(settings.host, grpc), metrics=_address(settings.metrics_host, metrics))

    def __str__(self) -> str:
        return f"grpc={self.grpc} metrics={self.metrics}"


class App:
    """A running service."""

    def __init__(
        self, settings: Settings, engine: Engine, registry: CollectorRegistry, *, private_socket: Path | None = None
    ) -> None:
        """Makes every part; nothing listens yet. Needs a running event loop.

        Args:
            private_socket: of one of several processes: where it takes what else comes to the metrics port. It shares
                the gRPC port then.
        """
        self._settings = settings
        self._private_socket = private_socket
        self._registry = registry
        self._metrics = Metrics(registry)
        self._health = Health((SERVICE, convert_inference.SERVICE))
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._numbers = count(1)
        self._model = self._made(engine, next(self._numbers))
        self._number = 1
        self.served = Served(self._model.pipeline(self._decoders))
        self._canaries = CanaryWatch(lambda: self._model.canaries, self._health, self._metrics)
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._retiring: dict[asyncio.Task[None], LoadedModel] = {}
        self._to_close = ExitStack()
        self._is_ending = False
        self.lost = asyncio.Event()
        """Set when the worker is gone: there is nothing left but to end."""

    @property
    def model(self) -> LoadedModel:
        """What is served now."""
        return self._model

    async def start(self) -> Ports:
        """Opens the ports, warms the graph, then says SERVING.

        Raises:
            SetupError: a port cannot be had.
        """
        async with self._reloading:  # not before there is something to replace
            return await self._start()

    async def _start(self) -> Ports:
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        servicer = DetectorServicer(
            self.served, max_message_bytes=settings.max_message_bytes, max_queue_items=settings.queue_items
        )
        self._server, grpc_port = build_server(
            servicer,
            InferenceServicer(self.served, self._health),
            self._health,
            metrics=self._metrics,
            address=_address(settings.host, settings.port),
            max_message_bytes=settings.max_message_bytes,
            with_reflection=settings.reflection,
            on_end=listeners(settings, self._metrics, self._to_close),
            shared=None if self._private_socket is None else _connection_age(settings),
        )
        self._http = PrivateHttp(
            self._private_socket or (settings.metrics_host, settings.metrics_port),
            scrape=self._scrape,
            reload=self._reload_from_thread if settings.admin or self._private_socket else None,
        )
        self._model.tell_facts()
        await self._model.start()
        self._watch_worker()
        await self._server.start()
        await self._canaries.ask_once(settings.stuck_s)
        self._tasks.add(asyncio.create_task(self._canaries.watch(settings.canary_s), name="canary"))
        self._tasks.add(asyncio.create_task(keep_trimmed(lambda: self._model.batcher.is_idle), name="memory"))
        if settings.watch_s:
            watch = BundleWatch(settings.bundle, self.reload)
            self._tasks.add(asyncio.create_task(watch.watch(settings.watch_s), name="bundle watch"))
        return Ports.of(settings, grpc=grpc_port, metrics=self._http.port)

    async def stop(self) -> None:
        """Not ready, serve on for a moment, stop accepting, drain, close."""
        self._is_ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._health.set_ready(False)
        self._metrics.ready.set(0)
        await asyncio.sleep(self._settings.lame_duck_s)
        self._health.close()
        self.served.drain()
        await self._server.stop(self._settings.drain_s)
        for model in (self._model, *self._retiring.values()):
            await model.close()
        for task in list(self._retiring):
            task.cancel()
        self._lost_watch.cancel()
        self._decoders.shutdown()
        self._http.close()
        await asyncio.to_thread(self._to_close.close)

    async def reload(self) -> str:
        """Serves the bundle as its files are now; calls and streams go on meanwhile.

        Returns:
            What is served now, and what was before.

        Raises:
            AdvsentryError: why all stays as it is.
        """
        async with self._reloading:
            started = time.monotonic()
            try:
                number = next(self._numbers)
                model = await self._next_model(number)
            except Exception as error:
                self._metrics.reloads["refused"].inc()
                if isinstance(error, AdvsentryError):
                    log.error("the bundle was not reloaded: %s", error)
                    raise
                log.exception("the bundle was not reloaded")
                raise AdvsentryError("the bundle was not reloaded; the server's log says why") from error
            before = self._model
            self._take_over(model, number)
            self._metrics.reloads["loaded"].inc()
            text = f"serving {_name(model)}, before that {_name(before)}"
            log.info("reloaded in %.2f s: %s", time.monotonic() - started, text)
            return text

    async def _next_model(self, number: int) -> LoadedModel:
        provider = self._model.engine.graph.provider
        if provider != "CPUExecutionProvider":
            raise SetupError(
                f"the bundle runs on {provider}, whose memory a process gives back only at its end: restart the "
                "server, or start it with --workers, which puts new processes in the place of the old"
            )
        engine = await asyncio.to_thread(load_engine, self._settings)
        model = self._made(engine, number)
        try:
            await model.start()
            await model.check()
            if self._is_ending:
                raise Unavailable("the server is ending")
        except BaseException:
            self._model.batcher.show()
            await model.close()
            raise
        return model

    def _made(self, engine: Engine, number: int) -> LoadedModel:
        return LoadedModel(
            engine, self._settings, self._metrics, lambda is_well: self._worker_health(number, is_well=is_well)
        )

    def _take_over(self, model: LoadedModel, number: int) -> None:
        old, pipeline = self._model, weakref.ref(self.served.current)
        self._model, self._number = model, number
        self.served.replace(model.pipeline(self._decoders))
        model.tell_facts(old)
        self._lost_watch.cancel()
        self._watch_worker()
        self._worker_health(number, is_well=True)
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
        self._lost_watch = asyncio.create_task(self._wait_for_loss(self._model), name="lost worker")

    async def _wait_for_loss(self, model: LoadedModel) -> None:
        await model.batcher.lost.wait()
        self.lost.set()

    def _worker_health(self, number: int, *, is_well: bool) -> None:
        if number != self._number:
            return  # of a bundle that is not served yet or no more
        self._health.set_live(is_well)
        self._health.set_ready(is_well and not self._is_ending)
        self._metrics.ready.set(self._health.is_ready)

    def _scrape(self, accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _reload_from_thread(self) -> str:
        return ask_loop(self._loop, self.reload())


def _name(model: LoadedModel) -> str:
    manifest = model.engine.bundle.manifest
    return f"{manifest.name} version {manifest.version}"


def _connection_age(settings: Settings) -> ConnectionAge:
    return ConnectionAge(most_s=settings.max_connection_age_s, grace_s=settings.connection_grace_s)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
