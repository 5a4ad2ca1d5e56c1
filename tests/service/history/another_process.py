"""A process that observes the first queries of a search, and ends: URL CALIBRATION SECRET COUNT."""

import sys
from pathlib import Path

from service.history.calibration import Calibration
from service.history.opening import open_history
from tests.service.history import toy
from tests.service.history.test_shared import BOUNDS, search


def main(url: str, calibration: str, secret: str, count: str) -> None:
    known = Calibration.from_bytes(Path(calibration).read_bytes())
    history = open_history(url, known, dimensions=toy.DIMENSIONS, bounds=BOUNDS, secret=Path(secret))
    history.observe_all(search(count=int(count)))
    assert not history.is_degraded
    history.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
