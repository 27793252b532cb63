"""A whole paid cloud in memory that does what it was told: the provider that tests rent from.

::

    now = VirtualWallClock()
    offers = [offer("RTX 4090", "0.40"), offer("A100", "1.20")]
    with ScriptedCloud(now=now, offers=offers) as cloud:
        cloud.out_of_capacity("RTX 4090", until=now() + 300)
        cloud.next_create_loses_reply()
        ...                                 # a broker whose provider factory is cloud.factory
        assert cloud.billed == Money("0.02")

Leaving the block without an error fails if a machine still bills, if something was told that never
happened, or if the broker broke its side of the contract.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from gpubroker.errors import InvalidValue
from gpubroker.hookspecs import AccountSettings, Emit, hookimpl
from gpubroker.model.charges import Charge
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer, Price
from gpubroker.model.results import Outcome
from gpubroker.testing.books import CreateRequest, DestroyRequest, JobRun, RentedMachine
from gpubroker.testing.script import Boot, reached
from gpubroker.testing.scripted_job import Waker
from gpubroker.testing.story import Story
from gpubroker.testing.vendor import Vendor
from gpubroker.transport.job_io import JobIO

_PAID: Final = ProviderFacts(paid=True, spot=True, ports=True)


class ScriptedCloud(Story):
    """A provider whose machines exist only here, with its own books on them.

    One cloud serves any number of brokers and event loops, one after the other, as a real one
    does. It lives on wall time: nothing in it moves but as `now` does. It never leaves the event
    loop and draws no lots, so the same story gives the same run. Untold, everything goes well
    and at once, and a job exits with 0 after no time.

    Args:
        name: the provider's name.
        now: Unix seconds; under virtual time a `VirtualWallClock`.
        facts: what the provider declares about itself.
        offers: what there is to rent, each any number of times.
        waker: for machines that are destroyed from another event loop than their jobs are run in:
            makes what sets an event in the loop that runs now, and may be called from any.
        strict: whether what was told and never happened is a failure where all is checked at once,
            by `assert_all_well` or at the end of a ``with`` block.
    """

    def __init__(
        self,
        name: str = "scripted",
        *,
        now: Callable[[], float] = time.time,
        facts: ProviderFacts = _PAID,
        offers: Iterable[Offer] = (),
        waker: Waker = lambda event: event.set,
        strict: bool = True,
    ) -> None:
        super().__init__(now)
        self.name = name
        self.strict = strict
        self.facts = facts
        self._vendor = Vendor(name, now, facts, self.script, waker)
        for offer in offers:
            self.add_offer(offer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.assert_all_well()

    def factory(self, settings: AccountSettings, emit: Emit) -> ScriptedPlugin:
        """What the broker calls to get a plugin; each call makes one."""
        del settings, emit
        return ScriptedPlugin(self._vendor)

    # ----------------------------------------------------------------------------------------
    # The market and the account, set from outside
    # ----------------------------------------------------------------------------------------

    def add_offer(self, offer: Offer) -> None:
        """One more offer from now on, in place of one with the same id."""
        self._vendor.offers[offer.id] = offer

    def withdraw_offer(self, offer_id: str) -> None:
        """The offer is gone from now on; a create of it is refused."""
        del self._vendor.offers[offer_id]

    def stock(self, offer_id: str, machines: int) -> None:
        """No more machines than this exist of the offer at any one time."""
        self._vendor.stock[offer_id] = machines

    def price_rises_to(
        self, price: Money | str, offer_id: str | None = None, *, silently: bool = False
    ) -> None:
        """From now on the offer, or every offer, costs this much per hour (USD), disk aside.

        Orders with a lower ceiling are refused.

        Args:
            silently: quotes go on showing the old price, and ceilings are ignored.
        """
        offers = self._vendor.offers
        for known in [offers[offer_id]] if offer_id else list(offers.values()):
            if silently:
                self._vendor.silent_prices[known.id] = Money(price)
            else:
                self._vendor.raise_price(known.id, Money(price))

    def machine_costs(self, price: Money | str, machine_id: str) -> None:
        """From now on inventories say that this machine costs so much per hour (USD).

        Its bill goes by that from its beginning. For a machine that is still to come there is
        `price_rises_under_job`.

        Raises:
            InvalidValue: there is no such machine yet.
        """
        if machine_id not in self.machines:
            raise InvalidValue.unknown("machine_id", machine_id, self.machines, noun="machine")
        machine = self._vendor.books.machines[machine_id]
        machine.price = replace(machine.price, machine=Money(price), disk=Money(0))

    def bills_show(self, surcharge: Money | str = "0", *, anything: bool = True) -> None:
        """What the vendor's bills show from now on.

        Args:
            surcharge: USD for each machine, besides its time: traffic, say.
            anything: whether they show these machines at all.
        """
        self._vendor.surcharge, self._vendor.billing = Money(surcharge), anything

    def visibility_lag(self, seconds: float) -> None:
        """From now on a new machine is missing from inventories for so long."""
        self._vendor.lag = seconds

    def foreign_machine(
        self,
        id: str,  # noqa: A002 - the field's name
        mark: str | None = None,
        *,
        price: Money | str = "0.50",
    ) -> None:
        """The account has a machine that was not ordered through this cloud's hooks."""
        now = self.now()
        machine = RentedMachine(
            id=id,
            offer_id="",
            price=Price(machine=Money(price)),
            created_at=now,
            visible_at=now,
            boot=Boot(0.0),
            mark=mark,
            foreign=True,
        )
        self._vendor.books.add(machine)

    # ----------------------------------------------------------------------------------------
    # The oracle
    # ----------------------------------------------------------------------------------------

    @property
    def creates(self) -> list[CreateRequest]:
        """Every create received, in order, whatever became of it."""
        return list(self._vendor.books.creates)

    @property
    def destroys(self) -> list[DestroyRequest]:
        """Every destroy received, in order, whatever became of it."""
        return list(self._vendor.books.destroys)

    @property
    def runs(self) -> list[JobRun]:
        """Every job started, in order."""
        return list(self._vendor.books.runs)

    @property
    def machines(self) -> Mapping[str, RentedMachine]:
        """Every machine that the account ever had, strangers' included, by id."""
        return self._vendor.books.machines

    @property
    def misuses(self) -> list[str]:
        """How the broker broke its side of the provider contract, if it did."""
        return list(self._vendor.misuses)

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each hook was called; 0 where it never was."""
        return self._vendor.calls

    @property
    def running(self) -> list[Machine]:
        """Machines ordered here that exist and bill now, those no inventory shows yet included."""
        now = self.now()
        return [machine.seen(now) for machine in self._vendor.books.existing(now)]

    @property
    def foreign(self) -> list[Machine]:
        """Machines that nobody ordered here and that still exist."""
        now = self.now()
        return [machine.seen(now) for machine in self._vendor.books.existing(now, foreign=True)]

    @property
    def billed(self) -> Money:
        """USD that the machines ordered here have cost up to now, exactly."""
        return self._vendor.books.billed(self.now(), self.facts)

    def bill(self, machine_id: str) -> Money:
        """USD that one machine has cost up to now, exactly."""
        return self._vendor.books.machines[machine_id].billed(self.now(), self.facts)

    def assert_nothing_running(self) -> None:
        """Fail if a machine that was ordered here exists, or is still to come of a lost create."""
        now = self.now()
        left = [
            f"{machine.id} ({machine.state(now)}, {machine.billed(now, self.facts)} so far,"
            f" {now - machine.created_at:.0f} s after it was ordered)"
            for machine in self._vendor.books.machines.values()
            if not machine.foreign and not reached(machine.ended_at, now)
        ]
        if left:
            raise AssertionError(f"{self.name} still bills for {', '.join(left)}")

    def assert_all_well(self) -> None:
        """Fail if anything is left that one of the other three would fail for.

        Where the cloud is not `strict`, a story that was not used up is none of it.
        """
        self.assert_nothing_running()
        self.assert_contract_kept()
        if self.strict:
            self.assert_script_used()

    def assert_script_used(self) -> None:
        """Fail if something was told that never happened."""
        left = self.script.left_over()
        if left:
            raise AssertionError(f"{self.name} was told and never got to do: {'; '.join(left)}")

    def assert_contract_kept(self) -> None:
        """Fail if the broker broke its side of the provider contract."""
        if self._vendor.misuses:
            raise AssertionError(f"{self.name} was misused: {'; '.join(self._vendor.misuses)}")


class ScriptedPlugin:
    """The plugin that a `ScriptedCloud`'s factory makes: one broker's way to the cloud."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor

    @property
    def facts(self) -> ProviderFacts:
        """What the cloud declares about itself."""
        return self._vendor.facts

    @hookimpl
    async def quote(self) -> Sequence[Offer]:
        """See `gpubroker.hookspecs.quote`."""
        return await self._vendor.quote()

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Machine:
        """See `gpubroker.hookspecs.provision`."""
        return await self._vendor.provision(offer, order)

    @hookimpl
    async def inventory(self) -> Sequence[Machine]:
        """See `gpubroker.hookspecs.inventory`."""
        return await self._vendor.inventory()

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO) -> Outcome:
        """See `gpubroker.hookspecs.run`."""
        return await self._vendor.run(machine.id, job, io)

    @hookimpl
    async def release(self, machine: Machine) -> None:
        """See `gpubroker.hookspecs.release`."""
        await self._vendor.release(machine.id)

    @hookimpl
    async def charges(self, since: float = 0.0) -> Sequence[Charge]:
        """See `gpubroker.hookspecs.charges`."""
        return await self._vendor.charges(since)
