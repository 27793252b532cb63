"""Data on its way: the next piece is fetched while one is being stored or sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import anyio
from anyio import to_thread

from gpubroker.transport.blocks import background

#: Bytes in one go: enough that a hop to another thread does not matter.
PIECE: Final = 512 * 1024


def read_by_thread(pieces: Iterator[bytes]) -> Callable[[], Awaitable[bytes]]:
    """A source of what an iterator gives, for which a disk may have to be waited for."""

    async def read() -> bytes:
        return await to_thread.run_sync(next, pieces, b"")

    return read


async def pump(
    source: Callable[[], Awaitable[bytes]], sink: Callable[[bytes], Awaitable[None]]
) -> None:
    """Hand every piece from `source` to `sink`, up to the first empty one.

    What either raises comes out as it is.
    """
    outgoing, incoming = anyio.create_memory_object_stream[bytes](1)
    failure: Exception | None = None

    async def fetch() -> None:
        nonlocal failure
        with outgoing:
            try:
                while piece := await source():
                    await outgoing.send(piece)
            except Exception as error:  # noqa: BLE001 - raised again below
                failure = error

    async with background() as tasks:
        with incoming:
            tasks.start_soon(fetch)
            async for piece in incoming:
                await sink(piece)
    if failure is not None:
        raise failure
