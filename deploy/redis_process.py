"""A Redis server of one's own, on a Unix socket in a folder, for tests and measurements."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.errors import SetupError

__all__ = ["RedisProcess", "wait_for"]

WAIT_S = 60.0


class RedisProcess:
    """Keeps nothing on disk; `kill` ends it."""

    def __init__(self, folder: Path) -> None:
        """Starts it.

        Args:
            folder: for the socket and the log; its path must be short, as sockets want it.

        Raises:
            SetupError: there is no redis-server, or no package for it.
        """
        self.folder, self.socket = folder, folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Patient with a busy machine."""
        return f"unix://{self.socket}?socket_timeout=1"

    def start(self) -> None:
        """Starts it, empty; returns when it answers."""
        program = shutil.which("redis-server")
        if program is None:
            raise SetupError("there is no redis-server here (Debian: apt-get install redis-server)")
        place = ["--unixsocket", str(self.socket), "--port", "0", "--dir", str(self.folder), "--logfile", "redis.log"]
        self._process = subprocess.Popen([program, *place, "--save", ""], env={})
        wait_for(self._answers)

    def client(self) -> Any:
        """A connection of the package `redis`."""
        return _package().Redis(unix_socket_path=str(self.socket), protocol=2)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        if self._process:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it at once; what it kept is gone."""
        if self._process:
            self._process.kill()
            self._process.wait(WAIT_S)
            self._process = None
            self.socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except _package().RedisError:
            return False


def _package() -> Any:
    try:
        import redis
    except ImportError as error:
        raise SetupError("the package redis is not installed: pip install 'advsentry[redis]'") from error
    return redis


def wait_for(holds: Callable[[], bool], *, seconds: float = WAIT_S) -> None:
    """Until it holds.

    Raises:
        TimeoutError: it did not.
    """
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError(f"waited {seconds:g} s in vain")
        time.sleep(0.01)
