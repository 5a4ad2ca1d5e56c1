"""One line of JSON for each call, written beside the calls: a full disk or a slow one costs lines, never a call."""

import errno
import json
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from service.errors import Overloaded, SetupError
from service.rpc.call import EndedCall
from service.rpc.health import HEALTH
from service.rpc.rates import Bucket

__all__ = ["STDERR", "AccessLog"]

log = logging.getLogger(__name__)

STDERR = "stderr"
WAITING = 4096
"""Lines that may wait to be written."""
QUIET = frozenset({HEALTH})
"""Services whose calls are told only when they fail: probes."""
STRANGERS = frozenset({"UNAUTHENTICATED", "UNIMPLEMENTED"})
"""What calls end with that nobody in particular may make, as many as he likes."""
STRANGERS_PER_S, STRANGERS_BURST = 50.0, 1000.0
"""Lines of these; the others are lost, so that a flood does not fill the disk: a million take 500 MB."""
CLOSE_S = 2.0
PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""What may be wrong with a disk that was right when the path was chosen: no reason not to serve."""


@dataclass(frozen=True, slots=True)
class _Entry:
    at: float
    ended: EndedCall


class AccessLog:
    """Writes from a thread of its own; `note` may be called from the event loop.

    A file that was moved away, as logrotate does, is opened anew. Several processes may write to the same.
    """

    def __init__(
        self,
        target: str,
        *,
        sample: float = 1.0,
        on_dropped: Callable[[], None] = lambda: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Opens the file and starts the thread.

        Args:
            target: a path, or `stderr`.
            sample: share of the calls that end well of which there is a line, 0 to 1; of others there always is.
            on_dropped: called for each line that is lost.
            chance: gives numbers from 0 to 1.

        Raises:
            SetupError: there can be no such file.
        """
        self._target = target
        self._sample = sample
        self._on_dropped = on_dropped
        self._chance = chance
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._file = -1
        self._is_told = False
        self._strangers = Bucket(STRANGERS_PER_S, STRANGERS_BURST)
        try:
            self._open()
        except OSError as error:
            if error.errno not in PASSING:
                raise SetupError(
                    f"--access-log: {target}: {error.strerror}; expected off, stderr or a file that can be written"
                ) from error
            self._failed(error)
        self._thread = threading.Thread(target=self._work, name="access log", daemon=True)
        self._thread.start()

    def note(self, ended: EndedCall) -> None:
        """Takes note of a call; never waits."""
        if ended.code == "OK" and (ended.service in QUIET or self._chance() >= self._sample):
            return
        if self._queue.qsize() >= WAITING or (ended.code in STRANGERS and not self._has_room()):
            self._on_dropped()
        else:
            self._queue.put(_Entry(time.time(), ended))

    def _has_room(self) -> bool:
        try:
            self._strangers.take(1)
        except Overloaded:
            return False
        return True

    def close(self) -> None:
        """Writes what waits, for `CLOSE_S` at most."""
        self._queue.put(None)
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            try:
                self._write(_line(entry))
                self._is_told = False
            except OSError as error:
                self._failed(error)
                self._on_dropped()
        if self._target != STDERR and self._file >= 0:
            os.close(self._file)

    def _write(self, line: bytes) -> None:
        if self._is_moved():
            self._open()
        written = os.write(self._file, line)
        if written < len(line):  # the disk is full: the next line must not go on in this one
            os.write(self._file, b"\n")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _is_moved(self) -> bool:
        if self._target == STDERR:
            return False
        if self._file < 0:
            return True
        try:
            return not os.path.samestat(os.stat(self._target), os.fstat(self._file))
        except FileNotFoundError:
            return True

    def _open(self) -> None:
        if self._target == STDERR:
            self._file = sys.stderr.fileno()
            return
        opened = os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if self._file >= 0:
            os.close(self._file)
        self._file = opened

    def _failed(self, error: OSError) -> None:
        if not self._is_told:
            log.error("the access log %s cannot be written, its lines are lost: %s", self._target, error.strerror)
        self._is_told = True


def _line(entry: _Entry) -> bytes:
    """ASCII, so that no text of a caller is more than a text."""
    ended, call = entry.ended, entry.ended.call
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(entry.at))
    fields = {
        "time": f"{stamp}.{int(entry.at % 1 * 1000):03d}Z",
        "method": f"{ended.service}/{ended.method}",
        "code": ended.code,
        "reason": ended.reason,
        "seconds": round(ended.seconds, 6),
        "request_id": call.request_id,
        "identity": call.caller.name,
        "items": call.items,
        "bytes": call.size_bytes,
        "clean": call.clean,
        "adversarial": call.adversarial,
        "errors": call.reasons,
        "decode_s": round(call.decode_s, 6),
        "queue_s": round(call.queue_s, 6),
        "inference_s": round(call.inference_s, 6),
        "verdict_s": round(call.verdict_s, 6),
        "batch_size": call.batch_size,
        "model_version": call.model_version,
        "error_id": ended.error_id,
    }
    return json.dumps(fields).encode() + b"\n"
