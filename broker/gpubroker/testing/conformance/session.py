"""A subject's provider, opened as the broker opens it, and everything that was rented through it."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from gpubroker.errors import ErrorKind, ProviderError
from gpubroker.hookspecs import AccountSettings, Emit
from gpubroker.model.machines import Machine, MachineState, Order, PlannedJob
from gpubroker.model.marks import Mark
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.plugins import Deadlines, Plugin, Provider, open_provider
from gpubroker.policy.matching import reject
from gpubroker.policy.pricing import worst_case
from gpubroker.testing.conformance.subject import Subject
from gpubroker.watchdog import Watchdog

BLOCKING: Final = 0.25
"""Seconds for which a hook may keep the event loop from everything else."""

LIFETIME: Final = 900.0
"""Seconds that a check's machine may live."""

_LEAST_PAUSE: Final = 0.005


def expect(kept: object, broken: str) -> None:
    """Fail with `broken`, which says what was seen and how to mend it, unless it was `kept`.

    Raises:
        AssertionError: it was not.
    """
    if not kept:
        raise AssertionError(broken)


@dataclass(slots=True)
class Session:
    """One opened provider.

    Attributes:
        instance: what the plugin's factory made.
        events: everything that the plugin reported.
        blocked: each hook that blocked the event loop, and for how many seconds.
        orders: every order that was made for ``provision``.
        made: ids of machines that are to be given up.
    """

    subject: Subject
    provider: Provider
    instance: Any
    events: list[tuple[str, str]]
    blocked: list[tuple[str, float]]
    orders: list[Order] = field(default_factory=list[Order])
    made: set[str] = field(default_factory=set[str])

    async def fitting(self, wanted: Requirements) -> list[Offer]:
        """The offers that the broker would take, the cheapest first."""
        facts, now = self.provider.facts, time.time()
        offers = [
            offer
            for offer in await self.provider.quote(wanted)
            if reject(offer, wanted, facts, now) is None
        ]
        return sorted(offers, key=lambda offer: offer.price.hourly)

    async def cheapest(self) -> Offer:
        """What checks rent."""
        offers = await self.fitting(self.subject.requirements())
        expect(
            offers,
            f"quote({self.subject.wanted}) has no offer that meets the requirements, and the subject "
            "says there always is one",
        )
        return offers[0]

    def order(
        self,
        offer: Offer,
        *,
        price_ceiling: Money | None = None,
        jobs: tuple[PlannedJob, ...] = (),
    ) -> Order:
        """A new order for an offer, as the broker makes one."""
        wanted = self.subject.requirements()
        order = Order(
            mark=stray_mark() if self.subject.account is None else self.subject.account.mark(),
            lease_id=f"conformance-{secrets.token_hex(6)}",
            image=wanted.image,
            disk=wanted.disk_gb,
            ports=wanted.ports,
            env=wanted.env,
            price_ceiling=offer.price.hourly if price_ceiling is None else price_ceiling,
            deadline=time.time() + LIFETIME,
            public_key=_public_key() if self.provider.facts.ssh else "",
            nonce=secrets.token_hex(16),
            jobs=jobs,
        )
        self.orders.append(order)
        return order

    async def provision(self, offer: Offer, order: Order) -> Machine:
        """One create, of a machine that is given up at the end of the session."""
        account, facts = self.subject.account, self.provider.facts
        if account is not None:
            account.reserve(worst_case(offer.price, LIFETIME, facts))
        try:
            machine = await self.provider.provision(offer, order)
        except ProviderError as error:
            if error.machine_id is not None:
                self.made.add(error.machine_id)
            raise
        self.made.add(machine.id)
        return machine

    async def running(self) -> set[str]:
        """Ids of the machines that bill, as the vendor's books have them."""
        books = self.subject.books
        if books.running is not None:
            return set(books.running())
        marks = {order.mark for order in self.orders}
        listed = await self.listed()
        return {m.id for m in listed.values() if m.id in self.made or m.mark in marks}

    async def rent(self) -> Machine:
        """The cheapest machine that there is."""
        offer = await self.cheapest()
        return await self.provision(offer, self.order(offer))

    async def inventory(self) -> Sequence[Machine]:
        """One inventory; a machine that ends while it is read may make it fail once."""
        try:
            return await self.provider.inventory()
        except ProviderError as error:
            if error.kind is not ErrorKind.TRANSIENT:
                raise
        return await self.provider.inventory()

    async def listed(self) -> dict[str, Machine]:
        """One inventory by id, without tombstones."""
        machines = await self.inventory()
        return {m.id: m for m in machines if m.state is not MachineState.GONE}

    async def state(self, machine: Machine) -> MachineState | None:
        """What one inventory says of a machine; ``None`` where it lacks it."""
        machines = await self.inventory()
        return next((found.state for found in machines if found.id == machine.id), None)

    async def listing(
        self, seen: Callable[[dict[str, Machine]], object], broken: str
    ) -> dict[str, Machine]:
        """The first inventory that is as `seen` wants it.

        Raises:
            AssertionError: none is, within the subject's patience; it says `broken`.
        """
        listed: dict[str, Machine] = {}
        with anyio.move_on_after(self.subject.patience):
            while True:
                listed = await self.listed()
                if seen(listed):
                    return listed
                await self.pause()
        problem = f"{broken}; after {self.subject.patience:g} s it is {_shown(listed)}"
        raise AssertionError(problem)

    async def shown(self, machine: Machine) -> Machine:
        """A machine as the first inventory that has it shows it."""
        broken = f"inventory never shows {machine.id}, which provision returned"
        return (await self.listing(lambda machines: machine.id in machines, broken))[machine.id]

    async def running_machine(self, made: Machine, *, routes: bool = False) -> Machine:
        """A machine, once its provider calls it running, and says the way to it."""
        listed = await self.listing(
            lambda machines: (
                made.id in machines
                and machines[made.id].state is MachineState.RUNNING
                and (machines[made.id].routes or not routes)
            ),
            f"{made.id} does not get to run" + (" with a route to it" if routes else ""),
        )
        return listed[made.id]

    async def marked(self, mark: str) -> Machine:
        """The one machine with a mark, once an inventory shows it.

        Raises:
            AssertionError: there is none, or more than one.
        """
        listed = await self.listing(
            lambda machines: any(machine.mark == mark for machine in machines.values()),
            "inventory never shows the machine with the order's mark: put it into the create "
            "request itself, and report it as Machine.mark",
        )
        found = [machine for machine in listed.values() if machine.mark == mark]
        self.made.update(machine.id for machine in found)
        expect(len(found) == 1, f"{len(found)} machines have the mark of one order")
        return found[0]

    async def vendor_has(self, machine_id: str, *, running: bool, broken: str) -> None:
        """Wait until the vendor's books say that a machine runs, or that it does not."""
        with anyio.move_on_after(self.subject.patience):
            while (machine_id in await self.running()) is not running:
                await self.pause()
        expect((machine_id in await self.running()) is running, broken)

    async def pause(self) -> None:
        """Wait as long as the broker does between two inventories."""
        await anyio.sleep(max(_LEAST_PAUSE, self.provider.facts.poll_interval))

    async def give_up(self) -> None:
        """Release whatever is left, as well as it can be: this is no check."""
        self.subject.troubles.calm()
        ids = set(self.made)
        marks = {order.mark for order in self.orders}
        with suppress(ProviderError):
            ids |= {m.id for m in await self.inventory() if m.mark in marks}
        for machine_id in ids:
            with suppress(ProviderError):
                await self.provider.release(Machine(id=machine_id))


@asynccontextmanager
async def opened(subject: Subject) -> AsyncGenerator[Session]:
    """The subject's provider as the broker opens it; at the end everything is given up."""
    events: list[tuple[str, str]] = []
    blocked: list[tuple[str, float]] = []
    instances: list[Any] = []

    def factory(settings: AccountSettings, emit: Emit) -> Any:
        instances.append(subject.factory(settings, emit))
        return instances[-1]

    async with open_provider(
        Plugin(subject.name, factory, "conformance", given=True),
        subject.settings,
        lambda kind, text: events.append((kind, text)),
        Deadlines(),
        Watchdog(BLOCKING, lambda label, seconds: blocked.append((label, seconds))),
    ) as provider:
        session = Session(subject, provider, instances[-1], events, blocked)
        try:
            yield session
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(subject.patience):
                await session.give_up()
            if subject.account is not None:
                with anyio.CancelScope(shield=True):
                    await subject.account.settle(session)


def _shown(listed: dict[str, Machine]) -> Sequence[tuple[str, str, str | None]]:
    return [(machine.id, str(machine.state), machine.mark) for machine in listed.values()]


def stray_mark() -> str:
    """A mark that no ledger knows: for machines of a vendor that ends with the check."""
    return str(Mark.make(b"conformance", "aaaaaaaa", secrets.token_bytes(10)))


def _public_key() -> str:
    """A line that is an ed25519 key in form; nobody has its other half."""
    parts = (b"ssh-ed25519", secrets.token_bytes(32))
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} conformance"
