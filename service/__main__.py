"""Command line of the service side: `advsentry`."""

import os
import signal
import sys
import warnings
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; gives its exit status."""
    # The process would end by it. Nothing is read yet of what a reload would read, and imports take a second.
    if (sys.argv[1:] if arguments is None else list(arguments))[:1] in (["serve"], ["worker"]):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # gRPC's core reads this when it is first imported; its own lines would stand beside our one clear one.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # numpy's matrices here are small: threads for them cost more than they save, and run beside those of the graph.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Another program's: prometheus_client would keep our counters in files there, and fail where it does not exist.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    # Pillow's remarks on damaged files; what is wrong with an image is said in its own line.
    warnings.filterwarnings("ignore", module="PIL")
    from service.cli import run_command

    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
