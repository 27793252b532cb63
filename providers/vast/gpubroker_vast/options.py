"""The settings of one Vast.ai account, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final

from gpubroker import AccountSettings, InvalidValue
from gpubroker.rest import is_loopback

API: Final = "https://console.vast.ai"
IMAGE: Final = "vastai/base-image:@vastai-automatic-tag"
ROWS: Final = 64
"""Offers that one search brings at the most, whatever is asked for."""

#: Setting these to less than they are would lose machines, had it not been for an emulator.
_EMULATOR_ONLY: Final = (
    *("poll_interval", "visibility_horizon", "absence_interval", "release_margin"),
    "pacing",
)
_KNOWN: Final = (
    *("image", "image_login", "limit", "pages", "bid", "charges_after"),
    *("boot_timeout", "identity_timeout"),
    *_EMULATOR_ONLY,
)
_TRUTH: Final = {"on": True, "true": True, "off": False, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What one account was set to; see the package for the meanings."""

    url: str = API
    key: str | None = field(default=None, repr=False)
    emulated: bool = False
    image: str = IMAGE
    image_login: str | None = field(default=None, repr=False)
    limit: int = ROWS
    pages: int = 1
    bid: Decimal = Decimal("1.05")
    charges_after: float = 3600.0
    boot_timeout: float = 600.0
    identity_timeout: float = 120.0
    poll_interval: float = 2.0
    visibility_horizon: float = 60.0
    absence_interval: float = 5.0
    release_margin: float = 120.0
    pacing: bool = True

    @classmethod
    def read(cls, settings: AccountSettings) -> Options:
        """The options in `settings`.

        Raises:
            InvalidValue: one is unknown or makes no sense.
        """
        given = settings.options
        url = (settings.url or API).rstrip("/")
        emulated = is_loopback(url)
        for name in given:
            if name not in _KNOWN:
                raise InvalidValue.unknown(settings.name, name, _KNOWN, noun="setting")
            if name in _EMULATOR_ONLY and not emulated:
                raise InvalidValue(name, given[name], "is for an emulator on this machine only")
        if not emulated and not url.startswith("https://"):
            raise InvalidValue("url", url, "must begin with https://")
        plain = cls()
        return cls(
            url=url,
            key=settings.key or None,
            emulated=emulated,
            image=given.get("image") or IMAGE,
            image_login=given.get("image_login") or None,
            limit=int(_number(given, "limit", plain.limit, 1, ROWS, whole=True)),
            pages=int(_number(given, "pages", plain.pages, 1, 50, whole=True)),
            bid=_number(given, "bid", plain.bid, 1, 100),
            charges_after=float(_number(given, "charges_after", plain.charges_after, 0, 10**7)),
            boot_timeout=float(_number(given, "boot_timeout", plain.boot_timeout, 1, 86_400)),
            identity_timeout=float(
                _number(given, "identity_timeout", plain.identity_timeout, 0, 86_400)
            ),
            release_margin=float(_number(given, "release_margin", plain.release_margin, 0, 600)),
            poll_interval=float(_number(given, "poll_interval", plain.poll_interval, 0, 600)),
            visibility_horizon=float(
                _number(given, "visibility_horizon", plain.visibility_horizon, 0, 3600)
            ),
            absence_interval=float(
                _number(given, "absence_interval", plain.absence_interval, 0, 600)
            ),
            pacing=_switch(given, "pacing"),
        )


def _number(
    given: Mapping[str, str],
    name: str,
    default: Decimal | float,
    least: int,
    most: int,
    *,
    whole: bool = False,
) -> Decimal:
    text = given.get(name) or str(default)
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise InvalidValue(name, text, "must be a number") from None
    if not value.is_finite() or not least <= value <= most:
        raise InvalidValue(name, text, f"must be {least} to {most}")
    if whole and value != int(value):
        raise InvalidValue(name, text, "must be a whole number")
    return value


def _switch(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name) or "on"
    if text.strip().lower() not in _TRUTH:
        raise InvalidValue(name, text, "must be on or off")
    return _TRUTH[text.strip().lower()]
