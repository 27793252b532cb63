"""Ranges as people write them: ``24GB..``, ``1..2``, ``..0.5``, ``8``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from gpubroker.errors import InvalidValue
from gpubroker.model.names import is_a

_NUMBER: Final = re.compile(r"^\s*([+-]?[0-9.]+(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*$")
_GIGABYTES: Final = {
    "": 1.0,
    "gb": 1.0,
    "g": 1.0,
    "mb": 0.001,
    "m": 0.001,
    "tb": 1000.0,
    "t": 1000.0,
}


@dataclass(frozen=True, slots=True)
class Range:
    """A closed range of numbers; ``None`` at an end means no limit there."""

    low: float | None = None
    high: float | None = None

    def __contains__(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.low is not None and self.low == self.high:
            return _shown(self.low)
        return f"{_shown(self.low)}..{_shown(self.high)}"


def parse_range(
    field: str,
    value: float | str | Range,
    *,
    gigabytes: bool = False,
    whole: bool = False,
    at_least: bool = False,
    minimum: float = 0.0,
) -> Range:
    """Read a range the way people write it.

    Args:
        field: the name to put in the error.
        value: a number, a `Range`, or text such as ``"24GB.."``, ``"1..2"`` or ``"16"``.
        gigabytes: accept the units MB, GB and TB (factors of 1000); the result is in GB.
        whole: only whole numbers make sense.
        at_least: a single number means "this much or more" instead of "exactly this".
        minimum: the least that either end may be.

    Raises:
        InvalidValue: it is not a range, an end is below `minimum` or not finite, or the low end
            is above the high one.
    """
    if isinstance(value, Range):
        low, high = value.low, value.high
    elif isinstance(value, str) and ".." in value:
        left, _, right = value.partition("..")
        low = _number(field, value, left, gigabytes) if left.strip() else None
        high = _number(field, value, right, gigabytes) if right.strip() else None
        if low is None and high is None:
            raise InvalidValue(field, value, "a range needs at least one end")
    else:
        low = _number(field, value, str(value), gigabytes)
        high = None if at_least else low
    for end in (low, high):
        if end is None:
            continue
        if not is_a(end, int, float):
            raise InvalidValue(field, value, "must be a number")
        if not math.isfinite(end):
            raise InvalidValue(field, value, "must be a finite number")
        if end < minimum:
            raise InvalidValue(field, value, f"must be at least {minimum:g}")
        if whole and end != int(end):
            raise InvalidValue(field, value, "must be a whole number")
    if low is not None and high is not None and low > high:
        raise InvalidValue(
            field, value, f"impossible range: {_shown(low)} is more than {_shown(high)}"
        )
    return Range(low, high)


def _shown(end: float | None) -> str:
    """A number as briefly as it can be written without losing a digit."""
    if end is None:
        return ""
    short = f"{end:g}"
    if float(short) == end:
        return short
    return repr(float(end)).removesuffix(".0")


def _number(field: str, given: object, text: str, gigabytes: bool) -> float:
    if isinstance(given, bool):
        raise InvalidValue(field, given, "must be a number")
    lowered = text.strip().lower().lstrip("+-")
    if lowered in {"nan", "inf", "infinity"}:
        raise InvalidValue(field, given, "must be a finite number")
    match = _NUMBER.match(text)
    units = _GIGABYTES if gigabytes else {"": 1.0}
    try:
        if match is not None and match[2].lower() in units:
            return float(match[1]) * units[match[2].lower()]
    except ValueError:
        pass
    example = "'24GB..' or '24..80'" if gigabytes else "'1', '1..2' or '2..'"
    raise InvalidValue(field, given, f"not a number or a range such as {example}")
