"""Types of arguments that several commands take."""

import argparse
from fractions import Fraction

__all__ = ["number"]


def number(text: str) -> float:
    """A number or a fraction, such as 8/255.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"expected a number or a fraction such as 8/255, got {text!r}") from error
