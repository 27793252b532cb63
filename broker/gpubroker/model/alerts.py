"""Where alerts are sent, besides to the program itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gpubroker.errors import InvalidValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """Who is told when so much of a limit has been spent, or when somebody should look.

    Both get one JSON object, an `Event`. Shown by no repr: either may hold a token.

    Args:
        command: the words of a command; it reads the object from its standard input. None: ``()``.
        webhook: an address that the object is posted to, https or http.

    Raises:
        InvalidValue: naming the argument, and no part of a webhook that may be secret.
    """

    command: tuple[str, ...] = field(default=(), repr=False)
    webhook: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.command, str):  # whose first letter would be taken for the command
            raise InvalidValue("alerts.command", "…", "must be a list of words")
        if any(not word or "\0" in word for word in self.command[:1]):
            raise InvalidValue("alerts.command", "…", "must be the words of a command")
        if self.webhook is not None and not _can_be_posted_to(self.webhook):
            raise InvalidValue("alerts.webhook", "…", "must be an address with https or http")

    def __bool__(self) -> bool:
        return bool(self.command) or self.webhook is not None


def _can_be_posted_to(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname)
