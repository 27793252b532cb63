"""What is promised about giving machines up, and about what they cost."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Final
from urllib.parse import unquote

import anyio

from gpubroker.errors import ProviderError
from gpubroker.model.charges import Charge
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.money import Money
from gpubroker.testing.conformance.session import Session, expect, opened
from gpubroker.testing.conformance.subject import Subject

#: What must not stand in a path. ``{id}`` is the id of a machine that runs.
_NO_IDS: Final = (
    *("", ".", "..", "{id}/..", "../{id}", "{id}/../{id}", "%2e%2e/{id}"),
    *("{id}?x=1", "{id}#x", " {id}", "{id}\n", "{id};x", "x" * 500),
)
_ABSURD: Final = Money(1_000_000)
_CENT: Final = Money("0.01")
#: By how much a bill may differ from the books, as a part of it: what each line was rounded by.
_ROUNDED: Final = Decimal("0.01")


async def check_release_ends_billing(subject: Subject) -> None:
    """After a release the vendor bills no more, and the machine leaves the list.

    A machine that is merely stopped still costs its disk. Destroy it.
    """
    async with opened(subject) as session:
        machine = await session.shown(await session.rent())
        await session.provider.release(machine)
        await session.vendor_has(
            machine.id,
            running=False,
            broken=f"{machine.id} was released, and the vendor's books say that it bills",
        )
        await session.listing(
            lambda listed: machine.id not in listed,
            f"{machine.id} was released, and inventory goes on listing it",
        )


async def check_what_is_gone_bills_no_more(subject: Subject) -> None:
    """A machine that is called gone, or that lists prove gone, costs nothing any more.

    Its release ends there, and nobody looks again. One that drains, or is being deleted, and still
    bills is `MachineState.STOPPED`. Where a list lacks it while it bills, say in
    ``facts.absence_readings`` and ``absence_interval`` how long that can last.
    """
    billing = subject.books.running
    subject.need(billing, "its books cannot be seen")
    assert billing is not None
    async with opened(subject) as session:
        machine = await session.shown(await session.rent())
        await session.provider.release(machine)
        facts, absent = session.provider.facts, 0
        # That it never goes is what `check_release_ends_billing` is about.
        with anyio.move_on_after(
            subject.patience + facts.absence_readings * facts.absence_interval
        ):
            while absent < facts.absence_readings:
                state = await session.state(machine)
                bills = machine.id in billing()
                expect(
                    state is not MachineState.GONE or not bills,
                    f"inventory calls {machine.id} gone, while it bills",
                )
                absent = absent + 1 if state in (None, MachineState.GONE) else 0
                expect(
                    absent < facts.absence_readings or not bills,
                    f"{absent} lists prove {machine.id} gone, while it bills",
                )
                await (anyio.sleep(facts.absence_interval) if absent else session.pause())


async def check_release_can_be_repeated(subject: Subject) -> None:
    """Releasing what is gone already, or never was, returns quietly.

    The broker releases until an inventory proves the machine gone, from any process: an error
    here is tried again for ever. Take the vendor's "no such machine" for success.
    """
    async with opened(subject) as session:
        machine = await session.rent()
        async with _quietly("releasing a machine"):
            await session.provider.release(machine)
        async with _quietly("releasing it again at once"):
            await session.provider.release(machine)
        await session.vendor_has(machine.id, running=False, broken="a release ended nothing")
        async with _quietly("releasing a machine that is gone"):
            await session.provider.release(machine)
        if subject.unknown_id is None:
            return
        async with _quietly("releasing a machine that never was"):
            await session.provider.release(Machine(id=subject.unknown_id))


async def check_an_id_is_enough_to_release(subject: Subject) -> None:
    """A new instance of the plugin releases a machine of which it knows the id alone.

    The process that rented it may be dead. Remember nothing that a release needs, and need
    nothing of `Machine.details`.
    """
    async with opened(subject) as session:
        machine = await session.rent()
        async with opened(subject) as other, _quietly("releasing a machine by its id alone"):
            await other.provider.release(Machine(id=machine.id))
        await session.vendor_has(
            machine.id, running=False, broken="by its id alone a machine is not ended"
        )


async def check_only_ids_reach_the_vendor(subject: Subject) -> None:
    """Text that is no id of the vendor's ends no machine, and stands in no request's path.

    Ids come from a ledger and from answers; ``7/../8`` must not end machine 8. Refuse what has not
    the form of an id, with a `ProviderError`, before it is put into a path.
    """
    async with opened(subject) as session:
        machine = await session.rent()
        for shape in _NO_IDS:
            await _release_no_id(session, shape.replace("{id}", machine.id), machine.id)


async def _release_no_id(session: Session, text: str, running: str) -> None:
    books = session.subject.books
    before = len(books.targets()) if books.targets is not None else 0
    with suppress(ProviderError):
        await session.provider.release(Machine(id=text))
    expect(running in await session.running(), f"releasing {text!r} ended machine {running}")
    if books.targets is None:
        return
    asked = [unquote(target) for target in books.targets()[before:]]
    bad = [target for target in asked if _stands_in(text, target)]
    expect(not bad, f"releasing {text!r} asked the vendor for {bad[:1]}")


def _stands_in(text: str, target: str) -> bool:
    """Whether a request's path was made with a text that is no id."""
    if text.strip("."):
        return text in target
    # It is a part of the path by itself; nothing at all leaves two slashes.
    return text in target.partition("?")[0].split("/")[1:-1]


async def check_charges_are_told(subject: Subject) -> None:
    """What a machine really cost is told, once, as money that makes sense.

    The ledger settles on it. Sum up everything that the vendor billed for one machine.
    """
    subject.need(subject.charges, "has no hook charges")
    began = time.time()
    async with opened(subject) as session:
        offer = await session.cheapest()
        machine = await session.provision(offer, session.order(offer))
        await session.vendor_has(machine.id, running=True, broken="nothing was rented")
        await session.provider.release(machine)
        await session.vendor_has(machine.id, running=False, broken="a release ended nothing")
        found: list[Charge] = []
        with anyio.move_on_after(subject.patience + session.provider.facts.charges_after):
            while not found:
                await session.pause()
                charges = await session.provider.charges(began - 60, time.time() + 60)
                found = [charge for charge in charges if charge.machine_id == machine.id]
    expect(len(found) == 1, f"{machine.id} has {len(found)} charges, not one")
    lived = time.time() - began
    most = offer.price.for_seconds(lived + 60, quantum=session.provider.facts.billing_quantum)
    expect(
        Money(0) <= found[0].amount <= most + offer.price.traffic + _CENT,
        f"{machine.id} lived {lived:.0f} s at {offer.price.hourly}/h, and cost {found[0].amount}",
    )
    if subject.books.billed is not None:
        billed = subject.books.billed(machine.id)
        expect(
            abs((found[0].amount - billed).amount) <= billed.amount * _ROUNDED,
            f"{machine.id} cost {found[0].amount}, and the vendor billed {billed}",
        )


async def check_balance_is_told(subject: Subject) -> None:
    """What the account has left is an amount of US dollars, not cents, and asking changes nothing.

    A limit on the balance is kept by it. Divide what the vendor counts in cents by a hundred.
    """
    subject.need(subject.balance, "has no hook balance")
    async with opened(subject) as session:
        first, second = await session.provider.balance(), await session.provider.balance()
    expect(second <= first, f"the balance grew from {first} to {second} by being asked for")
    expect(Money(0) - _ABSURD < second < _ABSURD, f"a balance of {second}")
    if subject.books.balance is not None:
        known = subject.books.balance()
        expect(
            known - _CENT <= second <= known + _CENT,
            f"a balance of {second}, and the vendor's books say {known}",
        )


@asynccontextmanager
async def _quietly(what: str) -> AsyncGenerator[None]:
    """Fail where a release raises."""
    try:
        yield
    except ProviderError as error:
        raise AssertionError(f"{what} raised {error!r}: it must return") from error
