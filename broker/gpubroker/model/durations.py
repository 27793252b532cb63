"""Durations as people write and read them: ``90``, ``90s``, ``10m``, ``1h30m``."""

from __future__ import annotations

import math
import re
from typing import Final

from gpubroker.errors import InvalidValue

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)
_WHOLE: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+|\d+(?:\.\d+)?", re.ASCII)
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_seconds(field: str, value: float | str, *, none: bool = False) -> float:
    """Seconds from a number, or text such as ``90``, ``90s``, ``10m``, ``2h`` or ``1h30m``.

    Args:
        field: the name to put in the error.
        none: whether no time at all will do, too.

    Raises:
        InvalidValue: it is no such time.
    """
    text = str(value)
    words = text.strip().lower().replace(" ", "")
    if words.startswith("-") and _WHOLE.fullmatch(words[1:]):
        raise InvalidValue(field, value, "must not be negative")
    if not _WHOLE.fullmatch(words):
        raise InvalidValue(field, value, "must be seconds, or a time such as 90s, 10m, 2h or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(words))
    if not seconds < math.inf:
        raise InvalidValue(field, value, "must be a time that ends")
    if not seconds and not none:
        raise InvalidValue(field, value, "must be more than no time at all")
    return seconds
