"""Ports of a machine, reached through ports here."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import suppress

import anyio
import pytest

from gpubroker.errors import ChannelLost

from .conftest import Connect, Site, masters
from .servers import InLoop, Wire, free_port

pytestmark = pytest.mark.anyio

GREETING = b"welcome, "


@pytest.fixture
def service() -> Generator[int]:
    """A service that greets, reads to the end, answers with what it read, and says goodbye."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(GREETING)
            writer.write(await reader.read(-1) + b" and goodbye")
            await writer.drain()
        finally:
            writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(answer, "127.0.0.1", 0)

    async def stop() -> None:
        server.close()

    with InLoop() as loop:
        server = loop.call(start)
        yield server.sockets[0].getsockname()[1]
        loop.call(stop)


async def exchange(port: int, said: bytes) -> bytes:
    """Say something, end our direction, and listen to the end; without the greeting."""
    heard = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(said)
        await stream.send_eof()
        try:
            while True:
                heard += await stream.receive()
        except anyio.EndOfStream:
            return heard.removeprefix(GREETING)


async def test_a_service_is_reached_and_each_direction_ends_by_itself(
    each_site: Site, connect: Connect, service: int
) -> None:
    """The service hears our end and still answers; we hear its end."""
    async with connect(each_site) as channel, channel.forward(service) as port:
        assert await exchange(port, b"hello") == b"hello and goodbye"


async def test_more_connections_than_sessions_are_possible(
    site: Site, connect: Connect, service: int
) -> None:
    """Browsers open many connections; they do not count as scripts."""
    answers: list[bytes] = []

    async def ask(number: int) -> None:
        answers.append(await exchange(port, b"%d" % number))

    async with connect(site) as channel, channel.forward(service) as port:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(ask, number)

    assert sorted(answers) == sorted(b"%d and goodbye" % number for number in range(20))


async def test_where_nothing_listens_a_connection_ends(each_site: Site, connect: Connect) -> None:
    """It ends at once, and the channel goes on."""
    async with connect(each_site) as channel, channel.forward(free_port()) as port:
        with suppress(OSError, anyio.BrokenResourceError):
            assert await exchange(port, b"hello") == b""
        async with channel.execute("exit 4") as execution:
            assert await execution.wait() == 4
        assert len(masters()) == 1


async def test_the_port_stays_when_the_connection_breaks(
    site: Site, connect: Connect, wire: Wire, service: int
) -> None:
    """The next use of the same port connects to the machine anew."""
    async with connect(site, port=wire.port) as channel, channel.forward(service) as port:
        assert await exchange(port, b"one") == b"one and goodbye"
        async with channel.execute("cat") as execution:
            wire.cut()
            with pytest.raises(ChannelLost):
                await execution.wait()

        assert await exchange(port, b"two") == b"two and goodbye"

    assert wire.accepted == 2


async def test_the_port_is_closed_with_its_block(
    site: Site, connect: Connect, service: int
) -> None:
    """Nobody listens there any more."""
    async with connect(site) as channel:
        async with channel.forward(service) as port:
            pass

        with pytest.raises(OSError, match="connect"):
            await anyio.connect_tcp("127.0.0.1", port)


async def test_an_idle_connection_ends_with_the_block(
    site: Site, connect: Connect, service: int
) -> None:
    """What is still joined when the block is left is cut on both sides."""
    async with connect(site) as channel:
        async with channel.forward(service) as port:
            stream = await anyio.connect_tcp("127.0.0.1", port)
            assert await stream.receive() == GREETING

        async with stream:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
