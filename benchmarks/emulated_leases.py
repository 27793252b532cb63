"""Two hundred machines of the emulated Vast.ai at once: real HTTP, SSH and processes."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from benchmarks.figures import Figure
from benchmarks.processes import child, report

_LEASES = 200


def emulated_leases(rounds: int, home: Path) -> list[Figure]:
    """Time, listing calls, and whether the books agree."""
    count = _LEASES if rounds > 1 else 20
    run: dict[str, Any] = child("emulated_leases", str(count), home=home)
    return [
        Figure(
            what=f"{count} emulated Vast.ai leases at once, one job over SSH each: time for each",
            value=run["seconds"] * 1000 / count,
            unit="ms",
            note=f"all proven gone; ledger {run['ledger']} and the vendor's books {run['books']}"
            " micro-dollars",
        ),
        Figure(
            what="listing calls per poll interval, whatever the number of leases",
            value=run["listings_per_interval"],
            unit="",
            limit=1,
            note=f"{run['listings']} calls in {run['seconds']:.1f} s; a call has"
            f" {run['pages']} pages at the most",
        ),
    ]


async def _leases(count: int, folder: Path) -> dict[str, Any]:
    from gpubroker import AsyncBroker, Budget, Money, ReleaseState, Requirements, Settings
    from gpubroker_vast.emulator import VastEmulator

    with VastEmulator(
        seed=3, offers=3 * count + 400, charge_digits=6, ssh_server="built-in"
    ) as cloud:
        settings = Settings(
            ledger=folder / "ledger.db",
            budget=Budget(job=Money(5)),
            providers={"vast": {"url": cloud.url, **cloud.options, "pages": "30"}},
            keys={"vast": cloud.key},
        )
        ids: list[str] = []
        everybody = anyio.Event()
        began = time.perf_counter()
        async with AsyncBroker(settings=settings, close_wait=60) as broker:

            async def one() -> None:
                wanted = Requirements(vram=8, trust="unverified", providers="vast")
                async with broker.lease(wanted) as lease:
                    ids.append(lease.id)
                    if len(ids) == count:
                        everybody.set()
                    await everybody.wait()
                    (await lease.run(["true"])).check()

            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(one)
            for lease_id in ids:
                if await broker.wait_released(lease_id, timeout=120) is not ReleaseState.PROVEN:
                    raise RuntimeError(f"{lease_id} is not proven gone")
            seconds = time.perf_counter() - began
            await broker.sweep()
            rows = await broker.leases(open_only=False)
            if await broker.verify():
                raise RuntimeError("the ledger breaks its own rules")
        if cloud.billing_now():
            raise RuntimeError(f"still billing: {cloud.billing_now()}")
        ledger = sum(row.spent.micros for row in rows)
        books = sum(cloud.billed(row.machine_id).micros for row in rows if row.machine_id)
        if ledger != books:
            raise RuntimeError(f"the ledger has {ledger} micro-dollars, the books {books}")
        lists = [r for r in cloud.requests if r.path == "/api/v1/instances/" and r.method == "GET"]
        first = [r for r in lists if "after_token" not in r.query]
        interval = float(cloud.options["poll_interval"])
        return {
            "seconds": seconds,
            "listings": len(first),
            "pages": -(-len(lists) // max(1, len(first))),
            "listings_per_interval": len(first) * interval / (lists[-1].at - lists[0].at),
            "ledger": ledger,
            "books": books,
        }


def main() -> None:
    """Hold so many machines at once, and report on this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emulated_leases")
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        report(**anyio.run(_leases, given.count, Path(name)))


if __name__ == "__main__":
    main()
