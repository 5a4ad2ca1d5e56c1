"""Arguments that several commands take."""

import argparse
from fractions import Fraction
from pathlib import Path

from service.errors import SetupError

__all__ = ["check_flags", "number"]


def check_flags(out: Path, *, seed: int, **counts: int | None) -> None:
    """Refuses what no command that measures may be given.

    Args:
        out: of --out, a file to be written.
        seed: of --seed.
        counts: of flags by these names; None for one that was left out.

    Raises:
        SetupError: names the flag.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise SetupError(f"--{name}: expected at least 1, got {value}")
    if seed < 0:
        raise SetupError(f"--seed: expected 0 or more, got {seed}")
    if out.suffix != ".json" or out.is_dir():
        raise SetupError(f"--out: expected a file NAME.json, got {out}")


def number(text: str) -> float:
    """A number or a fraction, such as 8/255.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"expected a number or a fraction such as 8/255, got {text!r}") from error
