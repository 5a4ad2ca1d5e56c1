"""Which attacks are measured, against which servers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deploy.redteam.disguise import BLINDS, Blinded, Careful
from deploy.redteam.hop_skip_jump import HopSkipJumpSearch
from deploy.redteam.nes import NesSearch
from deploy.redteam.running import Budget
from deploy.redteam.search import Attack
from deploy.redteam.square import SquareSearch
from service.settings import Settings
from service.watching.types import Mode, Rules

__all__ = ["OARS", "OFF", "PLAIN", "Case", "Server", "cases"]

DEFAULTS = Settings()
OFF = "off"
ACCOUNTS = (1, 10, 100)
FIRST = 500
"""Queries of a plain attack against a server that only tells of flags: enough for the first one, and whether the attack
comes to its end follows from the server without a history, whose answers are the same."""
CAREFUL_FLAGS = 100
LEAST_SIZE = 5
"""Of a component that is judged: a search with fewer queries in a window cannot be seen."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Settings that decide what becomes of a search."""

    level: float = DEFAULTS.history_level
    window_s: float = DEFAULTS.history_window_s
    flags: int = DEFAULTS.history_flags
    late_flags: int = 20
    """Of a silent server; the default would close no account."""

    def rules(self, mode: str) -> Rules | None:
        """Of a response mode; None for no history."""
        if mode == OFF:
            return None
        return Rules(
            mode=Mode(mode),
            level=self.level,
            window_s=self.window_s,
            flags=self.flags,
            late_flags=self.late_flags if mode == Mode.SILENT else 0,
        )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack against one kind of server."""

    name: str
    family: str
    """Square, NES or HopSkipJump."""
    how: str
    """What the attacker does besides."""
    attack: Attack
    mode: str
    budget: Budget
    eps: tuple[int, ...]
    """Budgets in levels; several only where the attack does not depend on them."""


PLAIN, OARS = "plain", "OARS"


def cases(queries: int, eps: tuple[int, int], server: Server) -> tuple[Case, ...]:
    """All of them.

    Args:
        queries: budget of an attack.
        eps: the bundle's budget and a larger one, in levels.
        server: whose window the slow ones evade.
    """
    return (*_plain(queries, eps), *_adapted(queries, eps), *_disguised(queries, eps, server), *_silent(queries, eps))


def _attacks(queries: int, *, adapts: bool) -> Mapping[str, Attack]:
    return {
        "square": SquareSearch(queries=queries, adapts=adapts),
        "nes": NesSearch(adapts=adapts),
        "hop_skip_jump": HopSkipJumpSearch(adapts=adapts),
    }


def _case(
    family: str, how: str, attack: Attack, mode: str, budget: Budget, eps: tuple[int, ...], *, mark: str = ""
) -> Case:
    accounts = f"_accounts_{budget.accounts}" if budget.accounts > 1 else ""
    words = (how.replace(" ", "_").lower(), family, f"{mode}{accounts}{mark}")
    return Case(name="_".join(words), family=family, how=how, attack=attack, mode=mode, budget=budget, eps=eps)


def _per_eps(
    family: str, how: str, attack: Attack, mode: str, budget: Budget, eps: tuple[int, ...]
) -> tuple[Case, ...]:
    """One case where the attack does not depend on the budget, else one for each."""
    if family == "hop_skip_jump":
        return (_case(family, how, attack, mode, budget, eps),)
    return tuple(_case(family, how, attack, mode, budget, (one,), mark=f"_eps_{one}") for one in eps)


def _plain(queries: int, eps: tuple[int, int]) -> tuple[Case, ...]:
    full, first = Budget(queries=queries), Budget(queries=min(queries, FIRST))
    found = list[Case]()
    for family, attack in _attacks(queries, adapts=False).items():
        found += _per_eps(family, PLAIN, attack, OFF, full, eps)
        found += _per_eps(family, PLAIN, attack, Mode.ANNOTATE, first, eps[1:])
        found += _per_eps(family, PLAIN, attack, Mode.REJECT, full, eps[1:])
    return tuple(found)


def _adapted(queries: int, eps: tuple[int, int]) -> tuple[Case, ...]:
    found = list[Case]()
    for family, attack in _attacks(queries, adapts=True).items():
        for accounts in ACCOUNTS[:1] if family == "nes" else ACCOUNTS:
            # HopSkipJump's case tells of both budgets at no cost.
            own = eps if accounts == 1 or family == "hop_skip_jump" else eps[1:]
            found += _per_eps(family, OARS, attack, Mode.REJECT, Budget(queries=queries, accounts=accounts), own)
        if family != "nes":
            spread = Budget(queries=queries, accounts=ACCOUNTS[-1], is_spread=True)
            found += _per_eps(family, "OARS spread", attack, Mode.REJECT, spread, eps[1:])
    return tuple(found)


def _disguised(queries: int, eps: tuple[int, int], server: Server) -> tuple[Case, ...]:
    attacks, adapted = _attacks(queries, adapts=False), _attacks(queries, adapts=True)
    budget, found = Budget(queries=queries), list[Case]()
    for blind in BLINDS:
        attack = Blinded(attack=attacks["square"], blind=blind)
        found += _per_eps("square", f"blinded {blind}", attack, Mode.REJECT, budget, eps[1:])
    told = replace(budget, flags=CAREFUL_FLAGS)
    waiting = replace(budget, waits_s=server.window_s)
    slow = replace(budget, every_s=server.window_s / (LEAST_SIZE - 1))
    for family in ("square", "hop_skip_jump"):
        found += _per_eps(family, "careful", Careful(attack=adapted[family]), Mode.REJECT, budget, eps[1:])
    found += _per_eps("square", "careful", Careful(attack=adapted["square"]), Mode.ANNOTATE, told, eps[1:])
    found += _per_eps("square", "waiting", adapted["square"], Mode.REJECT, waiting, eps[1:])
    found += _per_eps("square", "slow", adapted["square"], Mode.REJECT, slow, eps[1:])
    return tuple(found)


def _silent(queries: int, eps: tuple[int, int]) -> tuple[Case, ...]:
    attacks, found = _attacks(queries, adapts=False), list[Case]()
    for family in ("square", "hop_skip_jump"):
        for accounts in ACCOUNTS if family == "hop_skip_jump" else ACCOUNTS[:1]:
            found += _per_eps(
                family, PLAIN, attacks[family], Mode.SILENT, Budget(queries=queries, accounts=accounts), eps[1:]
            )
    return tuple(found)
