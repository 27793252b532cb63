"""``python -m tests.crashes.soak``: brokers and a reaper are killed and begun again for a long time.

The ledger is in PostgreSQL, which is restarted all the while, and some of the vendors' answers are
faults. In the end the vendors' own books are asked what is left.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import anyio
from tests.crashes.oracle import Ending, problems, read_ledger
from tests.crashes.processes import Child, start
from tests.crashes.scenarios import A_4090, BOUND, Place, reap
from tests.crashes.vendors import Vendors
from tests.postgres import PostgresServer, running

from gpubroker import AcquireError, BrokerError, Job
from gpubroker.model.leases import LeaseState
from gpubroker.model.places import ledger_place
from gpubroker_runpod.emulator import RunPodEmulator
from gpubroker_vast.emulator import VastEmulator

FAULTS: Final = 0.05
"""Which part of the vendors' answers is a fault."""

_Role = Literal["broker 1", "broker 2", "reaper"]


@dataclass(slots=True)
class Tally:
    """What happened in all that time."""

    kills: Counter[str] = field(default_factory=Counter[str])
    ended: Counter[str] = field(default_factory=Counter[str])
    restarts: int = 0
    surprises: list[str] = field(default_factory=list[str])


def _flaky(part: float, vast: VastEmulator, runpod: RunPodEmulator) -> None:
    for vendor in (vast, runpod):
        world: Any = vendor.inside.world
        world.behaviour = replace(world.behaviour, flakiness=part)


async def _jobs(vendors: tuple[str, ...], place: Place) -> None:
    """Run one job after the other; what fails for the vendors' sake, or the ledger's, is tried anew."""
    while True:
        with suppress(BrokerError):
            async with place.broker(vendors) as broker:
                while True:
                    with suppress(AcquireError):
                        await broker.run(Job("echo ok", timeout=30), A_4090)
                    await anyio.sleep(0.05)
        await anyio.sleep(0.2)


async def _sweeps(place: Place) -> None:
    while True:
        with suppress(BrokerError):
            await reap(place)
        await anyio.sleep(0.2)


_PLAYS: Final[dict[_Role, Callable[[Place], Awaitable[None]]]] = {
    "broker 1": partial(_jobs, ("runpod",)),
    "broker 2": partial(_jobs, ("vast", "runpod")),
    "reaper": _sweeps,
}


class Soak:
    """Keeps three processes going, and kills them."""

    def __init__(self, place: Place, server: PostgresServer, seed: int) -> None:
        self._place = place
        self._server = server
        self._chance = random.Random(seed)
        self._children: dict[_Role, tuple[Child, float]] = {}
        self.tally = Tally()

    def run(self, seconds: float, say: Callable[[str], None]) -> None:
        """Go on for so long."""
        began = time.monotonic()
        restart = began + self._chance.uniform(5.0, 40.0)
        report = began + 60.0
        while (now := time.monotonic()) < began + seconds:
            for role in _PLAYS:
                self._see_to(role, now)
            if now >= restart:
                self._server.stop(self._chance.choice((signal.SIGQUIT, signal.SIGINT)))
                self._server.start()
                self.tally.restarts += 1
                restart = time.monotonic() + self._chance.uniform(5.0, 40.0)
            if now >= report:
                kills = sum(self.tally.kills.values())
                say(f"{(now - began) / 60:.0f} min: {kills} kills, {self.tally.restarts} restarts")
                report += 60.0
            time.sleep(0.02)
        for child, _ in self._children.values():
            child.end()

    def _see_to(self, role: _Role, now: float) -> None:
        known = self._children.get(role)
        if known is not None and known[0].wait(0.0):
            self.tally.ended[role] += 1
            self.tally.surprises.append(f"{role} ended: {known[0].tail()[-600:]}")
            known = None
        elif known is not None and now >= known[1]:
            known[0].end()
            self.tally.kills[role] += 1
            known = None
        if known is None:
            name = f"{role} {self.tally.kills[role] + self.tally.ended[role]}"
            backend = self._chance.choice(("asyncio", "trio"))
            child = start(name, self._place, _PLAYS[role], backend=backend)
            self._children[role] = child, now + self._chance.uniform(1.0, 5.0)


def _heal(place: Place, vendors: Vendors) -> tuple[list[str], float]:
    """Let nothing fail any more, and a reaper work; what is wrong then, and after how long."""
    began = time.monotonic()
    said: list[str] = []
    for number in range(20):
        reaper = start(f"healer {number}", place, reap)
        if not reaper.wait(3 * BOUND):
            reaper.end()
            said = ["the reaper hangs:\n" + reaper.tail()]
            continue
        said = [] if reaper.problem is None else [f"the reaper failed:\n{reaper.problem}"]
        if not said and not vendors.books().running and not _open(place):
            break
    ending = Ending(
        books=vendors.books(),
        ledger=read_ledger(place),
        output=place.output,
        delivers=False,
        ended=False,
    )
    return said + problems(ending), time.monotonic() - began


def _open(place: Place) -> int:
    return sum(lease.state.open for lease in read_ledger(place).leases)


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.crashes.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    vendors = Vendors()
    try:
        with running() as server, tempfile.TemporaryDirectory(prefix="gpubroker-soak-") as folder:
            database = ledger_place(server.new_database())
            place = Place(Path(folder), database, vendors.addresses, chosen.seed)
            vendors.begin(partial(_flaky, FAULTS))
            soak = Soak(place, server, chosen.seed)
            soak.run(chosen.minutes * 60, say)
            vendors.change(partial(_flaky, 0.0))
            found, healing = _heal(place, vendors)
            ledger, books = read_ledger(place), vendors.books()
        states = Counter(str(lease.state) for lease in ledger.leases)
        jobs = sum(event.kind == "job ended" for event in ledger.events)
        refused = states[LeaseState.REFUSED]
        say(f"{sum(soak.tally.kills.values())} kills {dict(soak.tally.kills)}")
        say(f"{soak.tally.restarts} restarts of PostgreSQL")
        say(f"{len(ledger.leases)} leases ({refused} refused), {jobs} jobs ended")
        say(f"{len(books.creates)} creates, {len(books.made)} machines made")
        say(f"nothing was left {healing:.1f} s after the faults ended" if not found else "")
        for line in [*soak.tally.surprises[:20], *found]:
            say(f"FAILED: {line}")
    finally:
        vendors.close()
    return int(bool(found or soak.tally.surprises))


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
