"""What is promised about creating machines, and about the list of them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import anyio

from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError
from gpubroker.model.machines import Machine, MachineState
from gpubroker.model.money import Money
from gpubroker.testing.conformance.session import Session, expect, opened
from gpubroker.testing.conformance.subject import Do, Subject

#: Seconds that a create may take at an emulator, far below the minute of a slow boot.
_AT_ONCE: Final = 20.0
#: What a price may differ by from a true one: it was rounded, or moved since. A wrong unit is more.
_MOVED: Final = Decimal("1.1")
_CENT: Final = Money("0.01")


async def check_one_create_for_each_order(subject: Subject) -> None:
    """One call of ``provision`` is one create at the vendor, and one machine with the answer's id.

    Each further request can be a second machine that nobody knows. Switch off whatever repeats
    requests by itself: the plugin's own loops and its HTTP client's retries.
    """
    async with opened(subject) as session:
        before, running = subject.creates(), await session.running()
        machine = await session.rent()
        await session.vendor_has(
            machine.id,
            running=True,
            broken=f"provision returned {machine.id!r}, which the vendor does not have",
        )
        made, creates = await session.running() - running, subject.creates() - before
    expect(made == {machine.id}, f"one order made the machines {sorted(made)}")
    expect(creates == 1 or subject.books.creates is None, f"one order was sent {creates} times")


async def check_the_order_is_passed_on(subject: Subject) -> None:
    """The key that must be let in, and the moment at which the machine must end, reach the vendor.

    Without the one nobody gets in; without the other a machine whose broker died bills on. Send
    `Order.public_key` and `Order.deadline` in the create.
    """
    bodies = subject.books.orders
    subject.need(bodies, "nobody can see what is ordered")
    subject.need(subject.ssh or subject.ends_itself, "needs neither a key nor a moment to end at")
    assert bodies is not None
    async with opened(subject) as session:
        await session.rent()
        body, order = bodies()[-1], session.orders[-1]
    expect(
        not subject.ssh or order.public_key.split()[1] in body,
        "the create lacks the public key of its order: nobody can get in",
    )
    expect(
        not subject.ends_itself or _names_moment(body, order.deadline),
        "the create lacks the deadline of its order: the machine would outlive a dead broker",
    )


def _names_moment(text: str, moment: float) -> bool:
    """Whether text has a moment in it, to the second."""
    near = [int(moment) + more for more in (-1, 0, 1)]
    shown = [datetime.fromtimestamp(second, UTC).isoformat()[:19] for second in near]
    return any(word in text for word in (*map(str, near), *shown))


async def check_inventory_shows_mark_and_id(subject: Subject) -> None:
    """A new machine is listed with its mark, under the id that ``provision`` returned.

    The mark is what a machine is found and swept by when this process is dead. Send it in the
    create request; report it as it was found; use the vendor's id and no other.
    """
    async with opened(subject) as session:
        machine = await session.rent()
        found = await session.marked(session.orders[-1].mark)
    expect(
        found.id == machine.id,
        f"provision says {machine.id!r} and inventory {found.id!r} for one machine",
    )


async def check_provision_does_not_wait_for_the_boot(subject: Subject) -> None:
    """``provision`` returns when the vendor has accepted, however long the machine takes to boot.

    Until it returns, the broker knows no id, and cannot give the machine up. Return with
    `MachineState.BOOTING` and let ``inventory`` tell the rest.
    """
    boot = subject.troubles.slow_boot
    subject.need(boot, "no boot can be made slow")
    assert boot is not None
    async with opened(subject) as session:
        offer = await session.cheapest()
        boot()
        made: Machine | None = None
        with anyio.move_on_after(_AT_ONCE):
            made = await session.provision(offer, session.order(offer))
        expect(made, f"provision waited for more than {_AT_ONCE:g} s of a slow boot")
        assert made is not None
        found = await session.shown(made)
    expect(
        found.state is not MachineState.RUNNING,
        "inventory calls a machine running that has not booted: it would be handed out",
    )


async def check_price_ceiling_is_kept(subject: Subject) -> None:
    """An order that costs more than its ceiling is refused, or the machine's price is told.

    A price can rise between the quote and the create. Send the ceiling where the vendor takes
    one; else report `Machine.hourly`, and the broker gives up what is too dear.
    """
    subject.need(subject.paid, "costs nothing")
    async with opened(subject) as session:
        offer = await session.cheapest()
        running = await session.running()
        ceiling = offer.price.hourly / 4
        order = session.order(offer, price_ceiling=ceiling)
        try:
            machine = await session.provision(offer, order)
        except ProviderError as error:
            made = await session.running() - running - {error.machine_id}
            expect(not made, f"the order was refused, and made {sorted(made)}: {error}")
            expect(
                error.kind is not ErrorKind.CREATE_UNKNOWN,
                f"an order that was refused for its price counts as lost: {error}",
            )
            return
        listed = await session.listing(
            lambda machines: machine.id in machines and machines[machine.id].hourly is not None,
            f"{machine.id} was rented above the ceiling, and inventory never tells its price",
        )
    hourly = listed[machine.id].hourly
    expect(
        hourly is not None and hourly > ceiling,
        f"{machine.id} costs {offer.price.hourly}/h, and inventory says {hourly}/h",
    )


async def check_the_price_is_what_bills(subject: Subject) -> None:
    """What an offer says is what its machine costs, and so is `Machine.hourly`.

    Budgets are reserved by the one and watched by the other. USD per hour of the whole machine:
    turn what the vendor says per second, per month, per GPU or in cents into that.
    """
    subject.need(subject.paid, "costs nothing")
    true = subject.books.hourly
    async with opened(subject) as session:
        offer = await session.cheapest()
        machine = await session.provision(offer, session.order(offer))
        listed = await session.shown(machine)
        if true is not None:
            # Some bill the cards of a machine only once it runs.
            await session.running_machine(machine)
            known = true(machine.id)
            expect(
                _close(offer.price.hourly, known),
                f"{offer.id} is offered for {offer.price.hourly}/h, and really costs {known}/h",
            )
    subject.need(true or listed.hourly, "neither its books nor its list say what a machine costs")
    expect(
        listed.hourly is None or _close(listed.hourly, offer.price.hourly),
        f"{offer.id} was offered for {offer.price.hourly}/h, and inventory says {listed.hourly}/h",
    )


def _close(found: Money, known: Money) -> bool:
    most, least = known * _MOVED + _CENT, found * _MOVED + _CENT
    return found <= most and known <= least


async def check_lost_answers_are_unknown(subject: Subject) -> None:
    """A create whose answer is lost is `CreateUnknown`, never sent again, and found by its mark.

    This is where machines leak: it exists, and no answer said so. Raise `CreateUnknown` for a cut
    connection, a time-out, a 5xx and an answer that makes no sense; send the mark in the create.
    """
    ways = subject.troubles.lost_creates
    subject.need(ways, "no create's answer can be lost")
    for name, lose in ways.items():
        async with opened(subject) as session:
            await _lose(session, name, lose)


async def _lose(session: Session, name: str, lose: Do) -> None:
    subject = session.subject
    offer = await session.cheapest()
    before = subject.creates()
    order = session.order(offer)
    lose()
    try:
        await session.provision(offer, order)
    except CreateUnknown:
        pass
    except ProviderError as error:
        raise AssertionError(
            f"{name}: the answer was lost, and provision says {error!r}: not CreateUnknown"
        ) from error
    else:
        raise AssertionError(f"{name}: the answer was lost, and provision has a machine")
    found = await session.marked(order.mark)
    creates = subject.creates() - before
    expect(
        creates == 1 or subject.books.creates is None,
        f"{name}: the create was sent {creates} times",
    )
    await session.provider.release(found)


async def check_a_refusal_that_bills_names_its_machine(subject: Subject) -> None:
    """A refusal that names a machine is raised with ``machine_id``, so that it is released.

    Look for an id in every answer to a create, before anything else is made of it.
    """
    refuse = subject.troubles.billing_refusal
    subject.need(refuse, "no refusal can leave a machine behind")
    assert refuse is not None
    async with opened(subject) as session:
        offer = await session.cheapest()
        running = await session.running()
        refuse()
        try:
            await session.provision(offer, session.order(offer))
        except ProviderError as error:
            named = error.machine_id
        else:
            raise AssertionError("provision took a refusal for a machine")
        made = await session.running() - running
        session.made |= made
    expect(made == {named}, f"the refusal left {sorted(made)} behind, and the error names {named}")


async def check_inventory_is_complete_or_raises(subject: Subject) -> None:
    """A list that may lack a machine is an error, never a shorter list.

    "Not listed" is proof that a machine is gone, and the end of its release. Raise
    `ProviderError` for every page that fails, every answer that makes no sense, and every count
    that does not add up.
    """
    ways = subject.troubles.broken_listings
    subject.need(ways, "no listing can be made to fail")
    async with opened(subject) as session:
        machine = await session.shown(await session.rent())
        for name, break_listing in ways.items():
            break_listing()
            listed = {machine.id}
            with suppress(ProviderError):
                listed = {found.id for found in await session.provider.inventory()}
            subject.troubles.calm()
            expect(
                machine.id in listed,
                f"{name}: inventory lacks a machine that runs, and does not raise",
            )


async def check_inventory_is_read_each_time(subject: Subject) -> None:
    """Every inventory asks the vendor anew; no list is remembered for the next call.

    A list from before a create proves gone what has just been made, and one from before a release
    keeps the broker waiting. Keep nothing between two calls: the broker asks no more often than
    ``facts.poll_interval``.
    """
    targets = subject.books.targets
    subject.need(targets, "nobody can see which requests arrive")
    assert targets is not None
    async with opened(subject) as session:
        await session.shown(await session.rent())
        before = len(targets())
        await session.provider.inventory()
        expect(len(targets()) > before, "inventory has an answer, and has not asked the vendor")


async def check_inventory_lists_every_machine(subject: Subject) -> None:
    """Machines that this broker did not order are listed as well, marked or not.

    A person is told what the account pays for, and a machine whose mark was lost is still known
    by its id. Filter nothing; ask for no label.
    """
    others = subject.troubles.others
    subject.need(others, "nobody else can order machines")
    assert others is not None
    async with opened(subject) as session:
        made = set(others())
        session.made |= made
        expect(made, "the subject made no machines")
        await session.listing(
            lambda listed: made <= listed.keys(),
            f"inventory lacks {sorted(made)}, which somebody else ordered",
        )
