"""The memory of the broker's process while a local job prints 500 MB."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import anyio

from benchmarks.figures import Figure
from benchmarks.processes import MB, child, report
from gpubroker import AsyncBroker, Job
from gpubroker.transport.job_io import Stream

_PRINTED: Final = 500 * MB


def output(rounds: int, home: Path) -> list[Figure]:
    """Peak memory with all of the output handed on, beside a job that prints nothing."""
    del rounds
    loud = child("much_output", _PRINTED, home=home)
    quiet = child("much_output", 0, home=home)
    return [
        Figure(
            what="local job that prints 500 MB: peak memory",
            value=float(loud["peak_mb"]),
            unit="MB",
            beside="one that prints nothing",
            other=float(quiet["peak_mb"]),
            note=f"all of it streamed to a callback, {_PRINTED / MB / loud['seconds']:.0f} MB/s",
        )
    ]


async def _run(size: int, folder: Path) -> float:
    received = 0

    def count(stream: Stream, data: bytes) -> None:
        del stream
        nonlocal received
        received += len(data)

    job = Job(f"yes | head -c {size}", output_limit=2 * _PRINTED)
    async with AsyncBroker(ledger=folder / "ledger.db") as broker:
        began = time.perf_counter()
        (await broker.run(job, on_output=count)).check()
        seconds = time.perf_counter() - began
    if received != size:
        raise RuntimeError(f"{size} bytes were printed and {received} came back")
    return seconds


def main() -> None:
    """Run one job that prints so many bytes, and report on this process."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = anyio.run(_run, int(sys.argv[1]), Path(folder))
    report(seconds=seconds)


if __name__ == "__main__":
    main()
