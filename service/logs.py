"""The form of log lines."""

import json
import logging
import sys
import time
from typing import Literal

__all__ = ["start_logging"]


class _JsonLines(logging.Formatter):
    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._worker,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of gRPC's says anything.

    When a caller leaves in the instant in which its call's status is sent, which is once in a million calls, grpc.aio
    logs an error with its stack; such a call has ended as its caller wanted, and is counted.
    """
    return not str(record.msg).startswith("ExecuteBatchError raised in core by servicer method")


def start_logging(form: Literal["plain", "json"], level: str, *, worker: int = 0) -> None:
    """Sends the log to standard error.

    Of other libraries nothing below `info` is logged: Pillow's debug lines tell what an image's tags say.

    Args:
        worker: of several processes, the number of this one; 0 says nothing of it.
    """
    handler = logging.StreamHandler(sys.stderr)
    who = f"worker {worker} " if worker else ""
    plain = logging.Formatter(f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s")
    handler.setFormatter(_JsonLines(worker) if form == "json" else plain)
    logging.basicConfig(
        level=max(logging.getLevelNamesMapping()[level.upper()], logging.INFO), handlers=[handler], force=True
    )
    logging.getLogger("service").setLevel(level.upper())
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
