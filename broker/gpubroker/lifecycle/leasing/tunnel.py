"""Reaching a service that runs on a leased machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from gpubroker.errors import ErrorKind, InvalidValue, ProviderError, Scope
from gpubroker.lifecycle.hold import Hold

#: Seconds between two tries.
_EVERY = 0.25

#: Seconds that a connection must last to count: a tunnel accepts before it knows of the far end.
_LASTS = 1.0


@asynccontextmanager
async def forwarded(hold: Hold, port: int) -> AsyncGenerator[int]:
    """The port here through which a port of the machine is reached.

    Raises:
        ChannelLost: there is no way to the machine.
        ProviderError: its provider has no such ways at all.
    """
    if not 0 < port < 65536:
        raise InvalidValue("port", port, "a TCP port is between 1 and 65535")
    if hold.provider.facts.loopback:
        yield port
    elif hold.channel is not None:
        async with hold.channel.forward(port) as here:
            yield here
    else:
        raise ProviderError(
            f"{hold.provider.name} gives no way to services on its machines",
            kind=ErrorKind.BAD_REQUEST,
            scope=Scope.PROVIDER,
        )


async def answering(port: int, path: str | None, timeout: float) -> None:  # noqa: ASYNC109
    """Wait until the service behind a port of ours answers.

    Raises:
        TimeoutError: it did not in `timeout` seconds.
    """
    with anyio.move_on_after(timeout):
        while not await answers(port, path):  # noqa: ASYNC110
            await anyio.sleep(_EVERY)  # nothing tells when a service far away is there
        return
    raise TimeoutError(f"the service did not answer within {timeout:g} s")


async def answers(port: int, path: str | None) -> bool:
    """Whether the service behind a port of ours answers now.

    Args:
        path: what it is asked for over HTTP; ``None``: it has to keep a connection.
    """
    return await (_accepts(port) if path is None else _responds(port, path))


async def _responds(port: int, path: str) -> bool:
    import httpx

    url = f"http://127.0.0.1:{port}/{path.removeprefix('/')}"
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
            return (await client.get(url)).status_code < 500
    except httpx.TransportError:
        return False


async def _accepts(port: int) -> bool:
    try:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with anyio.move_on_after(_LASTS):
                await stream.receive()
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
        return False
    return True
