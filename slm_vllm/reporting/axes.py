"""Axes: where values stand on a drawing, and the round numbers beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Values that span more than this ratio go on a logarithmic axis.
_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values from `low` to `high` onto a drawing from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where a value stands."""
        low, high, value = (
            (math.log10(v) for v in (self.low, self.high, value))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers inside the axis, at most about `most`."""
        return (_log_ticks if self.logarithmic else _ticks)(self.low, self.high, most)


def share_axis(begin: float, end: float) -> Axis:
    """An axis for shares, from 0 to 1."""
    return Axis(0.0, 1.0, begin, end)


def axis_for(values: Sequence[float], begin: float, end: float) -> Axis:
    """An axis that holds all values: from 0, or logarithmic where they span decades."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOG_RATIO:
        return Axis(low / 1.4, high * 1.4, begin, end, logarithmic=True)
    return Axis(0.0, high * 1.08 or 1.0, begin, end)


def _ticks(low: float, high: float, most: int) -> list[float]:
    step = _round_step((high - low) / most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= least * (1 - 1e-9))


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**d for d in decades for m in multiples if low <= m * 10.0**d <= high]
        if len(ticks) <= most:
            break
    return ticks


def number(value: float) -> str:
    """A number for an axis or a table: no more digits than help."""
    size = abs(value)
    if size >= 10_000:
        return f"{value:,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}"
