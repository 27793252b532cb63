"""How many requests the vendor still allows, and how long to wait so that they last."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

#: Below this part of its quota a window counts as running low.
_LOW: Final = 0.25
#: Requests below which a window whose quota nobody knows counts as running low.
_FEW: Final = 20.0
#: One member of the list: its name in quotes, then parameters.
_MEMBER: Final = re.compile(r'"([^"]{1,40})"((?:\s*;\s*[a-z]\w{0,20}=\d{1,12}(?:\.\d{1,6})?)*)')
_PARAMETER: Final = re.compile(r"([a-z]\w*)=([\d.]+)")


@dataclass(frozen=True, slots=True)
class Window:
    """What is left of the requests allowed in one stretch of time.

    Attributes:
        left: requests that may still be sent. resets: seconds until the count begins again.
        quota: requests allowed in all, where that is said.
    """

    left: float
    resets: float
    quota: float | None = None


def windows(headers: Mapping[str, str]) -> list[Window]:
    """The windows in an answer's ``RateLimit`` and ``RateLimit-Policy``; malformed ones are none.

    Args:
        headers: of a `Reply`, with names in small letters.
    """
    quotas = _members(headers.get("ratelimit-policy", ""))
    return [
        Window(said["r"], said["t"], quotas.get(name, {}).get("q"))
        for name, said in _members(headers.get("ratelimit", "")).items()
        if "r" in said and "t" in said
    ]


def _members(text: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for part in text[:1000].split(","):
        match = _MEMBER.fullmatch(part.strip())
        if match is not None:
            found[match[1]] = {name: float(value) for name, value in _PARAMETER.findall(match[2])}
    return found


def pause(known: Iterable[Window]) -> float:
    """Seconds to wait before the next request: none while plenty is left of every window.

    What is left of one that runs low is spread over its rest; of one that is used up, all of it
    is waited for.
    """
    return max((_pause(window) for window in known), default=0.0)


def _pause(window: Window) -> float:
    if not math.isfinite(window.resets) or window.resets <= 0:
        return 0.0
    if window.left < 1:
        return window.resets
    plenty = _FEW if window.quota is None else window.quota * _LOW
    return 0.0 if window.left >= plenty else window.resets / window.left
