"""Whom a server watches, for its operator: as JSON between processes and programs, as a table for people."""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from service.errors import SetupError
from service.history.types import NOBODY, Observation
from service.report import table
from service.watching.ledger import CLIENT, Watched
from service.watching.watch import HistoryWatch

__all__ = ["as_text", "forgive", "merged", "told"]

HEADER = ("client", "flags", "state", "since", "last", "p-value", "queries", "label flips", "verdict flips", "clients")


def told(watch: HistoryWatch | None) -> str:
    """One JSON object: the mode, what is wrong, and everybody with flags, those with the last one first."""
    if watch is None:
        return json.dumps({"mode": "off", "trouble": "", "is_shared": False, "watched": []})
    return json.dumps(
        {
            "mode": watch.rules.mode,
            "trouble": watch.trouble,
            "is_shared": watch.is_shared,
            "watched": [_entry(one, is_cut_off=watch.is_cut_off(one)) for one in watch.watched()],
        }
    )


def _entry(one: Watched, *, is_cut_off: bool) -> dict[str, Any]:
    client, component = one.who
    return {
        "client": None if client == NOBODY else one.name or f"#{client}",
        "key": client,
        "component": None if component == CLIENT else component,
        "flags": one.flags,
        "since": one.since,
        "last": one.last,
        "is_cut_off": is_cut_off,
        "p_value": one.observation.p_value,
        "facts": _facts(one.observation),
    }


def _facts(seen: Observation) -> dict[str, Any] | None:
    """Of the component that speaks most against it."""
    found = [component for component in (seen.own, seen.everyone) if component is not None]
    return dataclasses.asdict(max(found, key=lambda component: component.statistic)) if found else None


def merged(parts: Sequence[dict[str, Any]]) -> str:
    """What several processes told, as one; each watches what reaches it, or all the same where they share a history."""
    watched = [entry for part in parts for entry in part["watched"]]
    is_shared = any(part["is_shared"] for part in parts)
    if is_shared:
        names = {entry["key"]: entry["client"] for entry in watched if entry["client"] != f"#{entry['key']}"}
        ordered = sorted(watched, key=lambda entry: entry["flags"])
        found = {(entry["key"], entry["component"]): entry for entry in ordered}.values()
        watched = [{**entry, "client": names.get(entry["key"], entry["client"])} for entry in found]
    return json.dumps(
        {
            "mode": parts[0]["mode"] if parts else "off",
            "trouble": "; ".join(dict.fromkeys(part["trouble"] for part in parts if part["trouble"])),
            "is_shared": is_shared,
            "watched": sorted(watched, key=lambda entry: -entry["last"]),
        }
    )


def forgive(watch: HistoryWatch | None, client: str) -> int:
    """As `HistoryWatch.forgive`.

    Raises:
        SetupError: there is no history.
    """
    if watch is None:
        raise SetupError("this server has no query history; nobody is watched")
    return watch.forgive(client)


def as_text(found: dict[str, Any], now: float) -> str:
    """What `told` gives, for people."""
    lines = [f"mode {found['mode']}" + (f"; {found['trouble']}" if found["trouble"] else "")]
    if found["watched"]:
        lines.append(table([HEADER, *(_row(entry, now) for entry in found["watched"])]))
    else:
        lines.append("nobody is watched")
    return "\n".join(lines)


def _row(entry: dict[str, Any], now: float) -> tuple[str, ...]:
    facts = entry["facts"] or {}
    return (
        _name(entry),
        str(entry["flags"]),
        "cut off" if entry["is_cut_off"] else "watched",
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["since"])),
        f"{max(0.0, now - entry['last']):.0f} s ago",
        f"{entry['p_value']:.2g}",
        *(str(facts.get(name, "-")) for name in ("size", "label_flips", "verdict_flips", "clients")),
    )


def _name(entry: dict[str, Any]) -> str:
    if entry["client"] is not None:
        return ascii(entry["client"])[1:-1]
    return "(nobody)" if entry["component"] is None else f"(component {entry['component']})"
