"""What is promised about a provider's facts and its offers."""

from __future__ import annotations

from decimal import Decimal
from statistics import median
from typing import Final

from gpubroker.errors import ProviderError
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.testing.conformance.session import expect, opened
from gpubroker.testing.conformance.subject import Subject

#: No vendor prices below a billionth of a dollar. More digits come from arithmetic in floats, or
#: from a division that nobody rounded.
_DIGITS: Final = 9
#: What twice as many GPUs may cost, as a multiple: other hosts, other processors.
_TWICE: Final = (1.4, 2.9)
_NOBODY_HAS: Final = 1_000_000


async def check_facts_and_hooks_agree(subject: Subject) -> None:
    """The provider is what its subject says, in its facts and its hooks.

    The broker acts on facts alone: a paid provider that does not say so is rented without a
    limit and never swept, and without a hook what it is for silently never happens. Mend the
    plugin's ``facts``, or mark the hook with ``@hookimpl``.
    """
    async with opened(subject) as session:
        facts, hooks = session.provider.facts, session.provider.hooks
    for name, said, known in (
        ("paid", facts.paid, subject.paid),
        ("ssh", facts.ssh, subject.ssh),
        ("spot", facts.spot, subject.spot),
    ):
        expect(said == known, f"facts.{name} is {said}, and the subject says {known}")
    for name in ("logs", "charges", "balance"):
        declared = getattr(subject, name)
        expect(
            declared == (name in hooks),
            f"the hook {name} is {'missing' if declared else 'there, and not declared'}",
        )
    expect(
        facts.late_create_watch >= facts.visibility_horizon,
        "facts.late_create_watch is less than visibility_horizon: a lost create would be given up "
        "before its machine can be seen",
    )


async def check_quote_has_what_fits(subject: Subject) -> None:
    """What the vendor surely has is offered, with enough said for the broker to see that it fits.

    An offer's part that is ``None`` meets no requirement. Fill in what the vendor says, in the
    units of `gpubroker.Offer`.
    """
    async with opened(subject) as session:
        await session.cheapest()


async def check_quote_of_the_impossible_is_empty(subject: Subject) -> None:
    """That nothing can be rented is an answer, and no failure.

    A plugin that raises here is taken for broken, and left alone for a while. Return an empty
    list.
    """
    async with opened(subject) as session:
        try:
            found = await session.fitting(subject.requirements(vram=_NOBODY_HAS))
        except ProviderError as error:
            raise AssertionError(
                f"quote raised for what nobody has, instead of returning no offers: {error}"
            ) from error
    expect(not found, f"quote offers {_NOBODY_HAS} GB of VRAM: {found[:1]}")


async def check_quote_can_be_asked_again(subject: Subject) -> None:
    """Asking twice rents nothing, and a thing that is offered twice is the same both times.

    The broker quotes at every turn, and remembers by id what failed. Make ids from what the
    vendor calls the thing, never from a position in a list or the time.
    """
    async with opened(subject) as session:
        before = subject.creates()
        running = await session.running()
        first = {offer.id: offer for offer in await session.provider.quote(subject.requirements())}
        second = {offer.id: offer for offer in await session.provider.quote(subject.requirements())}
        rented = await session.running() - running
    both = first.keys() & second.keys()
    expect(both, f"no id of {len(first)} offers is the same when they are asked for again")
    changed = [i for i in both if _thing(first[i]) != _thing(second[i])]
    expect(not changed, f"offers with the same id are different things: {changed[:3]}")
    expect(not rented and subject.creates() == before, "quote rented something")


async def check_prices_are_exact(subject: Subject) -> None:
    """No part of a price has digits that no vendor wrote.

    ``0.1 + 0.2`` in floats is not ``0.3``: budgets are kept in exact amounts, and a price that
    differs in its last digit counts as a rise. Read numbers as text or ``Decimal``, and round a
    division up.
    """
    async with opened(subject) as session:
        offers = await session.provider.quote(subject.requirements())
    for offer in offers:
        price = offer.price
        for name in ("machine", "disk", "upload", "download"):
            amount: Decimal = getattr(price, name).amount
            expect(
                amount == round(amount, _DIGITS),
                f"the {name} part of {offer.id}'s price is {amount}: more than {_DIGITS} decimals",
            )
        expect(not price.flawed, f"a part of {offer.id}'s price is below zero: {price}")
        expect(
            price.machine > Money(0) or not subject.paid,
            f"{offer.id} costs nothing, at a provider that is paid",
        )


async def check_prices_are_for_the_whole_machine(subject: Subject) -> None:
    """Two GPUs cost about twice what one costs.

    A price per GPU would make every large machine look cheap, and be overspent by as much. Multiply
    what the vendor says by the number of GPUs, unless it is for all of them.
    """
    subject.need(subject.doubles, "does not sell the same GPU one and two at a time")
    cheapest: dict[int, dict[str, Money]] = {}
    async with opened(subject) as session:
        for count in (1, 2):
            # The last one put in is the cheapest of its model.
            offers = reversed(await session.fitting(subject.requirements(count=count)))
            cheapest[count] = {o.gpu or "": o.price.machine for o in offers}
    both = cheapest[1].keys() & cheapest[2].keys()
    subject.need(both or subject.account is None, "has no GPU model both once and twice just now")
    expect(both, "no GPU model is offered both once and twice, though the subject says so")
    ratio = median(cheapest[2][gpu].amount / cheapest[1][gpu].amount for gpu in both)
    least, most = _TWICE
    expect(
        least <= ratio <= most,
        f"two GPUs cost {ratio:.2f} times what one does: prices are for the whole machine",
    )


async def check_disk_is_priced(subject: Subject) -> None:
    """More disk costs more, where the vendor bills it.

    What is not in the price is in no reservation, and breaks a limit later. Work
    `Price.disk` out for ``requirements.disk_gb``.
    """
    subject.need(subject.bills_disk, "does not bill disk")
    async with opened(subject) as session:
        small, large = [
            {offer.gpu: offer.price for offer in reversed(await session.fitting(wanted))}
            for wanted in (subject.requirements(disk=20), subject.requirements(disk=200))
        ]
    both = small.keys() & large.keys()
    expect(both, "no GPU model is offered both with 20 and with 200 GB of disk")
    priced = any(large[gpu].disk for gpu in both)
    # Of a real account nobody has declared whether disk is billed there.
    subject.need(
        priced or subject.account is None,
        "prices no disk, which is right only where the vendor bills none",
    )
    free = [gpu for gpu in both if not Money(0) < small[gpu].disk < large[gpu].disk]
    expect(not free, f"200 GB of disk cost no more than 20 GB: {free[:3]}")


def _thing(offer: Offer) -> tuple[object, ...]:
    return (offer.gpu, offer.count, offer.vram, offer.spot, offer.host, offer.price)
