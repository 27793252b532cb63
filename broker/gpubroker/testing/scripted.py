"""A whole paid cloud in memory that does what it was told: the provider that tests rent from.

::

    now = VirtualWallClock()
    cloud = ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.40"), offer("A100", "1.20")])
    cloud.out_of_capacity("RTX 4090", until=now() + 300)
    cloud.next_create_loses_reply()
    ...                                     # a broker whose provider factory is cloud.factory
    cloud.assert_nothing_running()
    assert cloud.billed == Money("0.02")
    cloud.assert_script_used()
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, Self

import anyio

from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.hookspecs import AccountSettings, Emit, hookimpl
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer, Price
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import Outcome
from gpubroker.testing.books import (
    Books,
    CreateRequest,
    DestroyRequest,
    JobRun,
    RentedMachine,
)
from gpubroker.testing.script import (
    Boot,
    DoesNothing,
    Fails,
    Hangs,
    Hook,
    LosesReply,
    Turn,
    reached,
)
from gpubroker.testing.scripted_job import play
from gpubroker.testing.story import Story
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

    Attributes:
        calls: how often each hook was called.
        misuses: what broke the provider contract; see `assert_contract_kept`.
    """

    def __init__(
        self,
        name: str = "scripted",
        *,
        now: Callable[[], float] = time.time,
        facts: ProviderFacts = _PAID,
        offers: Iterable[Offer] = (),
    ) -> None:
        super().__init__(now)
        self.name = name
        self.facts = facts
        self.calls: Counter[str] = Counter()
        self.misuses: list[str] = []
        self._offers = {offer.id: offer for offer in offers}
        self._silent_prices: dict[str, Price] = {}
        self._stock: dict[str, int] = {}
        self._books = Books()

    def factory(self, settings: AccountSettings, emit: Emit) -> ScriptedPlugin:
        """What the broker calls to get a plugin; each call makes one."""
        del settings
        return ScriptedPlugin(self, emit)

    # ----------------------------------------------------------------------------------------
    # The market and the account, set from outside
    # ----------------------------------------------------------------------------------------

    def add_offer(self, offer: Offer) -> None:
        """One more offer from now on, in place of one with the same id."""
        self._offers[offer.id] = offer

    def withdraw_offer(self, offer_id: str) -> None:
        """The offer is gone from now on; a create of it is refused."""
        del self._offers[offer_id]

    def stock(self, offer_id: str, machines: int) -> None:
        """No more machines than this exist of the offer at any one time."""
        self._stock[offer_id] = machines

    def price_rises_to(
        self, price: Money | str, offer_id: str | None = None, *, silently: bool = False
    ) -> None:
        """From now on the offer, or every offer, costs this much per hour (USD), disk aside.

        Orders with a lower ceiling are refused.

        Args:
            silently: quotes go on showing the old price and ceilings are ignored.
        """
        for known in list(self._offers.values()):
            if offer_id in (None, known.id):
                risen = replace(known.price, machine=Money(price))
                if silently:
                    self._silent_prices[known.id] = risen
                else:
                    self._offers[known.id] = replace(known, price=risen)

    def foreign_machine(
        self,
        id: str,
        mark: str | None = None,
        *,
        price: Money | str = "0.50",  # noqa: A002
    ) -> None:
        """The account has a machine that was not ordered through this cloud's hooks."""
        now = self.now()
        self._books.machines[id] = RentedMachine(
            id=id,
            offer_id="",
            price=Price(machine=Money(price)),
            created_at=now,
            visible_at=now,
            boot=Boot(0.0),
            mark=mark,
            foreign=True,
        )

    # ----------------------------------------------------------------------------------------
    # The oracle
    # ----------------------------------------------------------------------------------------

    @property
    def creates(self) -> Sequence[CreateRequest]:
        """Every create received, in order, whatever became of it."""
        return tuple(self._books.creates)

    @property
    def destroys(self) -> Sequence[DestroyRequest]:
        """Every destroy received, in order, whatever became of it."""
        return tuple(self._books.destroys)

    @property
    def runs(self) -> Sequence[JobRun]:
        """Every job started, in order."""
        return tuple(self._books.runs)

    @property
    def running(self) -> Sequence[Machine]:
        """Machines ordered here that exist and bill now, those no inventory shows yet included."""
        now = self.now()
        return tuple(machine.seen(now) for machine in self._books.existing(now))

    @property
    def foreign(self) -> Sequence[Machine]:
        """Machines that nobody ordered here and that still exist."""
        now = self.now()
        return tuple(machine.seen(now) for machine in self._books.existing(now, foreign=True))

    @property
    def billed(self) -> Money:
        """USD that the machines ordered here have cost up to now, exactly."""
        return self._books.billed(self.now(), self.facts)

    def bill(self, machine_id: str) -> Money:
        """USD that one machine has cost up to now, exactly."""
        return self._books.machines[machine_id].billed(self.now(), self.facts)

    def assert_nothing_running(self) -> None:
        """Fail if a machine that was ordered here exists, or is still to come of a lost create."""
        now = self.now()
        left = [
            f"{machine.id} ({machine.state(now)})"
            for machine in self._books.machines.values()
            if not machine.foreign and not reached(machine.ended_at, now)
        ]
        if left:
            raise AssertionError(f"{self.name} still bills for {', '.join(left)}")

    def assert_script_used(self) -> None:
        """Fail if something was told that never happened."""
        left = self.script.left_over()
        if left:
            raise AssertionError(f"{self.name} was told and never got to do: {'; '.join(left)}")

    def assert_contract_kept(self) -> None:
        """Fail if the broker broke its side of the provider contract."""
        if self.misuses:
            raise AssertionError(f"{self.name} was misused: {'; '.join(self.misuses)}")

    # ----------------------------------------------------------------------------------------
    # The vendor's side of each hook
    # ----------------------------------------------------------------------------------------

    async def quote(self) -> Sequence[Offer]:
        """What there is to rent."""
        await self._turn("quote")
        now = self.now()
        return [offer for offer in self._offers.values() if self._shortage(offer, now) is None]

    async def provision(self, offer: Offer, order: Order) -> Machine:
        """Create a machine, or not."""
        self._check_order(order)
        now = self.now()
        turn = self._begin("provision")
        refusal = turn if isinstance(turn, Fails) else self._refusal(offer, order, now)
        rented: RentedMachine | None = None
        match turn:
            case Fails(leaves_machine=leaves):
                rented = self._rent(offer, order, now) if leaves else None
            case LosesReply(creates=creates, after=after):
                rented = self._rent(offer, order, now + after) if creates else None
            case _ if refusal is None:
                rented = self._rent(offer, order, now)
            case _:
                pass
        made = rented.id if rented else None
        self._books.creates.append(
            CreateRequest(at=now, offer_id=offer.id, order=order, machine_id=made)
        )
        await self._delay("provision")
        match turn:
            case LosesReply():
                raise CreateUnknown("the connection was cut before the answer came")
            case Hangs():
                await anyio.sleep_forever()
            case _ if refusal is not None:
                raise refusal.error(made)
            case _:
                pass
        assert rented is not None
        return rented.seen(self.now())
