"""Server processes, each on one core, and what they take of it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from service.errors import BundleError

__all__ = ["Server", "echoing", "pinned", "server", "serving", "started"]


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    target: str
    pid: int
    start_s: float
    """From the start of its process until it served."""
    metrics: str = ""
    """HOST:PORT of its metrics; "none" of a server without."""

    def cpu_s(self) -> float:
        """Processor time of all threads of the process and its children until now."""
        return sum(_cpu_s(pid) for pid in _family(self.pid))

    def loop_s(self) -> float:
        """Processor time until now of the thread that the process began with: of ours, the event loop's."""
        spent_ns = Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text(encoding="ascii").split()[0]
        return int(spent_ns) / 1e9

    def resident_bytes(self) -> int:
        """Memory of the process and its children that is in RAM now; what they share counts for each."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) for pid in _family(self.pid))
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


def _family(pid: int) -> list[int]:
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            found += _family(int(child))
    return found


def pinned(core: int) -> Callable[[], None]:
    """For `preexec_fn`: every thread of the new process is born on that core."""
    return lambda: os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def started(
    arguments: Sequence[str],
    core: int | None,
    *,
    output: "TextIO | int" = subprocess.PIPE,
    errors: "TextIO | None" = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> "Iterator[subprocess.Popen[str]]":
    """Runs a process on one core, and asks it to end.

    Args:
        core: None for all that ours may use.
        output: where its standard output goes, a pipe by default.
        errors: where its standard error goes; None for ours.
        environment: all its variables; None for ours.
        directory: it runs in; None for ours.
    """
    with subprocess.Popen(
        arguments,
        stdout=output,
        stderr=errors,
        text=True,
        env=environment,
        cwd=directory,
        preexec_fn=None if core is None else pinned(core),
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def server(bundle: Path, core: int, max_batch: int, *, history: str = "auto") -> Iterator[Server]:
    """Serves a bundle on one core with one graph thread.

    Args:
        history: the mode of the query history.

    Raises:
        BundleError: it did not start.
    """
    flags = {"threads": 1, "max-batch": max_batch, "history": history}
    with serving(bundle, *(word for name, value in flags.items() for word in (f"--{name}", value)), core=core) as made:
        yield made


@contextlib.contextmanager
def serving(bundle: Path, *flags: object, core: int | None = None) -> Iterator[Server]:
    """Serves a bundle with the defaults but for these flags.

    It says nothing of the alarms that images raise which are none of the model's; why it does not start it still tells.

    Raises:
        BundleError: it did not start.
    """
    arguments = ["-m", "service", "serve", "--bundle", str(bundle), "--port", "0"]
    arguments += ["--metrics-port", "0", "--log-level", "critical", "--lame-duck-s", "0", *map(str, flags)]
    with _saying(arguments, core) as made:
        yield made


@contextlib.contextmanager
def echoing(size: int, core: int) -> Iterator[Server]:
    """A server without any work, which answers Detect calls with so many bytes.

    Raises:
        BundleError: it did not start.
    """
    with _saying(["-m", "deploy.serving_peers.echo", str(size)], core) as made:
        yield made


@contextlib.contextmanager
def _saying(arguments: Sequence[str], core: int | None) -> Iterator[Server]:
    """A program of this interpreter that says where it serves."""
    begun = time.monotonic()
    with started([sys.executable, *arguments], core) as process:
        assert process.stdout is not None
        found = re.match(r"serving grpc=(\S+) metrics=(\S+)", process.stdout.readline())
        if found is None:
            raise BundleError("the server did not start; its own message stands above")
        yield Server(found[1], process.pid, time.monotonic() - begun, found[2])
