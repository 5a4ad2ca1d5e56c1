"""How late the event loop wakes: what every call waits for beside its own work."""

import asyncio
import time

from service.metrics import Metrics

__all__ = ["watch_loop_lag"]

EVERY_S = 0.25


async def watch_loop_lag(metrics: Metrics) -> None:
    """Sleeps and looks at the clock until cancelled."""
    while True:
        due = time.monotonic() + EVERY_S
        await asyncio.sleep(EVERY_S)
        metrics.loop_lag.set(max(0.0, time.monotonic() - due))
