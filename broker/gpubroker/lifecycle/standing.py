"""Which providers take part, and why the others do not."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import anyio

from gpubroker.errors import ProviderError
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.money import Money
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
        contract: the version of the provider contract that it was written for; ``None`` where it
            could not be opened.
        balance: USD that its account has left, if that was asked for and could be found out.
    """

    name: str
    origin: str
    on: bool
    why: str = ""
    paid: bool | None = None
    contract: int | None = None
    balance: Money | None = None


def statuses(parts: Parts, settings: Settings, *, limited: bool) -> list[ProviderStatus]:
    """Every installed provider, those that could not be opened included, by name.

    Args:
        limited: a spending limit holds for what is asked, besides those in the settings.
    """
    broken = [
        ProviderStatus(name=plugin.name, origin=plugin.origin, on=False, why=plugin.problem)
        for plugin in parts.broken
    ]
    opened = [_status(parts, provider, settings, limited) for provider in parts.providers.values()]
    return sorted([*opened, *broken], key=lambda status: status.name)


async def with_balances(parts: Parts, known: Sequence[ProviderStatus]) -> list[ProviderStatus]:
    """The same, with what each account has left; why that could not be found out, if it could not."""
    shown = {status.name: status for status in known}

    async def ask(name: str) -> None:
        try:
            shown[name] = replace(shown[name], balance=await parts.providers[name].balance())
        except ProviderError as error:
            shown[name] = replace(shown[name], why=shown[name].why or f"balance: {error}")

    async with anyio.create_task_group() as tasks:
        for name, provider in parts.providers.items():
            if shown[name].on and "balance" in provider.hooks:
                tasks.start_soon(ask, name)
    return list(shown.values())


def _status(parts: Parts, provider: Provider, settings: Settings, limited: bool) -> ProviderStatus:
    account = settings.account(provider.name)
    options: Mapping[str, str] = settings.providers.get(provider.name, {})
    builtin = provider.origin.startswith("gpubroker ")
    off = why_off(
        provider.facts,
        account,
        named=provider.given or builtin or options.get("enabled") == "true",
        keyed=provider.given or account.key is not None or account.url is not None,
        limited=limited or settings.budget.bounds(provider.name),
        real=not provider.given and account.url is None,
        under_test="pytest" in sys.modules,
        disabled=options.get("enabled") == "false",
    )
    return ProviderStatus(
        name=provider.name,
        origin=provider.origin,
        on=off is None,
        why=off or parts.blocking.get(provider.name, ""),
        paid=provider.facts.paid,
        contract=provider.contract,
    )
