"""The settings of an account, which are text: read, and refused where they make no sense."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from gpubroker.errors import InvalidValue
from gpubroker.rest.client import is_loopback

EMULATOR_ONLY: Final = (
    *("poll_interval", "visibility_horizon", "absence_interval", "release_margin"),
    "pacing",
)
"""Settings for an emulator on this machine. Less than they are would lose a vendor's machines."""

_TRUTH: Final = {"on": True, "true": True, "off": False, "false": False}


def address(url: str | None, usual: str) -> tuple[str, bool]:
    """Where the API is, and whether it is an emulator's: at a loopback address.

    Args:
        url: the setting. usual: the vendor's own address.

    Raises:
        InvalidValue: a key would go there unprotected.
    """
    found = (url or usual).rstrip("/")
    emulated = is_loopback(found)
    if not emulated and not found.startswith("https://"):
        raise InvalidValue("url", found, "must begin with https://")
    return found, emulated


def check_names(
    provider: str,
    given: Mapping[str, str],
    known: Collection[str],
    *,
    emulated: bool,
    emulator_only: Collection[str] = (),
) -> None:
    """Refuse settings that the plugin does not read, so that none is silently ignored.

    Args:
        known: the provider's own settings.
        emulator_only: those that it reads as well, but refuses for the vendor itself; usually
            some of `EMULATOR_ONLY`.

    Raises:
        InvalidValue: there is one.
    """
    for name in given:
        if name not in known and name not in emulator_only:
            raise InvalidValue.unknown(provider, name, (*known, *emulator_only), noun="setting")
        if name in emulator_only and not emulated:
            raise InvalidValue(name, given[name], "is for an emulator on this machine only")


def number(
    given: Mapping[str, str],
    name: str,
    default: Decimal | float,
    least: int,
    most: int,
    *,
    whole: bool = False,
) -> Decimal:
    """A setting that is a number.

    Raises:
        InvalidValue: it is none, or not from `least` to `most`.
    """
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


def switch(given: Mapping[str, str], name: str, *, default: bool = True) -> bool:
    """A setting that is on or off.

    Raises:
        InvalidValue: it is neither.
    """
    text = given.get(name) or ("on" if default else "off")
    if text.strip().lower() not in _TRUTH:
        raise InvalidValue(name, text, "must be on or off")
    return _TRUTH[text.strip().lower()]
