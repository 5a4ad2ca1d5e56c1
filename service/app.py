"""Puts the service together: bundle, queue, gRPC, metrics, health; starts it and ends it gently."""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from service.batching import Batcher, QueueLimits
from service.canary import Canaries
from service.detection.engine import Engine
from service.detection.images import ImageLimits
from service.drift import Drift
from service.engines import load_engine
from service.errors import SetupError
from service.loop_lag import watch_loop_lag
from service.memory import keep_trimmed, limit_arenas
from service.metrics import Metrics
from service.rpc import convert_inference
from service.rpc.convert import SERVICE
from service.rpc.detector import DetectorServicer
from service.rpc.health import Health
from service.rpc.inference import InferenceServicer
from service.rpc.pipeline import Pipeline, Policy, Served
from service.rpc.server import build_health_server, build_server
from service.security import security_of
from service.settings import Settings

__all__ = ["App", "Ports", "refuse_two_wheels", "run", "serve"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the service listens."""

    grpc: str
    metrics: str
    health: str = ""
    """Of health alone, in plaintext; empty when there is no such port."""

    def __str__(self) -> str:
        return f"grpc={self.grpc} metrics={self.metrics}" + (f" health={self.health}" if self.health else "")


def refuse_two_wheels() -> None:
    """Refuses a machine with both onnxruntime packages: they overwrite each other's files, and CUDA goes in silence.

    Raises:
        SetupError: both are installed.
    """
    found = {str(entry.name).lower() for entry in importlib.metadata.distributions() if entry.name}
    if {"onnxruntime", "onnxruntime-gpu"} <= found:
        raise SetupError("both onnxruntime and onnxruntime-gpu are installed; uninstall both, then install one")


class App:
    """A running service."""

    def __init__(self, settings: Settings, engine: Engine, registry: CollectorRegistry) -> None:
        """Makes every part; nothing listens yet. Needs a running event loop."""
        self._settings = settings
        self._engine = engine
        self._metrics = Metrics(registry)
        self._health = Health((SERVICE, convert_inference.SERVICE))
        self._graph_thread = ThreadPoolExecutor(1, thread_name_prefix="graph")
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        limits = QueueLimits(
            max_batch=settings.max_batch,
            items=settings.queue_items,
            size_bytes=settings.queue_bytes,
            wait_s=settings.max_deadline_s / 2,
            stuck_s=settings.stuck_s,
        )
        self.batcher = Batcher(
            engine.measure, self._graph_thread, limits=limits, metrics=self._metrics, on_health=self._worker_health
        )
        self._pipeline = Pipeline(engine, self.batcher, self._decoders, policy=_policy(settings), metrics=self._metrics)
        self._canaries = Canaries(engine, self.batcher, self._health, self._metrics)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_ending = False

    async def start(self) -> Ports:
        """Opens the ports, warms the graph, then says SERVING.

        Raises:
            SetupError: a port cannot be had, or a file of TLS or identities is wrong.
        """
        settings = self._settings
        served = Served(self._pipeline)
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
            tls=security.tls,
            access=security.access,
            held_bytes=settings.held_bytes,
        )
        health_address = self._build_health_server()
        metrics_port = self._serve_metrics()
        self._tell_facts()
        loop = asyncio.get_running_loop()
        self.batcher.learn(await loop.run_in_executor(self._graph_thread, self._engine.warm_up, settings.max_batch))
        self.batcher.start()
        await self._server.start()
        if self._health_server is not None:
            await self._health_server.start()
        await self._canaries.ask_once(settings.stuck_s)
        self._tasks.append(asyncio.create_task(self._canaries.watch(settings.canary_s), name="canary"))
        self._tasks.append(asyncio.create_task(keep_trimmed(lambda: self.batcher.is_idle), name="memory"))
        self._tasks.append(asyncio.create_task(watch_loop_lag(self._metrics), name="loop lag"))
        self._tasks.append(asyncio.create_task(Drift(self._metrics).watch(), name="drift"))
        return Ports(
            grpc=_address(settings.host, grpc_port),
            metrics=_address(settings.metrics_host, metrics_port),
            health=health_address,
        )

    def _build_health_server(self) -> str:
        settings = self._settings
        self._health_server = None
        if settings.health_port < 0:
            return ""
        address = _address(settings.health_host, settings.health_port)
        self._health_server, port = build_health_server(self._health, metrics=self._metrics, address=address)
        return _address(settings.health_host, port)

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
        self._pipeline.drain()
        await self._server.stop(self._settings.drain_s)
        if self._health_server is not None:
            await self._health_server.stop(None)
        await self.batcher.close()
        self._graph_thread.shutdown()
        self._decoders.shutdown()
        self._http.shutdown()
        self._http.server_close()

    def _worker_health(self, is_well: bool) -> None:
        self._health.set_live(is_well)
        self._health.set_ready(is_well and not self._is_ending)
        self._metrics.ready.set(self._health.is_ready)

    def _serve_metrics(self) -> int:
        settings = self._settings
        try:
            self._http, _ = start_http_server(settings.metrics_port, settings.metrics_host, self._metrics.registry)
        except OSError as error:
            raise SetupError(
                f"metrics cannot listen on {_address(settings.metrics_host, settings.metrics_port)}: "
                f"{error.strerror}; choose another with --metrics-port or --metrics-host"
            ) from error
        return int(self._http.server_port)

    def _tell_facts(self) -> None:
        bundle = self._engine.bundle
        graph_sha = bundle.manifest.files["model.onnx"].sha256[:12]
        self._metrics.model_info.labels(bundle.manifest.version, graph_sha, bundle.calibration_id).set(1)
        self._metrics.provider_info.labels(self._engine.graph.provider).set(1)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _policy(settings: Settings) -> Policy:
    return Policy(
        reveal=settings.reveal,
        images=ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
        max_batch_items=settings.max_batch_items,
        stream_window=settings.stream_window,
        max_deadline_s=settings.max_deadline_s,
        decode_bytes=settings.decode_bytes,
    )


async def serve(settings: Settings, on_ready: Callable[[Ports], None]) -> int:
    """Runs the service until a signal or the loss of its worker.

    Returns:
        The exit status: 0 after a signal, 1 when the worker was lost.
    """
    started = time.monotonic()
    engine = load_engine(settings)
    log.info("settings: %s", " ".join(f"{name}={value}" for name, value in asdict(settings).items()))
    app = App(settings, engine, CollectorRegistry())
    ended = _on_signals()
    ports = await app.start()
    manifest = engine.bundle.manifest
    log.info(
        "bundle %s version %s on %s, ready after %.2f s",
        manifest.name,
        manifest.version,
        engine.graph.provider,
        time.monotonic() - started,
    )
    on_ready(ports)
    lost = asyncio.create_task(app.batcher.lost.wait())
    signalled = asyncio.create_task(ended.wait())
    await asyncio.wait({lost, signalled}, return_when=asyncio.FIRST_COMPLETED)
    status = 1 if lost.done() else 0
    log.info("ending: %s", "the worker was lost" if status else "asked to")
    for task in (lost, signalled):
        task.cancel()
    await app.stop()
    log.info("ended")
    return status


def _on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second one ends the process at once."""
    ended = asyncio.Event()

    def received() -> None:
        if ended.is_set():
            os._exit(1)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, received)
    return ended


def run(settings: Settings, on_ready: Callable[[Ports], None]) -> int:
    """Runs the service in an event loop of its own; uvloop's where it is installed.

    Raises:
        AdvsentryError: it could not start.
    """
    refuse_two_wheels()
    limit_arenas()
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series and nobody reads them
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(serve(settings, on_ready))
