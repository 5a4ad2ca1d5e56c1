"""A process whose history grows and is closed, and what it holds meanwhile: CALIBRATION ENTRIES COUNT."""

import gc
import json
import os
import sys
from pathlib import Path

import numpy as np

from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.history import History
from service.history.types import Query
from service.memory import trim
from tests.service.history import toy

PARTS = 4


def main(calibration: str, entries: str, count: str) -> None:
    known, bounds = Calibration.from_bytes(Path(calibration).read_bytes()), Bounds(entries=int(entries))
    queries = [
        Query(**{**vars(query), "client": f"client {number}"})
        for number, query in enumerate(
            toy.stream(toy.pictures(np.random.default_rng(0), int(count)), "", start=0.0, every=0.01)
        )
    ]
    first = History(known, dimensions=toy.DIMENSIONS, bounds=bounds)
    first.observe_all(queries[:256])  # what every history needs again
    first.close()
    began = resident_bytes()
    history = History(known, dimensions=toy.DIMENSIONS, bounds=bounds)
    found = [(0, history.nbytes, resident_bytes() - began)]
    size = len(queries) // PARTS
    for part in range(PARTS):
        for start in range(part * size, (part + 1) * size, 64):
            history.observe_all(queries[start : min(start + 64, (part + 1) * size)])
        found.append((len(history), history.nbytes, resident_bytes() - began))
    history.close()
    print(json.dumps({"grows": found, "closed": resident_bytes() - began}))


def resident_bytes() -> int:
    gc.collect()
    trim()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(*sys.argv[1:])
