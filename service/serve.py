"""One serving process: starts the service, obeys signals, ends it."""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from pathlib import Path

from prometheus_client import CollectorRegistry, disable_created_metrics

from service.app import App, Ports
from service.detection.engine import Engine
from service.engines import load_engine
from service.errors import BundleError, SetupError
from service.memory import limit_arenas, settle
from service.reload import fingerprint
from service.setting_words import without_password
from service.settings import Settings
from service.signals import keep_reload, on_signals

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


async def serve(
    settings: Settings,
    on_ready: Callable[[Ports], None],
    *,
    private_socket: Path | None = None,
    fallback: str = "",
    on_start: Callable[[Callable[[], None]], None] = lambda _: None,
) -> int:
    """Runs the service until a signal or the loss of its worker.

    Args:
        private_socket: see App.
        fallback: the bundle to start with when the one of the settings cannot be; a reload reads that one all the same.
        on_start: given what ends the service as a signal does.

    Returns:
        The exit status: 0 after a signal, 1 when the worker was lost. When a run of the graph or a decoding does not
        come back, the process ends here with 1.
    """
    started = time.monotonic()
    keep_reload()
    loaded = fingerprint(settings.bundle)
    engine = _first_engine(settings, fallback)
    log.info("settings: %s", " ".join(f"{name}={without_password(value)}" for name, value in asdict(settings).items()))
    app = App(settings, engine, CollectorRegistry(), private_socket=private_socket, loaded=loaded)
    ended = on_signals(reload=app.models.reload)
    on_start(ended.set)
    settle()
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
    lost = asyncio.create_task(app.models.lost.wait())
    signalled = asyncio.create_task(ended.wait())
    await asyncio.wait({lost, signalled}, return_when=asyncio.FIRST_COMPLETED)
    status = 1 if lost.done() else 0
    log.info("ending: %s", "the worker was lost" if status else "asked to")
    for task in (lost, signalled):
        task.cancel()
    if not await app.stop():
        log.error("ending without the run of the graph or the decoding that does not come back")
        os._exit(1)  # whose thread the interpreter would wait for
    log.info("ended")
    return status


def _first_engine(settings: Settings, fallback: str) -> Engine:
    try:
        return load_engine(settings)
    except BundleError as error:
        if not fallback:
            raise
        log.error("%s; starting with the bundle that was served before, %s", error, fallback)
    return load_engine(replace(settings, bundle=fallback))


def run(service: Callable[[], Coroutine[object, object, int]]) -> int:
    """Runs what serves in an event loop of its own; uvloop's where it is installed.

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
        return runner.run(service())
