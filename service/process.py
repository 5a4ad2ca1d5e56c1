"""A worker's process as its supervisor sees it."""

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import sys
import time
from pathlib import Path

from service.admin import post
from service.merging import Page, read_page
from service.private_http import RELOAD
from service.worker import WORKER, Order

__all__ = ["Worker"]

SCRAPE_S = 2.0
"""For a worker's metrics; then those that it told last are taken."""
RELOAD_S = 120.0


class Worker:
    """A process that was started; whether it serves is another matter."""

    def __init__(self, process: asyncio.subprocess.Process, order: Order) -> None:
        self._process = process
        self._order = order
        self._since: float | None = None
        self._page: Page = {}

    @classmethod
    async def start(cls, order: Order) -> "Worker":
        """Starts a process of this program.

        Raises:
            OSError: the system refuses.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "service", WORKER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C goes to the supervisor alone, which passes it on
            env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)},
        )
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it has ended; `serves` will say so
            process.stdin.write(order.to_line().encode())
            await process.stdin.drain()
        return cls(process, order)

    async def serves(self) -> bool:
        """Waits until it serves; False when it ended before."""
        assert self._process.stdout is not None
        if not (await self._process.stdout.readline()).startswith(b"serving "):
            await self._process.wait()
            return False
        self._since = time.monotonic()
        return True

    @property
    def is_serving(self) -> bool:
        """Whether it began to serve and has not ended."""
        return self._since is not None and self._process.returncode is None

    @property
    def age_s(self) -> float:
        """For how long it has served, or served until now that it ended."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    async def ended(self) -> int:
        """Its exit status, negative for a signal, once there is one."""
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def reload(self) -> str:
        """Has it load its bundle anew; blocks.

        Raises:
            AdvsentryError: it goes on with what it has, or gives no answer.
        """
        return self.ask(RELOAD)

    def ask(self, path: str, content: str = "") -> str:
        """What it answers to a command of an operator; blocks.

        Raises:
            AdvsentryError: it refuses, or gives no answer.
        """
        return post(_UnixConnection(self._order.socket, RELOAD_S), f"worker {self._order.number}", path, content)

    def page(self) -> Page:
        """Its metrics now, or those that it told last; blocks for `SCRAPE_S` at most."""
        if self.is_serving:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self._page = self._asked_page()
        return self._page

    def take_page(self) -> Page:
        """What it told last, for once; afterwards there is nothing."""
        page, self._page = self._page, {}
        return page

    def _asked_page(self) -> Page:
        connection = _UnixConnection(self._order.socket, SCRAPE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return read_page(connection.getresponse().read().decode())


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
