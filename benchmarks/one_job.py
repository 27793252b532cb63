"""What the broker adds to one small job on this machine."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Literal

import anyio

from benchmarks.figures import Figure
from benchmarks.processes import python, wall_times
from benchmarks.start_up import command_line
from gpubroker import AsyncBroker, ReleaseState, load_settings

Loop = Literal["asyncio", "trio"]


def local_run(rounds: int, home: Path) -> list[Figure]:
    """One job in an open broker, until its lease is proven gone; the ledger is a real file."""
    figures: list[Figure] = []
    loops: tuple[Loop, ...] = ("asyncio", "trio")
    for loop in loops:
        times = anyio.run(_local_runs, rounds, home / loop, backend=loop)
        process, commit = times["process"], times["commit"]
        figures.append(
            Figure(
                what=f"local `run(['true'])` with proof, {loop}",
                value=times["job"],
                unit="ms",
                beside="`subprocess.run(['true'])` and one durable commit",
                other=process + commit,
                limit=120,
                note=f"the process takes {process:.2f} ms, the commit {commit:.2f} ms;"
                f" the result is there after {times['result']:.1f} ms",
            )
        )
    return figures


async def _local_runs(rounds: int, home: Path) -> dict[str, float]:
    times: dict[str, list[float]] = {"job": [], "result": [], "process": [], "commit": []}
    settings = load_settings(
        {
            "GPUBROKER_LOCAL_DIRECTORY": str(home / "local"),
            "GPUBROKER_LOCAL_LOCK_DIRECTORY": str(home / "cards"),
            "XDG_CONFIG_HOME": str(home),
        },
        ledger=home / "ledger.db",
    )
    async with AsyncBroker(settings=settings) as broker:
        table = durable_table(home / "floor.db")
        for number in range(rounds + 1):
            began = time.perf_counter()
            result = await broker.run(["true"])
            returned = time.perf_counter()
            proof = await broker.wait_released(result.lease_id)
            proven = time.perf_counter()
            subprocess.run(["true"], check=True)
            ended = time.perf_counter()
            commit(table, number)
            committed = time.perf_counter()
            if not result.ok or proof is not ReleaseState.PROVEN:
                raise RuntimeError(f"the job did not go well: {result}, {proof}")
            if number:
                times["job"].append(proven - began)
                times["result"].append(returned - began)
                times["process"].append(ended - proven)
                times["commit"].append(committed - ended)
        table.close()
    return {name: median(measured) * 1000 for name, measured in times.items()}


def durable_table(path: Path) -> sqlite3.Connection:
    """A new SQLite file with one table, as durable as the ledger."""
    table = sqlite3.connect(path, isolation_level=None)
    table.execute("PRAGMA synchronous = FULL")
    table.execute("PRAGMA journal_mode = WAL")
    table.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT)")
    return table


def commit(table: sqlite3.Connection, number: int) -> None:
    """One durable transaction that writes one row of about the size of an event."""
    table.execute("BEGIN IMMEDIATE")
    table.execute("INSERT INTO rows VALUES (?, ?)", (number, "x" * 200))
    table.execute("COMMIT")


def command(rounds: int, home: Path) -> list[Figure]:
    """``gpubroker run -- true``, from nothing to nothing."""
    ours = command_line()
    if ours is None:
        return []
    times = wall_times(
        {"ours": [*ours, "run", "--", "true"], "python": python("pass")}, rounds, home
    )
    return [
        Figure(
            what="`gpubroker run -- true`",
            value=times["ours"],
            unit="ms",
            beside="`python -c pass`",
            other=times["python"],
            limit=1500,
        )
    ]
