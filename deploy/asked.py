"""What docs/results/asked.toml asks of a figure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

__all__ = ["Asked"]

SIGNS = (">=", "<=", "=")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sign and a bound: a number, another metric of the same result, or one of each, whose product counts."""

    sign: str
    bound: tuple[str, ...]

    @classmethod
    def parsed(cls, text: str) -> Self:
        """As asked.toml has it, such as ">= 0.9" or "<= 0.5 plain/low_pass_loss".

        Raises:
            ValueError: it is neither.
        """
        sign, *bound = text.split() or [""]
        if sign not in SIGNS or not 1 <= len(bound) <= 2:
            raise ValueError(
                f"asked.toml: expected one of {', '.join(SIGNS)} and a number, a metric or both, got {text!r}"
            )
        return cls(sign=sign, bound=tuple(bound))

    def reached(self, value: float, metrics: Mapping[str, float] | None = None) -> str:
        """Whether a figure reaches it, as the page says; equal up to rounding is enough.

        Args:
            metrics: of the same result, where a bound may be one of them.

        Raises:
            ValueError: the bound is no number and none of the metrics.
        """
        bound = math.prod(_factor(word, metrics or {}) for word in self.bound)
        is_equal = math.isclose(value, bound)
        is_reached = is_equal or (self.sign == ">=" and value > bound) or (self.sign == "<=" and value < bound)
        return "yes" if is_reached else "**no**"


def _factor(word: str, metrics: Mapping[str, float]) -> float:
    if word in metrics:
        return metrics[word]
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"asked.toml: expected a number or another metric of the result, got {word!r}") from None
