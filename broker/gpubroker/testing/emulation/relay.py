"""A TCP port that passes bytes on to another one, until it is told not to."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress


class Relay:
    """Stands between a client and a server on loopback.

    It can refuse connections, cut those that there are, or hold them open and pass nothing on.
    """

    def __init__(self) -> None:
        self._listener = _bound(0)
        self._server: asyncio.Server | None = None
        self._sides: set[_Side] = set()
        self._frozen = False
        self._over = False
        self.port: int = self._listener.getsockname()[1]

    async def start(self, target: int) -> None:
        """Pass on to a port of 127.0.0.1."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Near(self._sides, target, frozen=self._frozen), sock=self._listener
        )

    def cut(self) -> None:
        """Refuse connections from now on, and cut those that there are. The port is kept."""
        self._shut()
        if not self._over:
            # Somebody else may have taken it meanwhile; connections end up there, and not here.
            with suppress(OSError):
                self._listener = _bound(self.port)

    async def restore(self, target: int) -> None:
        """Pass on again, on the same port."""
        self.cut()
        if not self._over and self._listener.fileno() >= 0:
            await self.start(target)

    def close(self) -> None:
        """Refuse connections for good, and cut those that there are."""
        self._over = True
        self._shut()

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._listener.close()
        self._frozen = False
        self.cut_connections()

    def cut_connections(self) -> None:
        """Cut the connections that there are, and accept new ones."""
        for side in list(self._sides):
            side.abort()

    def freeze(self) -> None:
        """Keep connections open, accept new ones, and pass nothing on."""
        self._frozen = True
        for side in self._sides:
            side.hold()

    def thaw(self) -> None:
        """Pass everything on again."""
        self._frozen = False
        for side in list(self._sides):
            side.go_on()


def _bound(port: int) -> socket.socket:
    """A socket that holds a port. Until it listens, connections are refused."""
    held = socket.socket()
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
    except OSError:
        held.close()
        raise
    return held


class _Side(asyncio.Protocol):
    """One of the two connections."""

    def __init__(self, sides: set[_Side]) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._sides = sides
        self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 20)
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sides.add(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        other = self.other.transport if self.other is not None else None
        if other is not None and not other.is_closing() and other.can_write_eof():
            other.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._sides.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other._held:
            self.other.transport.resume_reading()

    def hold(self) -> None:
        self._held = True
        if self.transport is not None:
            self.transport.pause_reading()

    def go_on(self) -> None:
        self._held = False
        if self.transport is not None:
            self.transport.resume_reading()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Near(_Side):
    """The client's side: it makes the other one."""

    def __init__(self, sides: set[_Side], target: int, *, frozen: bool) -> None:
        super().__init__(sides)
        self._target = target
        self._frozen = frozen
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._held = self._frozen
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        super().connection_lost(exc)

    async def _connect(self) -> None:
        far = _Side(self._sides)
        far.other = self
        far._held = self._frozen
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: far, "127.0.0.1", self._target)
        except OSError:
            self.abort()
            return
        self.other = far
        assert self.transport is not None
        if self.transport.is_closing():
            transport.close()
        elif self._held:
            transport.pause_reading()
        else:
            self.transport.resume_reading()
