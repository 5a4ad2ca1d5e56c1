"""`advsentry serve` in a process of its own, and what the kernel says of it."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploy.reliability.metrics_page import MetricsPage, read_metrics
from service.errors import SetupError

__all__ = ["Serving", "serving"]

MB = 1e6
READY = re.compile(r"serving grpc=(\S+) metrics=(\S+)")


class Serving:
    """A server that runs."""

    def __init__(self, process: "subprocess.Popen[str]", target: str, metrics_address: str, log: Path) -> None:
        self.process = process
        self.target = target
        self.metrics_address = metrics_address
        self._log = log

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def errors_logged(self) -> int:
        """Lines of level error in its log, and tracebacks; not the alarms that noise for images must raise."""
        return len(re.findall(r"\bERROR\b(?! +service\.drift: alarm)|^Traceback", self.log, re.MULTILINE))

    def metrics(self) -> MetricsPage:
        """Its counters now."""
        return read_metrics(self.metrics_address)

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
        assert found is not None, f"/proc has no {name}"
        return int(found[1])

    def rss_mb(self) -> float:
        """Resident memory, in units of 10^6 bytes, as all figures in MB."""
        return self._status("VmRSS") * 1024 / MB

    def peak_mb(self) -> float:
        """The most that was resident since `forget_peak`."""
        return self._status("VmHWM") * 1024 / MB

    def forget_peak(self) -> None:
        """Begins the peak anew at what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")

    def threads(self) -> int:
        """Threads that it has."""
        return self._status("Threads")

    def descriptors(self) -> int:
        """Files and sockets that it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_s(self) -> float:
        """Processor time of the threads that it has, until now."""
        spent_ns = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                spent_ns += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        return spent_ns / 1e9

    def terminate(self, timeout_s: float) -> int:
        """Sends SIGTERM and gives the exit status.

        Raises:
            subprocess.TimeoutExpired: it did not end.
        """
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    flags: Mapping[str, object],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cores: frozenset[int] | None = None,
    log: Path | None = None,
    tree: Path | None = None,
) -> Iterator[Serving]:
    """Starts a server and kills it at the end, if it still runs.

    Args:
        command: what comes before `serve`.
        flags: settings by name.
        folder: for its log.
        environment: beside that of this process.
        cores: that it may run on; all when None.
        log: where standard error goes; a file in `folder` when None.
        tree: the folder that it is started in, whose code it then runs.

    Raises:
        SetupError: it did not say that it serves.
    """
    merged = {"port": 0, "metrics-port": 0, **flags}
    arguments = [*command, "serve"]
    for name, value in merged.items():
        arguments += [f"--{name}", str(value)]
    path = log or folder / f"server-{time.monotonic_ns()}.log"
    with (
        path.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
            cwd=tree,
        ) as process,
    ):
        try:
            if cores is not None:  # before it has threads; preexec_fn would fork, which gRPC's threads do not bear
                os.sched_setaffinity(process.pid, cores)
            assert process.stdout is not None
            found = READY.match(process.stdout.readline())
            if found is None:
                process.wait(10)
                raise SetupError(f"the server did not start: {path.read_text(encoding='utf-8')[-500:]}")
            yield Serving(process, found[1], found[2], path)
        finally:
            process.kill()
