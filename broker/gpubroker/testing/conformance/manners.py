"""What is promised about everything that a plugin does: time, cancellation, secrets, strangers."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import anyio

from gpubroker.errors import ProviderError
from gpubroker.model.machines import Machine
from gpubroker.testing.cancellation import cancel_at
from gpubroker.testing.conformance.session import BLOCKING, Session, expect, opened
from gpubroker.testing.conformance.subject import Subject

#: A computer with much to do can hold up anything, once or twice.
_TRIES: Final = 3
#: Points at which a hook is cancelled, one after the other: far more than a request has.
_MOST_POINTS: Final = 200
_SHORTEST_KEY: Final = 8

Call = Callable[[], Awaitable[Any]]


async def check_no_hook_blocks_the_event_loop(subject: Subject) -> None:
    """No hook keeps the event loop from everything else.

    One plugin that computes, sleeps or reads a slow disk holds up every lease of the process. Hand
    such work to a thread (``anyio.to_thread.run_sync``), and sleep with ``anyio.sleep``.
    """
    blocked: list[tuple[str, float]] = []
    for _ in range(_TRIES):
        async with opened(subject) as session:
            machine = await session.rent()
            for read in _reads(session, machine).values():
                await read()
            await session.provider.release(machine)
        blocked = session.blocked
        if not blocked:
            break
    shown = ", ".join(f"{label} for {seconds:.2f} s" for label, seconds in blocked)
    expect(not blocked, f"the event loop was blocked for more than {BLOCKING:g} s: {shown}")


async def check_a_cancelled_create_is_found(subject: Subject) -> None:
    """Wherever ``provision`` is cancelled, one machine at the most comes of it, and it is listed.

    A caller may leave at any ``await``. Send the create once, with the mark in it, and do nothing
    after it that is needed to find the machine.
    """
    billing, point, reached = subject.books.running, 0, True
    subject.need(billing, "its books cannot be seen")
    assert billing is not None
    async with opened(subject) as session:
        before, running = subject.creates(), set(billing())
        while reached and point < _MOST_POINTS:
            offer = await session.cheapest()
            create = partial(session.provision, offer, session.order(offer))
            reached = await cancel_at(point, partial(_answered_or_not, create))
            await _known(session, running, billing)
            point += 1
        creates = subject.creates() - before
    expect(creates <= point, f"{point} orders, some of them cancelled, were sent {creates} times")


async def _known(
    session: Session, running: set[str], billing: Callable[[], Collection[str]]
) -> None:
    """Every machine made so far is listed under its order's mark; then it is released."""
    marks = {order.mark for order in session.orders}
    listed = await session.listing(
        lambda machines: set(billing()) <= running | machines.keys(),
        "provision was cancelled, and left a machine that inventory does not show",
    )
    made = [machine for machine in listed.values() if machine.id not in running]
    session.made.update(machine.id for machine in made)
    seen = [machine.mark for machine in made]
    expect(marks >= set(seen), "provision was cancelled, and left a machine without its mark")
    expect(len(seen) == len(set(seen)), "one order that was cancelled made two machines")
    for machine in made:
        await session.provider.release(machine)


async def check_a_cancelled_release_can_be_repeated(subject: Subject) -> None:
    """Wherever ``release`` is cancelled, the next release ends the machine.

    The broker repeats it until the machine is gone. Remember nothing as done that was not answered.
    """
    point, reached = 0, True
    async with opened(subject) as session:
        while reached and point < _MOST_POINTS:
            machine = await session.rent()
            release = partial(session.provider.release, machine)
            reached = await cancel_at(point, partial(_answered_or_not, release))
            await _promptly(session, "release", release)
            await session.vendor_has(
                machine.id,
                running=False,
                broken=f"release was cancelled at its suspension {point}, and again ended nothing",
            )
            point += 1


async def check_what_was_cancelled_can_be_asked_again(subject: Subject) -> None:
    """Wherever a hook that reads is cancelled, the next call of it is answered as usual.

    A lock that was not given back, or a request that others wait for, would hang every broker of
    the process. Hold both in ``with`` blocks.
    """
    async with opened(subject) as session:
        machine = await session.rent()
        for name, read in _reads(session, machine).items():
            point, reached = 0, True
            while reached and point < _MOST_POINTS:
                reached, hangs = False, True
                with anyio.move_on_after(subject.patience):
                    reached = await cancel_at(point, partial(_answered_or_not, read))
                    hangs = False
                expect(not hangs, f"{name} was cancelled at its suspension {point - 1}, and hangs")
                point += 1
            await _promptly(session, name, read)


async def check_the_key_is_shown_nowhere(subject: Subject) -> None:
    """The account key is in no log, error, repr, path or query, even where the vendor quotes it.

    Logs and errors are sent around. Send the key in a header; strike it out of whatever the vendor
    says (`gpubroker.rest.RestClient` does); keep it from the repr of what holds it.
    """
    key = subject.settings.key or ""
    subject.need(len(key) >= _SHORTEST_KEY, "has no account key")
    shown: dict[str, str] = {}
    with _logged() as log:
        await _show(subject, shown)
    shown["log"] = "\n".join(log)
    leaks = [where for where, text in shown.items() if key in text]
    expect(not leaks, f"the account key is shown: {', '.join(leaks)}")


async def _show(subject: Subject, shown: dict[str, str]) -> None:
    """Put all that a plugin lets out into `shown`, by what it is."""
    async with opened(subject) as session:
        offer = await session.cheapest()
        machine = await session.provision(offer, session.order(offer))
        shown["repr of the plugin"] = repr(session.instance)
        shown["answers"] = repr((offer, machine, await session.provider.inventory()))
        for name, echo in subject.troubles.echoes.items():
            echo()
            calls: dict[str, Call] = {
                **_reads(session, machine),
                "provision": partial(session.provision, offer, session.order(offer)),
                "release": partial(session.provider.release, machine),
            }
            for hook, call in calls.items():
                try:
                    await call()
                except ProviderError as error:
                    told = "".join(traceback.format_exception(error))
                    shown[f"{hook}'s error, {name}"] = f"{told} {error!r} {error}"
            subject.troubles.calm()
        shown["events"] = repr(session.events)
        if subject.books.targets is not None:
            shown["path or query of a request"] = repr(list(subject.books.targets()))


@contextmanager
def _logged() -> Generator[list[str]]:
    """All that any logger of the process says, however little it is worth."""
    root, keeper = logging.getLogger(), _Keeper()
    before = root.level
    root.addHandler(keeper)
    root.setLevel(logging.DEBUG)
    try:
        yield keeper.lines
    finally:
        root.setLevel(before)
        root.removeHandler(keeper)


class _Keeper(logging.Handler):
    """Keeps what is logged, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


async def check_news_of_the_vendor_are_tolerated(subject: Subject) -> None:
    """Parts and words that nobody knows yet change nothing about those that are known.

    Vendors add fields on any day, and a machine that cannot be listed cannot be given up. Read the
    parts that are needed, and take an unknown state for `MachineState.BOOTING`.
    """
    newer = subject.troubles.newer
    subject.need(newer, "cannot answer with anything new")
    assert newer is not None
    async with opened(subject) as session:
        machine = await session.shown(await session.rent())
        newer()
        try:
            await session.cheapest()
            listed = await session.listed()
        except ProviderError as error:
            raise AssertionError(f"parts that nobody knows yet are refused: {error!r}") from error
        expect(machine.id in listed, "a machine is not listed for what is new in its row")


async def check_it_can_be_closed_and_opened_again(subject: Subject) -> None:
    """A closed plugin may be closed again, and the factory makes another that works.

    A process opens brokers one after the other, in new event loops too. Keep clients, locks and
    task groups in the instance, and nothing in the module.
    """
    async with opened(subject) as first:
        await first.cheapest()
    leave = getattr(first.instance, "__aexit__", None)
    if leave is not None:
        try:
            await leave(None, None, None)
        except Exception as error:
            raise AssertionError(f"closing a closed plugin raised {error!r}") from error
    async with opened(subject) as second:
        expect(second.instance is not first.instance, "the factory gives one instance out twice")
        try:
            await second.cheapest()
        except ProviderError as error:
            raise AssertionError(f"opened again, it does not work: {error!r}") from error


def _reads(session: Session, machine: Machine) -> Mapping[str, Call]:
    """Every hook that changes nothing, ready to be called."""
    subject, provider, now = session.subject, session.provider, time.time()
    hooks: dict[str, Call | None] = {
        "quote": lambda: provider.quote(subject.requirements()),
        "inventory": provider.inventory,
        "logs": (lambda: provider.logs(machine)) if subject.logs else None,
        "charges": (lambda: provider.charges(now - 3600, now)) if subject.charges else None,
        "balance": provider.balance if subject.balance else None,
    }
    return {name: call for name, call in hooks.items() if call is not None}


async def _answered_or_not(call: Call) -> None:
    """Call a hook that is cancelled meanwhile: a plugin may make an error of that."""
    with suppress(ProviderError):
        await call()


async def _promptly(session: Session, name: str, call: Call) -> None:
    """Call a hook that was cancelled before, and fail where it hangs or raises."""
    with anyio.move_on_after(session.subject.patience) as patience:
        try:
            await call()
        except ProviderError as error:
            raise AssertionError(f"{name} was cancelled, and then raised {error!r}") from error
    expect(not patience.cancelled_caught, f"{name} was cancelled, and then hangs")
