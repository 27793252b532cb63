from __future__ import annotations

import os

import anyio
import pytest

from gpubroker.cli.sink import Sink

pytestmark = pytest.mark.anyio


async def test_a_reader_that_does_not_read_holds_nothing_up() -> None:
    """The event loop goes on while a pipe is full, and every byte arrives in the end."""
    reading, writing = os.pipe()
    sink = Sink(writing)
    data = os.urandom(300_000)
    received = bytearray()

    sink.put(data)
    with anyio.move_on_after(0.05) as stuck:
        await sink.drain()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sink.drain)
        while len(received) < len(data):
            await anyio.wait_readable(reading)
            received += os.read(reading, 65536)

    assert stuck.cancelled_caught
    assert received == data
    os.close(reading)
    os.close(writing)


async def test_a_reader_that_leaves_is_noticed() -> None:
    """What can be written no more is dropped, and the reason kept."""
    reading, writing = os.pipe()
    os.close(reading)
    sink = Sink(writing)

    sink.put(b"nobody hears this")
    await sink.drain()

    assert isinstance(sink.problem, BrokenPipeError)
    os.close(writing)
