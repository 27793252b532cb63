"""A port of a machine, reachable through a port here."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final

import anyio
from anyio.abc import ByteReceiveStream, ByteStream, SocketAttribute, SocketStream

from gpubroker.errors import ProviderError
from gpubroker.transport.blocks import background
from gpubroker.transport.ssh.local_socket import LocalSocket

_CHUNK: Final = 256 * 1024

Open = Callable[[Sequence[socket.socket]], Awaitable[Callable[[], Awaitable[None]]]]
"""Joins two sockets (in, out) with the machine's port; gives what ends that."""


@asynccontextmanager
async def forwarding(open_there: Open) -> AsyncGenerator[int]:
    """Listen on a free port of 127.0.0.1, and join each connection with one made by `open_there`.

    The listening socket is ours, and not ssh's: it outlives a connection to the machine, and the
    next connection to it makes a new one. Where the machine cannot be reached, or nothing listens
    there, a connection here is closed without a word.
    """

    async def serve(near: SocketStream) -> None:
        async with near:
            with suppress(ProviderError, OSError, anyio.BrokenResourceError):
                await _join(near, open_there)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        background() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django


async def _join(near: SocketStream, open_there: Open) -> None:
    inward, their_input = LocalSocket.pair()
    outward, their_output = LocalSocket.pair()
    with ExitStack() as stack:
        for stream in (inward, outward):
            stack.callback(stream.close)
        with their_input, their_output:
            close = await open_there((their_input, their_output))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_pump, near, inward, tasks.cancel_scope)
                tasks.start_soon(_pump, outward, near, tasks.cancel_scope)
        finally:
            await close()


async def _pump(source: ByteReceiveStream, target: ByteStream, both: anyio.CancelScope) -> None:
    """Copy until the source ends, and then end the target's direction alone."""
    try:
        while True:
            await target.send(await source.receive(_CHUNK))
    except anyio.EndOfStream:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        both.cancel()
