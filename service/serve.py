"""One serving process: starts the service, obeys signals, ends it."""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict

from prometheus_client import CollectorRegistry, disable_created_metrics

from service.app import App, Ports
from service.engines import load_engine
from service.errors import AdvsentryError, SetupError
from service.memory import limit_arenas
from service.settings import Settings

__all__ = ["refuse_two_wheels", "run", "serve"]

log = logging.getLogger(__name__)


def refuse_two_wheels() -> None:
    """Refuses a machine with both onnxruntime packages: they overwrite each other's files, and CUDA goes in silence.

    Raises:
        SetupError: both are installed.
    """
    found = {str(entry.name).lower() for entry in importlib.metadata.distributions() if entry.name}
    if {"onnxruntime", "onnxruntime-gpu"} <= found:
        raise SetupError("both onnxruntime and onnxruntime-gpu are installed; uninstall both, then install one")


async def serve(settings: Settings, on_ready: Callable[[Ports], None]) -> int:
    """Runs the service until a signal or the loss of its worker.

    Returns:
        The exit status: 0 after a signal, 1 when the worker was lost.
    """
    started = time.monotonic()
    engine = load_engine(settings)
    log.info("settings: %s", " ".join(f"{name}={value}" for name, value in asdict(settings).items()))
    app = App(settings, engine, CollectorRegistry())
    ended = _on_signals(app)
    ports = await app.start()
    manifest = engine.bundle.manifest
    log.info(
        "bundle %s version %s on %s, ready after %.2f s",
        manifest.name,
        manifest.version,
        engine.graph.provider,
        time.monotonic() - started,
    )
    del engine  # a reload replaces it
    on_ready(ports)
    lost = asyncio.create_task(app.lost.wait())
    signalled = asyncio.create_task(ended.wait())
    await asyncio.wait({lost, signalled}, return_when=asyncio.FIRST_COMPLETED)
    status = 1 if lost.done() else 0
    log.info("ending: %s", "the worker was lost" if status else "asked to")
    for task in (lost, signalled):
        task.cancel()
    await app.stop()
    log.info("ended")
    return status


def _on_signals(app: App) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second one ends the process at once. SIGHUP reloads the bundle."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def received() -> None:
        if ended.is_set():
            os._exit(1)
        ended.set()

    async def reload() -> None:
        with contextlib.suppress(AdvsentryError):  # it stands in the log
            await app.reload()

    def hung_up() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    return ended


def run(settings: Settings, on_ready: Callable[[Ports], None]) -> int:
    """Runs the service in an event loop of its own; uvloop's where it is installed.

    Raises:
        AdvsentryError: it could not start.
    """
    refuse_two_wheels()
    limit_arenas()
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series and nobody reads them
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serve(settings, on_ready))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
