"""What a process runs that decodes for another one. It imports no more than it needs: there are many of them."""

import multiprocessing
import os
import signal
import threading
import warnings
from multiprocessing.connection import wait

from service.scoring.chunks import Chunk
from service.scoring.decoding import Columns, Decoder

__all__ = ["decode", "start_decoding"]

_decoder: Decoder | None = None


def start_decoding(bundle: str, root: str) -> None:
    """Leaves Ctrl-C to the parent, ends with it, however that ends, and makes the decoder."""
    global _decoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is said in its row
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _decoder = Decoder(bundle, root)


def decode(chunk: Chunk) -> Columns:
    """The rows of a chunk."""
    assert _decoder is not None  # start_decoding has run
    return _decoder(chunk)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
