"""Which providers take part, and why the others do not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from gpubroker.lifecycle.parts import Parts
from gpubroker.plugins import Provider
from gpubroker.settings import Settings, why_off


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderStatus:
    """One provider, whether it takes part, and why not.

    Attributes:
        origin: the distribution that it comes from.
        on: it can be rented from.
        why: why it is off, or what is wrong with it; empty if nothing is.
        paid: its machines cost money; ``None`` where that is not known.
    """

    name: str
    origin: str
    on: bool
    why: str = ""
    paid: bool | None = None


def statuses(parts: Parts, settings: Settings, *, limited: bool) -> list[ProviderStatus]:
    """Every installed provider, those that could not be opened included, by name.

    Args:
        limited: a spending limit is set somewhere.
    """
    broken = [
        ProviderStatus(name=plugin.name, origin=plugin.origin, on=False, why=plugin.problem)
        for plugin in parts.broken
    ]
    opened = [_status(parts, provider, settings, limited) for provider in parts.providers.values()]
    return sorted([*opened, *broken], key=lambda status: status.name)


def _status(parts: Parts, provider: Provider, settings: Settings, limited: bool) -> ProviderStatus:
    account = settings.account(provider.name)
    options: Mapping[str, str] = settings.providers.get(provider.name, {})
    builtin = provider.origin.startswith("gpubroker ")
    off = why_off(
        provider.facts,
        account,
        named=provider.given or builtin or options.get("enabled") == "true",
        keyed=provider.given or account.key is not None or account.url is not None,
        limited=limited,
        real=not provider.given and account.url is None,
        under_test="pytest" in sys.modules,
    )
    return ProviderStatus(
        name=provider.name,
        origin=provider.origin,
        on=off is None,
        why=off or parts.blocking.get(provider.name, ""),
        paid=provider.facts.paid,
    )
