"""What a job's output passes through on its way to the caller."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import anyio
import pytest

from gpubroker.transport.job_io import KEPT, JobIO, OutputCallback, Stream
from gpubroker.transport.receive import Receiver

pytestmark = pytest.mark.anyio


def job_io(on_output: OutputCallback | None = None) -> JobIO:
    return JobIO(
        job_id="job-1", env={}, receiver=Receiver(Path(), token="job-1"), on_output=on_output
    )


async def test_output_is_handed_on_as_it_appears_and_kept() -> None:
    """Each piece with its stream, in order."""
    said: list[tuple[Stream, bytes]] = []
    io = job_io(lambda stream, data: said.append((stream, data)))

    await io.output("stdout", b"one ")
    await io.output("stderr", b"oops")
    await io.output("stdout", b"two")

    assert said == [("stdout", b"one "), ("stderr", b"oops"), ("stdout", b"two")]
    assert (io.kept("stdout"), io.kept("stderr")) == (b"one two", b"oops")


async def test_a_callback_that_awaits_holds_the_job_back() -> None:
    """A slow reader is waited for, so that nothing piles up."""
    log: list[str] = []

    async def slowly(stream: Stream, data: bytes) -> None:
        await anyio.sleep(0)
        log.append("read")

    io = job_io(slowly)
    await io.output("stdout", b"x")
    log.append("went on")

    assert log == ["read", "went on"]


@pytest.mark.parametrize("piece", [1000, KEPT - 1, KEPT, KEPT * 3 + 7])
async def test_the_end_of_endless_output_is_kept(piece: int) -> None:
    """The last MiB of each stream, exactly, however it was cut; memory stays bounded."""
    io, sent = job_io(), bytearray()
    data = bytes(range(256)) * (piece // 256 + 1)
    while len(sent) < 3 * KEPT:
        await io.output("stdout", data[:piece])
        sent += data[:piece]

    assert io.kept("stdout") == sent[-KEPT:]
    assert io.kept("stderr") == b""


async def test_endless_output_takes_no_memory() -> None:
    """However much a job prints, what is held of it does not grow."""
    io, piece = job_io(), bytes(64 * 1024)
    tracemalloc.start()
    try:
        for _ in range(32 * KEPT // len(piece)):
            await io.output("stdout", piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 8 * KEPT


async def test_missing_outputs_are_remembered() -> None:
    """In the order in which they were missed."""
    io = job_io()
    io.report_missing("*.png")
    io.report_missing("log")

    assert io.missing == ["*.png", "log"]


async def test_a_broken_progress_callback_does_not_end_the_job() -> None:
    """It is left out from then on, and remembered."""
    told: list[tuple[str, int, int | None]] = []

    def tell(way: str, done: int, total: int | None) -> None:
        told.append((way, done, total))
        if done == 2:
            raise KeyError

    io = JobIO(job_id="job-1", env={}, receiver=Receiver(Path(), token="job-1"), on_progress=tell)
    for done in (1, 2, 3):
        io.progress("upload", done, None)

    assert told == [("upload", 1, None), ("upload", 2, None)]
    assert isinstance(io.callback_error, KeyError)
