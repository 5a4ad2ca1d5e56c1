"""How long runs of the graph take, learned from those that ran: for admission, retry hints and the watchdog."""

from collections import deque

__all__ = ["Pace"]

RECENT = 1000
"""Runs whose 99th percentile is known."""
GAIN = 0.25
"""Weight of a new run in the average."""
STEP = 2.0
"""A run counts as at most so many times longer, or shorter, than the average: one outlier is no news, ten are."""


class Pace:
    """Running averages of what batches took, by size; everything is 0 before the first run.

    Sizes share an average when they lie between the same powers of 2. Of a size the shortest bound is believed: a batch
    takes at most what a larger one takes, and at most as much for each image as a smaller one. A size that ran once, in
    a bad moment, therefore spoils nothing.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._averages: dict[int, tuple[float, float]] = {}  # images and seconds, by the size's bits
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._unsorted = 0
        self.one_s = 0.0
        """A batch of one image."""
        self.item_s = 0.0
        """What each image more costs while batches are full."""
        self.slow_s = 0.0
        """99th percentile of the last runs."""

    def note(self, size: int, took_s: float) -> None:
        """Takes note of a run of `size` images."""
        place = (size - 1).bit_length()
        images, seconds = self._averages.get(place, (float(size), took_s))
        taken_s = min(max(took_s, seconds / STEP), seconds * STEP)
        self._averages[place] = (images + GAIN * (size - images), seconds + GAIN * (taken_s - seconds))
        self.one_s = self.seconds(1)
        self.item_s = self.seconds(self._max_batch) / self._max_batch
        self._recent.append(took_s)
        self._unsorted += 1
        if 20 * self._unsorted >= len(self._recent):
            self._unsorted = 0
            self.slow_s = sorted(self._recent)[int(0.99 * (len(self._recent) - 1))]

    def seconds(self, size: int) -> float:
        """What `size` images may take in one run; in several when there are more than one run holds."""
        runs = [took if size <= images else took * size / images for images, took in self._averages.values()]
        return min(runs, default=0.0)

    def more_within(self, seconds: float) -> int:
        """The most images that a run may hold to take no longer than one image and so many seconds.

        1 at least; `max_batch` before the first run, and on a GPU, where a run of many takes as long as one of one.
        """
        if not self._averages:
            return self._max_batch
        limit = self.one_s + seconds
        most = [images * limit / took for images, took in self._averages.values() if took <= limit]
        return max(1, min(self._max_batch, int(max(most, default=1.0))))
