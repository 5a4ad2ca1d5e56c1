"""A real server in this process, on a loop in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import grpc
from prometheus_client import CollectorRegistry

from service.app import App, Ports
from service.detection.engine import Engine
from service.settings import Settings
from service.watching.opening import OpenWatch, open_watch


class Running:
    """The server, its channel and its metrics."""

    def __init__(self, app: App, ports: Ports, registry: CollectorRegistry, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.ports = ports
        self.registry = registry
        self.loop = loop
        self.channel = grpc.insecure_channel(ports.grpc)

    def value(self, name: str, **labels: str) -> float:
        """A metric's value; 0 when it has none yet."""
        return self.registry.get_sample_value(name, labels) or 0.0


@contextlib.contextmanager
def running(engine: Engine, *, open_watch: OpenWatch = open_watch, **settings: object) -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    registry = CollectorRegistry()
    merged = {"port": 0, "metrics_port": 0, "lame_duck_s": 0.0, "drain_s": 2.0, **settings}

    async def start() -> tuple[App, Ports]:
        app = App(Settings(**merged), engine, registry, open_watch=open_watch)  # type: ignore[arg-type]
        return app, await app.start()

    try:
        app, ports = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
        server = Running(app, ports, registry, loop)
        try:
            yield server
        finally:
            server.channel.close()
            asyncio.run_coroutine_threadsafe(app.stop(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
