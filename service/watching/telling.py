"""What the log names of those who are watched, without a flood of lines, and what health says of the history."""

import asyncio
import logging
from collections.abc import Callable

from service.history.types import NOBODY, Component, Observation
from service.rpc.rates import Bucket
from service.watching.ledger import CLIENT, Step, Who
from service.watching.types import Rules

__all__ = ["Teller", "facts", "name_of", "tell_health"]

log = logging.getLogger(__name__)

LINES_PER_S, LINES_BURST = 0.2, 20.0
HEALTH_S = 1.0


def name_of(who: Who, name: str) -> str:
    """As an operator reads it.

    >>> name_of(("5ca1ab1e", -1), "shop"), name_of(("", 7), ""), name_of(("", -1), "")
    ("'shop'", "everyone's component 7", 'nobody in particular')
    """
    client, component = who
    if client != NOBODY:
        return repr(name)
    return "nobody in particular" if component == CLIENT else f"everyone's component {component}"


def facts(component: Component) -> str:
    """What speaks against a component."""
    return (
        f"{component.size} queries, {component.per_s:.2g}/s, {component.clients} clients, "
        f"{component.label_flips} label flips, {component.verdict_flips} verdict flips, "
        f"{component.pixel_links} repeats of pixels, {component.near_boundary} near a boundary"
    )


class Teller:
    """Says when somebody is watched from now on, and when he has too many flags."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._bucket = Bucket(LINES_PER_S, LINES_BURST)
        self._unsaid = 0

    def flagged(self, step: Step, who: Who, seen: Observation, name: str = "") -> None:
        """Takes note of a flag, of a client with a name."""
        if step is Step.ONE_MORE:
            return
        if not self._bucket.fits(1):
            self._unsaid += 1
            return
        self._bucket.take(1)
        component = seen.everyone if seen.own is None or who[0] == NOBODY else seen.own
        what = (
            "is watched"
            if step is Step.FIRST
            else "has too many flags" + (", and is cut off" * self._rules.cuts_off(who[0]))
        )
        why = "" if component is None else f": {facts(component)}"
        unsaid = f" ({self._unsaid} such lines were left out)" if self._unsaid else ""
        log.warning("%s %s, p = %.2g%s%s", name_of(who, name), what, seen.p_value, why, unsaid)
        self._unsaid = 0


async def tell_health(trouble: Callable[[], str | None], set_health: Callable[[bool | None], None]) -> None:
    """Has health, and the log, say whether the history sees all that it should, until cancelled.

    Args:
        trouble: why it does not; empty when it does, None where there is none.
    """
    said = ""
    while True:
        found = trouble()
        set_health(None if found is None else not found)
        if (found or "") != said:
            said = found or ""
            log.error("the query history: %s", said) if said else log.warning("the query history is well again")
        await asyncio.sleep(HEALTH_S)
