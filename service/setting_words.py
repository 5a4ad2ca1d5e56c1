"""Settings as the help and the table of the docs tell them."""

import re
from typing import Literal, get_args, get_origin, get_type_hints

from service.detection.verdict import RevealMode
from service.settings import Settings

__all__ = ["placeholder", "shown", "without_password"]


def placeholder(name: str) -> str:
    """What a setting takes, for the help.

    >>> [placeholder(name) for name in ("port", "drain_s", "admin", "device", "reveal", "host")]
    ['N', 'X', 'on|off', 'cpu|cuda|auto', 'decision|p_values|scores', 'TEXT']
    """
    hint = get_type_hints(Settings)[name]
    if get_origin(hint) is Literal or hint is RevealMode:
        return "|".join(get_args(hint) or RevealMode)
    return {bool: "on|off", int: "N", float: "X", str: "TEXT"}[hint]


def shown(value: object) -> str:
    """A default as a flag or a variable has it.

    >>> shown(False), shown(10.0), shown(0.001), shown("auto"), shown(1024)
    ('off', '10', '0.001', 'auto', '1024')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def without_password(value: object) -> str:
    """A value as a log may have it.

    >>> without_password("redis://:secret@store:6379/0"), without_password("rediss://me:<a:b>@store")
    ('redis://:***@store:6379/0', 'rediss://me:***@store')
    """
    return re.sub(r"(://[^/@:\s]*:)[^/@\s]*@", r"\1***@", str(value))
