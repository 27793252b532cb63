"""How a scripted cloud answers each hook: the vendor's side, as told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

import anyio
import anyio.lowlevel

from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.model.charges import Charge
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, MachineState, Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.results import JobState, Outcome
from gpubroker.testing.books import Books, CreateRequest, DestroyRequest, JobRun, RentedMachine
from gpubroker.testing.script import (
    Boot,
    DoesNothing,
    Fails,
    Hangs,
    Hook,
    LosesReply,
    Script,
    Turn,
    reached,
)
from gpubroker.testing.scripted_job import Performance, Waker, perform
from gpubroker.transport.job_io import JobIO


class Vendor:
    """One account of a vendor that does as its script says.

    Attributes:
        offers: what there is to rent, by id.
        stock: how many machines of an offer may exist at a time, where that is limited.
        silent_prices: USD per hour that an offer really costs, where quotes do not show it.
        surcharge: USD that the bill of each machine shows besides its time.
        billing: whether bills show anything yet.
        lag: seconds for which new machines are missing from inventories.
        calls: how often each hook was called.
        misuses: what broke the provider contract.
    """

    def __init__(
        self,
        name: str,
        now: Callable[[], float],
        facts: ProviderFacts,
        script: Script,
        waker: Waker,
    ) -> None:
        self.name = name
        self.now = now
        self.facts = facts
        self.script = script
        self.books = Books()
        self.offers: dict[str, Offer] = {}
        self.stock: dict[str, int] = {}
        self.silent_prices: dict[str, Money] = {}
        self.surcharge = Money(0)
        self.billing = True
        self.lag = 0.0
        self.calls: Counter[str] = Counter()
        self.misuses: list[str] = []
        self._waker = waker

    async def quote(self) -> list[Offer]:
        """What there is to rent."""
        await self._answer("quote", self._next_turn("quote"))
        return [offer for offer in self.offers.values() if self._shortage(offer) is None]

    async def provision(self, offer: Offer, order: Order) -> Machine:
        """Create a machine. It exists, and bills, before the answer is under way."""
        self._check_order(order)
        now = self.now()
        risen = self.script.rises.take(now)
        if risen is not None and offer.id in self.offers:
            self.raise_price(offer.id, risen)
        machine, turn = self._decide(offer, order, self._next_turn("provision"), now)
        machine_id = machine.id if machine else None
        self.books.create(
            CreateRequest(at=now, offer_id=offer.id, order=order, machine_id=machine_id)
        )
        await self._answer("provision", turn, machine_id)
        assert machine is not None
        return machine.seen(self.now())

    async def charges(self, since: float) -> list[Charge]:
        """What each machine has cost so far that had not ended by then, in Unix seconds."""
        await self._answer("charges", self._next_turn("charges"))
        if not self.billing:
            return []
        now = self.now()
        return [
            Charge(machine_id=machine.id, amount=machine.billed(now, self.facts) + self.surcharge)
            for machine in self.books.since(since, now)
        ]

    async def inventory(self) -> list[Machine]:
        """The machines of the account, in the order in which they were created."""
        turn = self._next_turn("inventory")
        await self._answer("inventory", turn)
        if isinstance(turn, DoesNothing):
            return []
        now = self.now()
        return [
            machine.seen(now)
            for machine in self.books.current(now)
            if machine.exists(now) and reached(machine.visible_at, now)
        ]

    async def run(self, machine_id: str, job: Job, io: JobIO) -> Outcome:
        """Run a job on a machine."""
        await self._answer("run", self._next_turn("run"))
        now = self.now()
        machine = self.books.machines.get(machine_id)
        state = MachineState.GONE if machine is None else machine.state(now)
        self._check_run(machine_id, state, io)
        if machine is None or state is not MachineState.RUNNING:
            message = f"machine {machine_id} is {state}"
            raise ProviderError(message, kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)
        if io.purpose == "probe":
            return await self._answer_probe(machine, io, now)
        told = Performance.of_setup if io.in_home else Performance.of_job
        performance = told(self.script, now)
        if not io.in_home:
            self._doom(machine, now)
        run = JobRun(
            started_at=now,
            machine_id=machine_id,
            job=job,
            job_id=io.job_id,
            env=dict(io.env),
            in_home=io.in_home,
        )
        self.books.start(run)
        try:
            run.outcome = await perform(performance, machine, job, io, self.now, self._waker)
        finally:
            run.ended_at = self.now()
        return run.outcome

    def _doom(self, machine: RentedMachine, now: float) -> None:
        """What becomes of a machine under the job that it begins."""
        vanishes = self.script.vanishings.take_step(now)
        if vanishes is not None:
            gone = now + vanishes.effect
            machine.vanished_at = min(machine.vanished_at, gone)
            vanishes.pending.append(lambda: machine.ended_at == gone and reached(gone, self.now()))
        rises = self.script.job_rises.take_step(now)
        if rises is not None:
            after, price = rises.effect
            risen = now + after
            machine.dearer = (risen, price)
            rises.pending.append(lambda: risen < machine.ended_at and reached(risen, self.now()))

    async def _answer_probe(self, machine: RentedMachine, io: JobIO, now: float) -> Outcome:
        """What the machine's driver says of its cards: those that were offered, or what was told."""
        told = self.script.cards.take(now)
        offered = self.offers.get(machine.offer_id)
        if told is not None:
            gpu, vram, count = told
        elif offered is not None:
            gpu, vram, count = offered.gpu, offered.vram, offered.count
        else:
            gpu, vram, count = None, None, 0
        if gpu is None:
            return Outcome(state=JobState.NOT_STARTED, message="no such command: nvidia-smi")
        line = f"NVIDIA {gpu}, {(vram or 24.0) * 1000 / 1.048576:.0f}\n"
        await io.output("stdout", line.encode() * count)
        return Outcome(state=JobState.EXITED, exit_code=0)

    async def release(self, machine_id: str) -> None:
        """Destroy a machine; one that is gone, or never was, is gone."""
        request = DestroyRequest(at=self.now(), machine_id=machine_id)
        self.books.destroys.append(request)
        turn = self._next_turn("release")
        await self._answer("release", turn)
        request.accepted = True
        machine = self.books.machines.get(machine_id)
        if machine is not None and not isinstance(turn, DoesNothing):
            machine.destroy(self.now())
        await anyio.lowlevel.checkpoint()

    def raise_price(self, offer_id: str, price: Money) -> None:
        """From now on an offer costs so many USD per hour, disk aside."""
        known = self.offers[offer_id]
        self.offers[offer_id] = replace(known, price=replace(known.price, machine=price))

    # ----------------------------------------------------------------------------------------
    # Answering as told
    # ----------------------------------------------------------------------------------------

    def _next_turn(self, hook: Hook) -> Turn | None:
        self.calls[hook] += 1
        if hook in self.script.unexpected:
            self.misuses.append(f"an unexpected call of {hook}")
        now = self.now()
        revoked = next(self.script.revocations.holding(now), None)
        if revoked is not None and reached(revoked.effect, now):
            revoked.used += 1
            return _refused("the account key is not valid", ErrorKind.AUTH, Scope.ACCOUNT)
        return self.script.turns[hook].take(now)

    async def _answer(self, hook: Hook, turn: Turn | None, machine_id: str | None = None) -> None:
        """Take the time that was told, then fail or hang if that was told."""
        await anyio.sleep(self.script.delays[hook].take(self.now()) or 0.0)
        match turn:
            case Fails(error=error):
                raise error(machine_id)
            case Hangs():
                await anyio.sleep_forever()
            case LosesReply():
                raise CreateUnknown("the connection was cut before the answer came")
            case DoesNothing() | None:
                return
            case _:
                assert_never(turn)

    def _decide(
        self, offer: Offer, order: Order, turn: Turn | None, now: float
    ) -> tuple[RentedMachine | None, Turn | None]:
        """The machine that a create makes, and how it is answered."""
        match turn:
            case Fails(leaves_machine=makes_one):
                after = 0.0
            case LosesReply(creates=makes_one, after=after):
                pass
            case _:
                refusal = self._refusal(offer, order)
                if refusal is not None:
                    return None, turn if isinstance(turn, Hangs) else refusal
                makes_one, after = True, 0.0
        return (self._rent(offer, order, now + after) if makes_one else None), turn

    def _refusal(self, offer: Offer, order: Order) -> Fails | None:
        known = self.offers.get(offer.id)
        shortage = None if known is None else self._shortage(known)
        if known is None or shortage is not None:
            message = shortage or f"there is no offer {offer.id}"
            return _refused(message, ErrorKind.CAPACITY, Scope.OFFER)
        if known.price.hourly > order.price_ceiling and offer.id not in self.silent_prices:
            message = f"it costs {known.price.hourly}/h, more than {order.price_ceiling}/h"
            return _refused(message, ErrorKind.CAPACITY, Scope.OFFER)
        if len(order.mark) > self.facts.mark_limit:
            message = f"a label has at most {self.facts.mark_limit} characters"
            return _refused(message, ErrorKind.BAD_REQUEST, Scope.PROVIDER)
        return None

    def _shortage(self, offer: Offer) -> str | None:
        """Why the offer cannot be rented now, if it cannot."""
        now = self.now()
        for step in self.script.shortages.holding(now):
            if step.effect in (None, offer.gpu):
                step.used += 1
                return f"no {offer.title} to rent now"
        stock = self.stock.get(offer.id)
        if stock is None:
            return None
        if sum(machine.offer_id == offer.id for machine in self.books.existing(now)) >= stock:
            return f"offer {offer.id} is taken"
        return None

    def _rent(self, offer: Offer, order: Order, at: float) -> RentedMachine:
        price = self.offers.get(offer.id, offer).price
        if offer.id in self.silent_prices:
            price = replace(price, machine=self.silent_prices[offer.id])
        now = self.now()
        machine = RentedMachine(
            id=f"{self.name}-{len(self.books.machines) + 1}",
            offer_id=offer.id,
            price=price,
            created_at=at,
            visible_at=at + self.lag,
            boot=self.script.boots.take(now) or Boot(0.0),
            mark=order.mark,
            host=offer.host,
        )
        preempted = self.script.preemptions.take_step(now)
        if preempted is not None:
            machine.preempted_at = moment = machine.up_at + preempted.effect
            preempted.pending.append(
                lambda: moment <= machine.ended_at and reached(moment, self.now())
            )
        self.books.add(machine)
        return machine

    # ----------------------------------------------------------------------------------------
    # What the broker must not do
    # ----------------------------------------------------------------------------------------

    def _check_order(self, order: Order) -> None:
        if self.books.asked_before(order.mark):
            self.misuses.append(f"a create with the mark {order.mark} was sent again")

    def _check_run(self, machine_id: str, state: MachineState, io: JobIO) -> None:
        if state is MachineState.BOOTING:
            self.misuses.append(f"job {io.job_id} was sent to {machine_id}, which is not ready")
        if self.books.latest(io.job_id) is not None:
            self.misuses.append(f"job {io.job_id} was started again")
        latest = self.books.latest(machine_id)
        if latest is not None and latest.ended_at is None:
            self.misuses.append(f"two jobs at once on {machine_id}")


def _refused(message: str, kind: ErrorKind, scope: Scope) -> Fails:
    return Fails(lambda _: ProviderError(message, kind=kind, scope=scope))
