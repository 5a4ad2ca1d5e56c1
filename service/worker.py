"""One of several serving processes: what its supervisor tells it, and how it learns that the supervisor is gone."""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from service.app import Ports
from service.errors import SetupError
from service.logs import start_logging
from service.serve import run, serve
from service.settings import Settings

__all__ = ["WORKER", "Order", "run_worker"]

WORKER = "worker"
"""The command by which a supervisor starts one; for nobody else, so that no help names it."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is told, as one line on its standard input."""

    settings: Settings
    number: int
    socket: Path
    """Where it tells its metrics and takes reloads."""
    fallback: str = ""
    """The bundle to start with when the one of the settings cannot be; empty for none."""

    def to_line(self) -> str:
        """One line of JSON."""
        values = {name: str(value) for name, value in asdict(self.settings).items()}
        told = {"settings": values, "number": self.number, "socket": str(self.socket), "fallback": self.fallback}
        return json.dumps(told) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Order":
        """The order of a line.

        Raises:
            SetupError: it is none.
        """
        try:
            told = json.loads(line)
            values, number, place, fallback = told["settings"], told["number"], Path(told["socket"]), told["fallback"]
        except (ValueError, KeyError, TypeError) as error:
            raise SetupError("`worker` is started by `advsentry serve --workers N`, not by hand") from error
        return cls(settings=Settings.build({}, values), number=number, socket=place, fallback=fallback)


def run_worker() -> int:
    """Serves as standard input says, until a signal or the end of that input, which is the supervisor's.

    Raises:
        AdvsentryError: it could not start.
    """
    order = Order.from_line(sys.stdin.readline())
    start_logging(order.settings.log_format, order.settings.log_level, worker=order.number)
    return run(
        lambda: serve(
            order.settings,
            _announce,
            private_socket=order.socket,
            fallback=order.fallback,
            on_start=_end_with_supervisor,
        )
    )


def _announce(ports: Ports) -> None:
    sys.stdout.write(f"serving {ports}\n")
    sys.stdout.flush()


def _end_with_supervisor(end: Callable[[], None]) -> None:
    """Has the process end when standard input does."""
    loop, source = asyncio.get_running_loop(), sys.stdin.fileno()

    def readable() -> None:
        loop.remove_reader(source)  # nothing is ever sent: this is the end
        end()

    loop.add_reader(source, readable)
