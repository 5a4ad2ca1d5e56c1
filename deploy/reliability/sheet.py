"""The rows of the sheet, in its order."""

from deploy.reliability import input_checks, load_checks
from deploy.reliability.check import Check

__all__ = ["SHEET"]

SHEET: tuple[Check, ...] = tuple(
    sorted((*input_checks.CHECKS, *load_checks.CHECKS), key=lambda check: int(check.number.removeprefix("R-")))
)
