"""A real account as a subject: little is tried there, all of it is paid for, and nothing is left.

There are no books to compare with: what the plugin lists of its own machines is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from gpubroker.errors import ProviderError
from gpubroker.hookspecs import AccountSettings
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.money import ZERO, Money
from gpubroker.plugins import Plugin, Provider
from gpubroker.testing.conformance.session import Session, stray_mark
from gpubroker.testing.conformance.subject import (
    NotDeclared,
    Subject,
    SubjectMaker,
    VendorBooks,
)

SAFE: Final = frozenset(
    {
        "facts_and_hooks_agree",
        "quote_has_what_fits",
        "quote_of_the_impossible_is_empty",
        "quote_can_be_asked_again",
        "prices_are_exact",
        "prices_are_for_the_whole_machine",
        "disk_is_priced",
        "one_create_for_each_order",
        "inventory_shows_mark_and_id",
        "price_ceiling_is_kept",
        "the_price_is_what_bills",
        "a_way_to_the_machine_appears",
        "log_shows_the_nonce",
        "release_ends_billing",
        "release_can_be_repeated",
        "an_id_is_enough_to_release",
        "balance_is_told",
        "no_hook_blocks_the_event_loop",
        "the_key_is_shown_nowhere",
        "it_can_be_closed_and_opened_again",
    }
)
"""Checks for a real account: each rents one machine at the most at a time, and disturbs nothing."""

#: Seconds for which the end of a machine is waited for.
_PATIENCE: Final = 600.0


@dataclass(slots=True)
class RealAccount:
    """What checks may spend on a real account, and what they have left there.

    The worst case of each machine is taken from the ceiling before it is ordered, and given back
    never: what a machine really costs is known to nobody while the checks go on.

    Args:
        ceiling: USD that all machines together may cost at the worst.
        mark: makes the ownership mark of an order. With one of a ledger's, `gpubroker adopt` finds
            what checks that were killed left behind.

    Attributes:
        reserved: USD, the worst case of everything that was ordered so far.
        left: machines, by id or mark, that are not proven gone.
    """

    ceiling: Money
    mark: Callable[[], str] = stray_mark
    reserved: Money = ZERO
    left: set[str] = field(default_factory=set[str])

    def reserve(self, worst: Money) -> None:
        """Take the worst case of one machine from the ceiling.

        Raises:
            NotDeclared: that would exceed it.
        """
        if self.reserved + worst > self.ceiling:
            raise NotDeclared(
                f"it would cost up to {worst}, and {self.reserved} of the ceiling of "
                f"{self.ceiling} are taken"
            )
        self.reserved += worst

    async def settle(self, session: Session) -> None:
        """Release what was ordered in a session until complete lists prove it gone.

        What is not proven gone within ten minutes is noted as `left`.
        """
        if not session.orders:
            return
        wanted = {order.mark for order in session.orders} | session.made
        facts, absent, since = session.provider.facts, 0, anyio.current_time()
        with anyio.move_on_after(_PATIENCE):
            while absent < facts.absence_readings:
                await anyio.sleep(max(facts.poll_interval, facts.absence_interval))
                found = await _ours(session, wanted)
                early = anyio.current_time() - since < facts.visibility_horizon
                absent = 0 if found or found is None or early else absent + 1
        if absent < facts.absence_readings:
            self.left |= session.made or {order.mark for order in session.orders}


async def _ours(session: Session, wanted: set[str]) -> list[Machine] | None:
    """The machines of this session that are still listed, asked to end; ``None`` if unknown."""
    try:
        listed = await session.provider.inventory()
    except ProviderError:
        return None
    ours = [m for m in listed if m.id in wanted or m.mark in wanted]
    ours = [machine for machine in ours if machine.state is not MachineState.GONE]
    session.made |= {machine.id for machine in ours}
    for machine in ours:
        with suppress(ProviderError):
            await session.provider.release(machine)
    return ours


def on_account(
    plugin: Plugin,
    settings: AccountSettings,
    provider: Provider,
    wanted: Mapping[str, Any],
    account: RealAccount,
) -> SubjectMaker:
    """An account as it is, with what its plugin says of itself declared.

    Args:
        provider: the plugin's provider, opened on this account.
        wanted: arguments of `Requirements` for what is rented.
    """
    facts, hooks = provider.facts, provider.hooks
    subject = Subject(
        name=plugin.name,
        factory=plugin.factory,
        settings=settings,
        wanted=wanted,
        books=VendorBooks(running=None),
        unknown_id=None,
        paid=facts.paid,
        ssh=facts.ssh,
        spot=facts.spot,
        logs="logs" in hooks,
        charges="charges" in hooks,
        balance="balance" in hooks,
        doubles=True,
        bills_disk=True,
        announces=facts.ssh and "logs" in hooks,
        account=account,
        patience=facts.boot_timeout,
    )
    return lambda: nullcontext(subject)
