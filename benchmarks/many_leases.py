"""A thousand leases of a paid provider in one process, all in hand at the same time.

The cloud is scripted and time is virtual: the waits that a real cloud makes necessary (boots,
the two inventories that prove a machine gone) take no time, so what is measured is the work.
`--real-time` in the process itself (``python -m benchmarks.many_leases asyncio 1000 --real-time``)
waits for them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal, cast
from unittest.mock import patch

import anyio

from benchmarks.figures import Figure
from benchmarks.one_job import commit, durable_table
from benchmarks.processes import child, report
from gpubroker import AsyncBroker, Plugin, ReleaseState
from gpubroker.ledger.store import Store
from gpubroker.testing import ScriptedCloud, VirtualWallClock, offer, run_virtual

Loop = Literal["asyncio", "trio"]

_LEASES: Final = 1000


def leases(rounds: int, home: Path) -> list[Figure]:
    """Peak memory and speed, on both event loops, beside bare tasks with as many commits."""
    figures: list[Figure] = []
    for loop in ("asyncio", "trio"):
        ours: list[dict[str, Any]] = []
        bare: list[dict[str, Any]] = []
        for _ in range(rounds):
            ours.append(child("many_leases", loop, _LEASES, home=home))
            commits = int(ours[-1]["commits"])
            bare.append(child("many_leases", loop, _LEASES, "--bare", commits, home=home))
        seconds, ledger = _median(ours, "seconds"), _median(ours, "ledger_seconds")
        figures += [
            Figure(
                what=f"{_LEASES} leases at once, {loop}: peak memory",
                value=_median(ours, "peak_mb"),
                unit="MB",
                beside="bare tasks, as many commits",
                other=_median(bare, "peak_mb"),
                limit=150,
                note="all in hand at the same time, one job each, all proven gone",
            ),
            Figure(
                what=f"{_LEASES} leases at once, {loop}: time for each",
                value=seconds * 1000 / _LEASES,
                unit="ms",
                beside="bare tasks, as many commits",
                other=_median(bare, "seconds") * 1000 / _LEASES,
                note=f"{_LEASES / seconds:.0f} leases/s; the ledger has {ledger / seconds:.0%} of"
                f" the time, with {_median(ours, 'commits') / _LEASES:.1f} commits"
                f" and {_median(ours, 'reads') / _LEASES:.1f} reads for each lease",
            ),
        ]
    return figures


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return median(float(run[name]) for run in runs)


# ---- in a process of its own --------------------------------------------------------------


class Meter:
    """Counts and times what the ledger's file is asked to do."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.commits = 0
        self.reads = 0

    @contextmanager
    def running(self) -> Generator[None]:
        """Meter every ledger that is used inside."""
        with (
            patch.object(Store, "transaction", self._metered(Store.transaction, writes=True)),
            patch.object(Store, "reading", self._metered(Store.reading, writes=False)),
        ):
            yield

    def _metered(
        self, original: Callable[[Store], AbstractContextManager[Any]], *, writes: bool
    ) -> Callable[[Store], AbstractContextManager[Any]]:
        @contextmanager
        def metered(store: Store) -> Generator[Any]:
            began = time.perf_counter()
            try:
                with original(store) as sql:
                    yield sql
            finally:
                self.seconds += time.perf_counter() - began
                self.commits += writes
                self.reads += not writes

        return metered


async def _leases(count: int, folder: Path, now: Callable[[], float], meter: Meter) -> float:
    cloud = ScriptedCloud(now=now, offers=[offer("RTX 4090", "0.40")])
    plugin = Plugin("scripted", cloud.factory, "benchmark", given=True)
    in_hand: list[str] = []
    all_in_hand = anyio.Event()

    async with AsyncBroker(
        now=now, plugins=[plugin], budget=1, ledger=folder / "ledger.db"
    ) as broker:

        async def one() -> None:
            async with broker.lease() as lease:
                in_hand.append(lease.id)
                if len(in_hand) == count:
                    all_in_hand.set()
                await all_in_hand.wait()
                (await lease.run(["true"])).check()

        with meter.running():
            began = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(one)
            for lease_id in in_hand:
                if await broker.wait_released(lease_id, timeout=600) is not ReleaseState.PROVEN:
                    raise RuntimeError(f"{lease_id} is not proven gone")
            seconds = time.perf_counter() - began
    cloud.assert_nothing_running()
    cloud.assert_contract_kept()
    return seconds


async def _bare(count: int, commits: int, folder: Path) -> float:
    table = durable_table(folder / "floor.db")

    async def one(first: int) -> None:
        for number in range(first, commits, count):
            commit(table, number)
            await anyio.lowlevel.checkpoint()

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for first in range(count):
            tasks.start_soon(one, first)
    return time.perf_counter() - began


def main() -> None:
    """Hold so many leases at once, and report on this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_leases")
    parser.add_argument("loop", choices=["asyncio", "trio"])
    parser.add_argument("count", type=int)
    parser.add_argument("--bare", type=int, metavar="COMMITS", help="tasks and commits only")
    parser.add_argument("--real-time", action="store_true", help="wait as for a real cloud")
    given = parser.parse_args()
    loop = cast("Loop", given.loop)
    meter = Meter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.bare is not None:
            seconds = anyio.run(_bare, given.count, given.bare, folder, backend=loop)
        elif given.real_time:
            seconds = anyio.run(_leases, given.count, folder, time.time, meter, backend=loop)
        else:
            now = VirtualWallClock()
            seconds = run_virtual(loop, _leases, given.count, folder, now, meter)
    report(seconds=seconds, ledger_seconds=meter.seconds, commits=meter.commits, reads=meter.reads)


if __name__ == "__main__":
    main()
