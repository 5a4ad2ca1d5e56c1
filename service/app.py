"""Puts the service together: bundle, queue, gRPC, metrics, health; and takes it apart gently."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.canary import CanaryWatch
from service.detection.engine import Engine
from service.drift import Drift
from service.loop_lag import watch_loop_lag
from service.memory import keep_trimmed
from service.metrics import Metrics
from service.models import Models
from service.private_http import FORGIVE, HISTORY, RELOAD, Command, PrivateHttp, metrics_names
from service.rehearsal import rehearse
from service.reload import BundleWatch, Fingerprint, ask_loop, fingerprint
from service.rpc import convert_inference
from service.rpc.closing import Closing
from service.rpc.convert import SERVICE
from service.rpc.detector import DetectorServicer
from service.rpc.health import Health
from service.rpc.inference import InferenceServicer
from service.rpc.server import ConnectionAge, build_health_server, build_server
from service.security import security_of
from service.settings import Settings
from service.telling import listeners
from service.watching.opening import OpenWatch, open_watch
from service.watching.report import forgive, told
from service.watching.telling import tell_health

__all__ = ["App", "Ports"]

LAST_RUN_S = 3.0
"""For a run of the graph, and a decoding, to come back when all calls have ended."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the service listens."""

    grpc: str
    metrics: str
    health: str = ""
    """Of health alone, in plaintext; empty when there is no such port."""

    @classmethod
    def of(cls, settings: Settings, *, grpc: int, metrics: int, health: int | None = None) -> "Ports":
        """Those of the settings' hosts."""
        return cls(
            grpc=_address(settings.host, grpc),
            metrics=_address(settings.metrics_host, metrics),
            health="" if health is None else _address(settings.health_host, health),
        )

    def __str__(self) -> str:
        return f"grpc={self.grpc} metrics={self.metrics}" + (f" health={self.health}" if self.health else "")


class App:
    """A running service."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        registry: CollectorRegistry,
        *,
        private_socket: Path | None = None,
        open_watch: OpenWatch = open_watch,
        loaded: Fingerprint | None = None,
    ) -> None:
        """Makes every part; nothing listens yet. Needs a running event loop.

        Args:
            private_socket: of one of several processes: where it takes what else comes to the metrics port. It shares
                the gRPC port then.
            open_watch: makes the query history of a bundle.
            loaded: of the bundle's files from before the engine read them; None takes them as they are.

        Raises:
            SetupError: the settings of the history and the bundle do not go together.
        """
        self._settings = settings
        self._loaded = fingerprint(settings.bundle) if loaded is None else loaded
        self._private_socket = private_socket
        self._registry = registry
        self._metrics = Metrics(registry)
        self._health = Health((SERVICE, convert_inference.SERVICE))
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._drift = Drift(self._metrics)
        self.models = Models(
            engine,
            settings,
            self._metrics,
            decoders=self._decoders,
            on_health=self._worker_health,
            on_replaced=self._drift.restart,
            open_watch=open_watch,
        )
        self._canaries = CanaryWatch(lambda: self.models.current.canaries, self._health, self._metrics)
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_close = ExitStack()
        self._giving_up: asyncio.TimerHandle | None = None
        self._is_ending = False
        self._closing = Closing()

    async def start(self) -> Ports:
        """Opens the ports, warms the graph, then says SERVING.

        Raises:
            SetupError: a port cannot be had, or a file of TLS or identities is wrong.
        """
        settings, served = self._settings, self.models.served
        self._loop = asyncio.get_running_loop()
        security = security_of(settings, self._metrics)
        servicer = DetectorServicer(
            served, max_message_bytes=settings.max_message_bytes, max_queue_items=settings.queue_items
        )
        self._server, grpc_port = build_server(
            servicer,
            InferenceServicer(served, self._health),
            self._health,
            metrics=self._metrics,
            address=_address(settings.host, settings.port),
            max_message_bytes=settings.max_message_bytes,
            with_reflection=settings.reflection,
            with_compression=settings.compression,
            tls=security.tls,
            access=security.access,
            held_bytes=settings.held_bytes,
            closing=self._closing,
            on_end=listeners(settings, self._metrics, self._to_close),
            shared=self._shared(),
        )
        health = self._build_health_server()
        self._http = PrivateHttp(
            self._private_socket or (settings.metrics_host, settings.metrics_port),
            scrape=self._scrape,
            commands=self._commands() if settings.admin or self._private_socket else None,
            names=metrics_names(settings),
        )
        await self.models.start()
        await rehearse(self.models.current.engine, settings, self._decoders)
        await self._server.start()
        if self._health_server is not None:
            await self._health_server.start()
        await self._canaries.ask_once(settings.stuck_s)
        self._tasks.add(asyncio.create_task(self._canaries.watch(settings.canary_s), name="canary"))
        self._tasks.add(asyncio.create_task(keep_trimmed(lambda: self.models.current.batcher.is_idle), name="memory"))
        self._tasks.add(asyncio.create_task(watch_loop_lag(self._metrics), name="loop lag"))
        self._tasks.add(asyncio.create_task(self._drift.watch(), name="drift"))
        self._tasks.add(asyncio.create_task(tell_health(self._trouble, self._health.set_history), name="history"))
        if settings.watch_s:
            watch = BundleWatch(settings.bundle, self.models.reload, self._loaded)
            self._tasks.add(asyncio.create_task(watch.watch(settings.watch_s), name="bundle watch"))
        return Ports.of(settings, grpc=grpc_port, metrics=self._http.port, health=health)

    def _shared(self) -> ConnectionAge | None:
        return None if self._private_socket is None else _connection_age(self._settings)

    def _build_health_server(self) -> int | None:
        settings = self._settings
        self._health_server = None
        if settings.health_port < 0:
            return None
        self._health_server, port = build_health_server(
            self._health,
            metrics=self._metrics,
            address=_address(settings.health_host, settings.health_port),
            shared=self._shared(),
        )
        return port

    async def stop(self) -> bool:
        """Not ready, serve on for a moment, stop accepting, drain, close.

        Returns:
            False when a run of the graph or a decoding does not come back: the process cannot end by itself then.
        """
        self._is_ending = True
        self.models.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._health.set_ready(False)
        self._metrics.ready.set(0)
        await asyncio.sleep(self._settings.lame_duck_s)
        self._health.close()
        self.models.served.drain()
        await self._closing.stop(lambda: self._server.stop(self._settings.drain_s))
        if self._health_server is not None:
            await self._health_server.stop(None)
        if (watch := self.models.current.watch) is not None:
            await asyncio.to_thread(watch.close, saves=True)
        are_whole = await asyncio.gather(self.models.close(LAST_RUN_S), self._close_decoders(LAST_RUN_S))
        self._http.close()
        await asyncio.to_thread(self._to_close.close)
        return all(are_whole)

    async def _close_decoders(self, within_s: float) -> bool:
        """Waits in a thread: the loop must go on, in which signals are heard."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        waiting = asyncio.create_task(asyncio.to_thread(self._decoders.shutdown))
        done, _ = await asyncio.wait({waiting}, timeout=within_s)
        waiting.cancel()
        return bool(done)

    def _worker_health(self, is_well: bool) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
        # No probe reaches one certain process of several: its end is what their supervisor notices.
        if self._private_socket is not None and not is_well:
            self._giving_up = self._loop.call_later(self._settings.stuck_s, self.models.lost.set)
        self._health.set_live(is_well)
        self._health.set_ready(is_well and not self._is_ending)
        self._metrics.ready.set(self._health.is_ready)

    def _trouble(self) -> str | None:
        watch = self.models.current.watch
        return None if watch is None else watch.trouble

    def _scrape(self, accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _commands(self) -> dict[str, Command]:
        return {
            RELOAD: lambda _: ask_loop(self._loop, self.models.reload()),
            HISTORY: lambda _: told(self.models.current.watch),
            FORGIVE: lambda client: str(forgive(self.models.current.watch, client)),
        }


def _connection_age(settings: Settings) -> ConnectionAge:
    return ConnectionAge(most_s=settings.max_connection_age_s, grace_s=settings.connection_grace_s)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
