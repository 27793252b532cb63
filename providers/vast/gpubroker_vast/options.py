"""The settings of one Vast.ai account, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from gpubroker import AccountSettings
from gpubroker.rest.options import EMULATOR_ONLY, address, check_names, number, switch

API: Final = "https://console.vast.ai"
IMAGE: Final = "vastai/base-image:@vastai-automatic-tag"
ROWS: Final = 64
"""Offers that one search brings at the most, whatever is asked for."""

_KNOWN: Final = (
    *("image", "image_login", "limit", "pages", "bid", "charges_after"),
    *("boot_timeout", "identity_timeout"),
)


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
        url, emulated = address(settings.url, API)
        check_names(settings.name, given, _KNOWN, emulated=emulated, emulator_only=EMULATOR_ONLY)
        plain = cls()
        return cls(
            url=url,
            key=settings.key or None,
            emulated=emulated,
            image=given.get("image") or IMAGE,
            image_login=given.get("image_login") or None,
            limit=int(number(given, "limit", plain.limit, 1, ROWS, whole=True)),
            pages=int(number(given, "pages", plain.pages, 1, 50, whole=True)),
            bid=number(given, "bid", plain.bid, 1, 100),
            charges_after=float(number(given, "charges_after", plain.charges_after, 0, 10**7)),
            boot_timeout=float(number(given, "boot_timeout", plain.boot_timeout, 1, 86_400)),
            identity_timeout=float(
                number(given, "identity_timeout", plain.identity_timeout, 0, 86_400)
            ),
            release_margin=float(number(given, "release_margin", plain.release_margin, 0, 600)),
            poll_interval=float(number(given, "poll_interval", plain.poll_interval, 0, 600)),
            visibility_horizon=float(
                number(given, "visibility_horizon", plain.visibility_horizon, 0, 3600)
            ),
            absence_interval=float(
                number(given, "absence_interval", plain.absence_interval, 0, 600)
            ),
            pacing=switch(given, "pacing"),
        )
