"""Durations as people write and read them: ``90``, ``90s``, ``10m``, ``1h30m``."""

from __future__ import annotations

import math
import re
from typing import Final

from gpubroker.errors import InvalidValue

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)
_WHOLE: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+|\d+(?:\.\d+)?", re.ASCII)
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_duration(field: str, text: str) -> float:
    """Seconds from text such as ``90``, ``90s``, ``10m``, ``2h`` or ``1h30m``.

    Raises:
        InvalidValue: it is none, or not more than nothing.
    """
    words = text.strip().lower().replace(" ", "")
    if not _WHOLE.fullmatch(words):
        raise InvalidValue(field, text, "must be seconds, or a time such as 90s, 10m, 2h or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(words))
    if not 0 < seconds < math.inf:
        raise InvalidValue(field, text, "must be more than no time at all")
    return seconds


def shown(seconds: float) -> str:
    """A duration in its two largest units: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
