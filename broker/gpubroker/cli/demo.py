"""``gpubroker demo``: a job that survives a sold-out vendor and a machine that dies, and its bill."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio

from gpubroker.broker import AsyncBroker
from gpubroker.cli.decisions import record_page
from gpubroker.cli.ending import Ending
from gpubroker.cli.failures import BROKER_FAILED
from gpubroker.cli.ledger import opened
from gpubroker.cli.progress import Progress
from gpubroker.cli.run import Asked, Running
from gpubroker.cli.screen import Page, Table, show, show_json
from gpubroker.cli.sink import Sink
from gpubroker.errors import BrokerError
from gpubroker.model.codec import to_plain
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.events import Event, EventKind
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseRow
from gpubroker.model.money import ZERO, Money
from gpubroker.model.requirements import Requirements
from gpubroker.policy.policy import Policy
from gpubroker.policy.ranking import cheapest, prefer
from gpubroker.settings import Settings
from gpubroker.testing.sandboxing import Emulator, Sandbox

#: One that few have at the first vendor: each of its offers becomes an attempt that fails.
_CARD: Final = "RTX A5000"
#: Runs with cards that it pretends to have.
_LAST: Final = "local"
_STEPS: Final = 8
_SCRIPT: Final = f"""
for step in $(seq {_STEPS}); do echo "painting: step $step of {_STEPS}"; sleep 1; done
echo "a picture" >picture.txt
""".encode()
#: Seconds after the start of the job at which its machine dies.
_DIES_AFTER: Final = 3.5
#: Seconds between two looks for a machine that is lost; a broker by itself takes its time.
_LOOK_EVERY: Final = 0.5


def demo(box: Sandbox, *, as_json: bool) -> int:
    """Play it; returns the exit code: 0 if the job is done, all is gone, and the books agree."""
    messages = Sink(2)
    output = messages if as_json else Sink(1)
    progress = Progress(messages, quiet=False)
    vendors = [box.emulators[name] for name in sorted(box.emulators, reverse=True)]
    settings = _settings(box)
    for line in _introduction([vendor.name for vendor in vendors]):
        progress.line(line)
    director = _Director(vendors, progress)
    ending = Running(settings, _asked(settings, vendors), progress, output, messages, director)
    ended = ending.carry_out()
    if ended.stopped is not None:
        if as_json:
            show_json({"result": ended.as_data()})
        return ended.code
    books = _books(settings, vendors)
    record = _record(settings)
    if as_json:
        show_json(_as_data(ended, record, books))
    else:
        if record is not None:
            show(record_page(record, cooldowns=(), now=time.time()))
        show(books.page())
    return ended.code or (0 if books.well else BROKER_FAILED)


def _introduction(vendors: list[str]) -> list[str]:
    *sold_out, dying = vendors
    return [
        f"on this machine: emulated {' and '.join(sorted(vendors))}, play money, pretended cards",
        f"the policy, whatever the price: {', '.join([*vendors, _LAST])}",
        *(f"{name} will be sold out at the last moment" for name in sold_out),
        f"{dying} will lose the machine in the middle of the job",
        f"{_LAST} is this machine, with a simulated {_CARD}",
    ]


def _settings(box: Sandbox) -> Settings:
    """The sandbox's, and this machine with a simulated card; all below the sandbox's folder."""
    folder = Path(str(box.settings.ledger)).parent
    here = {
        "enabled": "true",
        "simulate": _CARD,
        "directory": str(folder / "local"),
        "lock_directory": str(folder / "cards"),
    }
    return replace(box.settings, providers={**box.settings.providers, _LAST: here})


def _asked(settings: Settings, vendors: list[Emulator]) -> Asked:
    order = prefer(*(vendor.name for vendor in vendors), _LAST)
    folder = Path(str(settings.ledger)).with_name("results")
    return Asked(
        wanted=(Requirements(gpu=_CARD, count=1),),
        policy=Policy(rank=order | cheapest()),
        job=Job(
            ["sh", "paint.sh"],
            files={"paint.sh": _SCRIPT},
            outputs="picture.txt",
            output_dir=folder,
            retries=len(vendors),
        ),
        budget=None,
        lifetime=None,
        proof_wait=30.0,
        on_owner_death="release",
    )


class _Director:
    """Has the vendors fail when it is their turn."""

    def __init__(self, vendors: list[Emulator], progress: Progress) -> None:
        *sold_out, self._dying = vendors
        self._sold_out = {vendor.name: vendor for vendor in sold_out}
        self._progress = progress
        self._lost = False

    def tell(self, event: Event) -> None:
        """See `gpubroker.cli.run.Director`."""
        if event.kind is EventKind.ATTEMPT and event.provider in self._sold_out:
            self._progress.line(f"(others take everything that {event.provider} has)")
            self._sold_out.pop(event.provider).sell_out()
        elif event.provider != self._dying.name:
            return
        elif event.kind is EventKind.RUNNING:
            self._progress.line(f"({self._dying.name}'s machine will die in {_DIES_AFTER} s)")
            self._dying.sell_out()
            self._dying.lose_all(after=_DIES_AFTER)
            self._lost = True
        elif event.kind is EventKind.RELEASING:
            self._lost = False

    async def beside(self, broker: Callable[[], AsyncBroker | None]) -> None:
        """Look for the lost machine more often than a broker does by itself."""
        while True:
            await anyio.sleep(_LOOK_EVERY)
            opened_one = broker()
            if self._lost and opened_one is not None:
                with suppress(BrokerError):
                    await opened_one.sweep()


# ---- the books -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One machine, with what it has cost in USD.

    Attributes:
        counted: by the broker, from time and price, until there was a bill.
        billed: by the vendor; ``None`` where nobody bills.
        booked: what the ledger says at the end.
    """

    provider: str
    machine: str
    counted: Money
    billed: Money | None
    booked: Money

    @property
    def agree(self) -> bool:
        """Whether both say the same."""
        return self.booked == (self.billed or ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the vendors billed beside what the ledger says.

    Attributes:
        left: machines that are still billed, or that the ledger still holds.
    """

    entries: tuple[Entry, ...]
    left: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Whether every machine was booked at what was billed."""
        return all(entry.agree for entry in self.entries)

    @property
    def well(self) -> bool:
        """Whether they agree, and nothing is left."""
        return self.agree and not self.left

    def page(self) -> Page:
        """For people."""
        rows = [
            [
                entry.provider,
                entry.machine,
                str(entry.counted),
                "nobody bills" if entry.billed is None else str(entry.billed),
                str(entry.booked),
                "yes" if entry.agree else "NO",
            ]
            for entry in self.entries
        ]
        money = [">counted", ">billed by the vendor", ">in the ledger"]
        total = sum((entry.booked for entry in self.entries), ZERO)
        verdict = "both agree" if self.agree else "they do NOT agree"
        return Page(
            tables=[Table(["provider", "machine", *money, "agree"], rows, "the books")],
            closing=[
                f"machines left: {', '.join(self.left) or 'none'}; spent: {total}, {verdict}",
            ],
        )


def _books(settings: Settings, vendors: list[Emulator]) -> Books:
    """Have a broker put on record what was billed, as the next one would; then compare."""
    anyio.run(_settle, settings)
    with opened(settings) as ledger:
        rows = [row for row in ledger.leases(open_only=False) if row.machine_id is not None]
    still = [f"{v.name} {machine}" for v in vendors for machine in v.billing_now()]
    held = [f"{row.provider} {row.machine_id}" for row in rows if row.state.open]
    return Books(
        entries=tuple(sorted(_entries(rows, vendors), key=lambda entry: entry.provider)),
        left=tuple(dict.fromkeys([*still, *held])),
    )


async def _settle(settings: Settings) -> None:
    async with AsyncBroker(settings=settings, sweep=False) as broker:
        await broker.sweep()


def _entries(rows: list[LeaseRow], vendors: list[Emulator]) -> list[Entry]:
    """Each machine that either side knows of."""
    known = {(row.provider, str(row.machine_id)): row for row in rows}
    billed = {(v.name, machine): v.billed(machine) for v in vendors for machine in v.charges()}
    return [
        Entry(
            provider=provider,
            machine=machine,
            counted=ZERO if row is None else row.spent if row.counted is None else row.counted,
            billed=billed.get((provider, machine)),
            booked=ZERO if row is None else row.spent,
        )
        for provider, machine in {**known, **billed}
        for row in (known.get((provider, machine)),)
    ]


def _record(settings: Settings) -> DecisionRecord | None:
    with opened(settings) as ledger:
        return ledger.record()


def _as_data(ending: Ending, record: DecisionRecord | None, books: Books) -> dict[str, Any]:
    return {
        "result": ending.as_data(),
        "record": None if record is None else to_plain(DecisionRecord, record),
        "books": [to_plain(Entry, entry) | {"agree": entry.agree} for entry in books.entries],
        "agree": books.agree,
        "machines_left": list(books.left),
    }
