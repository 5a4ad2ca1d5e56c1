"""Is the calibration still right, and are there more attacks than false alarms explain?

On images like those of the calibration a p-value is uniform, so that a tenth of them is at most 0.1, for each detector
and for the fused one. Another share means that the images have changed (or the graph), and with them the false-positive
rate that verdicts promise. Nothing is done for an image: every few seconds the counts that are exported anyway are
compared with those of an hour ago.
"""

import asyncio
import logging
import math
import time
from collections import deque
from dataclasses import dataclass

from service.metrics import Metrics

__all__ = ["Drift"]

log = logging.getLogger(__name__)

EVERY_S = 10.0
DRIFT_WINDOW_S = 3600.0
ATTACK_WINDOW_S = 600.0

TAIL = 0.1
"""A p-value's bound whose share is watched; a bucket of the histogram ends there."""
LEAST_IMAGES = 1000
"""Of a share. With so many its standard deviation is 0.0095 when nothing has changed."""
WRONG = (0.07, 0.13)
"""Outside of it the alarm is raised."""
RIGHT = (0.08, 0.12)
"""Inside of it the alarm is taken back, so that it does not flicker at the edge."""

TIMES_EXPECTED = 3
"""Adversarial verdicts to those expected of clean images, above which the alarm is raised; below 2 it is taken back."""
FEW = 5
"""Adversarial verdicts that raise no alarm: of few images a handful may come by chance."""


@dataclass(frozen=True)
class _Snapshot:
    """Counts since the start of the process, at one time."""

    at: float
    p_values: dict[str, tuple[int, int]]
    """Of each detector, how many, and how many of them at most `TAIL`."""
    images: int
    adversarial: int
    expected: float


class _Alarm:
    """Raised and taken back once each, with a line in the log."""

    def __init__(self) -> None:
        self.is_raised = False

    def set(self, *, is_wrong: bool, is_right: bool, text: str) -> int:
        if is_wrong and not self.is_raised:
            log.error("alarm: %s", text)
            self.is_raised = True
        elif is_right and self.is_raised:
            log.warning("the alarm is over: %s", text)
            self.is_raised = False
        return int(self.is_raised)


class Drift:
    """Two alarms over sliding windows; memory for one snapshot every few seconds of an hour."""

    def __init__(self, metrics: Metrics) -> None:
        """Begins with what has been counted until now."""
        self._metrics = metrics
        self._alarms: dict[str, _Alarm] = {}
        self._attack = _Alarm()
        self._snapshots: deque[_Snapshot] = deque()
        self.restart()

    def restart(self) -> None:
        """Forgets what was counted before: another bundle is served from now on."""
        self._snapshots.clear()
        self.look(time.monotonic())

    async def watch(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Compares the counts of now with earlier ones, and sets the gauges.

        Args:
            now: monotonic time, never less than before.
        """
        latest = self._count(now)
        self._snapshots.append(latest)
        while len(self._snapshots) > 1 and self._snapshots[1].at <= now - DRIFT_WINDOW_S:
            self._snapshots.popleft()
        for detector in latest.p_values:
            self._look_at(detector, self._snapshots[0], latest)
        begin = max(
            (one for one in self._snapshots if one.at <= now - ATTACK_WINDOW_S),
            key=lambda one: one.at,
            default=self._snapshots[0],
        )
        self._look_for_attacks(begin, latest)

    def _count(self, now: float) -> _Snapshot:
        judged = self._metrics.judged
        p_values = {name: bins.at_most(TAIL) for name, bins in self._metrics.p_values().items()}
        return _Snapshot(now, p_values, judged.images, judged.adversarial, judged.expected)

    def _look_at(self, detector: str, before: _Snapshot, latest: _Snapshot) -> None:
        all_before, tail_before = before.p_values.get(detector, (0, 0))
        count, tail = latest.p_values[detector]
        images = count - all_before
        share = (tail - tail_before) / images if images >= LEAST_IMAGES else math.nan
        self._metrics.drift.labels(detector).set(share)
        text = f"calibration of {detector}: a share of {share:.3f} of {images} images has p <= {TAIL}, expected {TAIL}"
        self._metrics.drift_alarm.labels(detector).set(
            self._alarms.setdefault(detector, _Alarm()).set(
                is_wrong=share < WRONG[0] or share > WRONG[1],
                is_right=math.isnan(share) or RIGHT[0] <= share <= RIGHT[1],
                text=text,
            )
        )

    def _look_for_attacks(self, before: _Snapshot, latest: _Snapshot) -> None:
        images, found = latest.images - before.images, latest.adversarial - before.adversarial
        expected = latest.expected - before.expected
        self._metrics.adversarial_share.set(found / images if images else math.nan)
        self._metrics.adversarial_alarm.set(
            self._attack.set(
                is_wrong=found > TIMES_EXPECTED * expected + FEW,
                is_right=found <= 2 * expected,
                text=f"{found} of {images} images are adversarial, {expected:.1f} expected of clean ones",
            )
        )
