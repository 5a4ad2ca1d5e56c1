"""The rows of the sheet, in its order."""

from deploy.reliability import (
    abuse_checks,
    answer_checks,
    base_checks,
    count_checks,
    door_checks,
    fairness_checks,
    fault_checks,
    fuzz_checks,
    input_checks,
    interop_checks,
    leaving_checks,
    life_checks,
    load_checks,
    memory_checks,
    operation_checks,
)
from deploy.reliability.check import Check

__all__ = ["SHEET"]

_GROUPS = (
    abuse_checks,
    answer_checks,
    base_checks,
    count_checks,
    door_checks,
    fairness_checks,
    fault_checks,
    fuzz_checks,
    input_checks,
    interop_checks,
    leaving_checks,
    life_checks,
    load_checks,
    memory_checks,
    operation_checks,
)

SHEET: tuple[Check, ...] = tuple(
    sorted((check for group in _GROUPS for check in group.CHECKS), key=lambda check: int(check.number[2:]))
)
