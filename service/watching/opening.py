"""Settings and a bundle's calibration to a watch, or to none."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from service.detection.bundle import Bundle
from service.errors import SetupError
from service.history import snapshot
from service.history.bounds import Bounds
from service.history.calibration import Calibration
from service.history.history import History
from service.history.opening import open_history
from service.metrics import Metrics
from service.settings import Settings
from service.watching.types import Kept, Mode, Rules
from service.watching.watch import HistoryWatch

__all__ = ["OpenHistory", "OpenWatch", "open_watch"]

log = logging.getLogger(__name__)


class OpenHistory(Protocol):
    """As `service.history.opening.open_history`."""

    def __call__(
        self, url: str, calibration: Calibration, *, dimensions: int, bounds: Bounds, secret: Path | None
    ) -> Kept:
        """A new history."""


class OpenWatch(Protocol):
    """As `open_watch`."""

    def __call__(
        self,
        bundle: Bundle,
        settings: Settings,
        metrics: Metrics,
        *,
        loop: asyncio.AbstractEventLoop,
        is_first: bool,
    ) -> HistoryWatch | None:
        """The watch of a bundle."""


def _history_of(bundle: Bundle) -> Calibration | None:
    return bundle.history


def open_watch(
    bundle: Bundle,
    settings: Settings,
    metrics: Metrics,
    *,
    loop: asyncio.AbstractEventLoop,
    is_first: bool,
    calibration_of: Callable[[Bundle], Calibration | None] = _history_of,
    open_history: OpenHistory = open_history,
) -> HistoryWatch | None:
    """The watch of a bundle; None where there is to be none. Takes its time, in whatever thread.

    Args:
        loop: the one that the watch is used from.
        is_first: whether what an earlier process kept is to be taken up; not where a bundle replaces another.

    Raises:
        SetupError: a setting asks for what the bundle does not have, or does not go with another; a file cannot be
            read.
    """
    calibration = calibration_of(bundle)
    if settings.history == "off":
        return None
    try:
        if calibration is None:
            raise SetupError(
                f"--history {settings.history}: expected a bundle with a calibration of the query history, and "
                f"{bundle.path.name} has none; add one to the bundle, or set --history off"
            )
        calibration.check_level(settings.history_level)
    except SetupError as error:
        if settings.history != "auto":
            raise
        log.info("no query history: %s", error)
        return None
    _check(settings)
    mode = Mode.OBSERVE if settings.history == "auto" else Mode(settings.history)
    bounds = Bounds(
        entries=settings.history_entries,
        max_bytes=settings.history_bytes,
        window_s=settings.history_window_s,
        rotate_s=max(Bounds.rotate_s, 2 * settings.history_window_s),
    )
    dimensions = bundle.manifest.embedding_dim
    secret = Path(settings.history_secret) if settings.history_secret else None
    history: Kept | None = None
    place = Path(settings.history_snapshot) if settings.history_snapshot else None
    if place is not None and is_first:
        history = _kept(place, calibration, dimensions, bounds)
    if history is None:
        history = open_history(settings.history_url, calibration, dimensions=dimensions, bounds=bounds, secret=secret)
    rules = Rules(
        mode=mode,
        level=settings.history_level,
        window_s=settings.history_window_s,
        flags=settings.history_flags,
        late_flags=settings.history_late_flags if mode is Mode.SILENT else 0,
        is_plain=settings.history_action == "plain" and mode is Mode.REJECT,
        wait_s=settings.history_wait_s,
    )
    save = None
    if place is not None and isinstance(history, History):
        save = partial(_save, history, place)
    log.info("query history: %s, level %g, window %g s", mode, rules.level, rules.window_s)
    return HistoryWatch(history, rules, metrics, loop=loop, save=save)


def _check(settings: Settings) -> None:
    if not settings.history_snapshot:
        return
    if settings.workers > 1:
        raise SetupError(
            f"--history-snapshot goes with one process, got --workers {settings.workers}; leave it out, or share the "
            "history with --history-url"
        )
    if settings.history_url:
        raise SetupError("--history-snapshot is for a history in this process; leave it out with --history-url")


def _kept(place: Path, calibration: Calibration, dimensions: int, bounds: Bounds) -> History | None:
    """What an earlier process kept; None, and a line in the log, when that cannot be used."""
    if not place.exists():
        return None
    try:
        history = snapshot.load(place, calibration, dimensions=dimensions, bounds=bounds)
    except SetupError as error:
        log.warning("the query history begins anew: %s", error)
        return None
    log.info("query history: %d queries from %s", len(history), place)
    return history


def _save(history: History, place: Path) -> None:
    try:
        snapshot.save(history, place)
    except SetupError as error:
        log.error("%s", error)
    else:
        log.info("query history: %d queries kept in %s", len(history), place)
