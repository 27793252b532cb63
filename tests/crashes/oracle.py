"""What must hold in the end, by the vendors' books and the broker's ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.crashes.scenarios import BUDGET, INPUT, Place
from tests.crashes.vendors import Books, Made

from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.verify import violations
from gpubroker.model.leases import LeaseRow, LeaseState, LedgerEvent
from gpubroker.model.money import Money

#: Written by whoever notices, without taking the lease over.
_ANYBODYS: Final = frozenset({"settled", "watch over"})
#: USD that the vendor's rounding and its own clock may add to what was counted.
_ROUNDING: Final = Money("0.000010")


@dataclass(frozen=True, slots=True)
class Written:
    """Everything that a ledger says."""

    leases: Sequence[LeaseRow]
    events: Sequence[LedgerEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is left of a trial.

    Attributes:
        output: what the job was to bring back. delivers: it was to bring something.
        ended: nothing befell the victim, which ended by itself.
    """

    books: Books
    ledger: Written
    output: Path
    delivers: bool
    ended: bool


def read_ledger(place: Place) -> Written:
    """The ledger of a trial."""
    if isinstance(place.ledger, Path) and not place.ledger.exists():
        return Written([], [])
    ledger = Ledger(place.ledger, entropy=b"12345", busy=5.0)
    try:
        return Written(ledger.leases(open_only=False), ledger.events())
    finally:
        ledger.close()


def problems(ending: Ending) -> list[str]:
    """What must not be, one line each."""
    books, ledger = ending.books, ending.ledger
    found = [f"{machine} still runs" for machine in books.running]
    found += [f"a stranger's machine was destroyed: {machine}" for machine in books.missing]
    found += [f"the emulator failed: {bug}" for bug in books.bugs]
    found += [
        f"{count} creates for the mark {mark}"
        for mark, count in Counter(books.creates).items()
        if count > 1
    ]
    known = {lease.mark: lease for lease in ledger.leases}
    found += [f"a create without an intent: {mark}" for mark in books.creates if mark not in known]
    found += [f"the ledger: {line}" for line in violations(ledger.leases, ledger.events)]
    found += [
        f"{lease.id} is still {lease.state}, {lease.reserved} held"
        for lease in ledger.leases
        if lease.state.open
    ]
    for machine in books.made:
        found += _accounts(machine, known.get(machine.mark))
    spent = Money(sum(lease.spent.amount for lease in ledger.leases))
    if spent > BUDGET:
        found.append(f"{spent} was spent, of {BUDGET}")
    return found + list(_result(ending))


def _accounts(machine: Made, lease: LeaseRow | None) -> Iterator[str]:
    """Whether the ledger says of a machine what the vendor does."""
    name = f"{machine.vendor} {machine.id}"
    if lease is None:
        yield f"{name} is in no ledger"
    elif lease.machine_id != machine.id:
        yield f"{name} is {lease.machine_id} in the ledger"
    elif lease.state is LeaseState.REFUSED:
        yield f"{name} was refused, says the ledger"
    elif machine.charge > lease.spent + _ROUNDING:
        yield f"{name} cost {machine.charge}, but {lease.spent} is in the ledger"


def _result(ending: Ending) -> Iterator[str]:
    """A file is whole or not there; and there, once the ledger says that the job ended."""
    there = ending.output.exists()
    if there and ending.output.read_bytes() != INPUT:
        yield "half a result was delivered"
    ended = any(
        event.kind == "job ended" and event.detail == "exited 0" for event in ending.ledger.events
    )
    if ending.delivers and ended and not there:
        yield "the job is on record as ended, and its result is not there"
    left = [path.name for path in ending.output.parent.glob(".*")] if ending.ended else []
    if left:
        yield f"left behind: {left}"


def stale_writes(before: Written, after: Written) -> list[str]:
    """What a victim changed in leases that were taken from it while it stood still."""
    epochs = {lease.id: lease.epoch for lease in before.leases if lease.epoch > 1}
    last = max((event.number for event in before.events), default=0)
    return [
        f"{event.lease_id}: {event.kind} was written by a stale owner"
        for event in after.events
        if event.number > last
        and event.epoch <= epochs.get(event.lease_id, 0)
        and event.kind not in _ANYBODYS
    ]
