"""Byte streams over a pair of local sockets, whose other ends another process holds."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint


class LocalSocket(ByteStream):
    """A Unix stream socket on either event loop; descriptors can be sent over it."""

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._raw = raw

    @classmethod
    def pair(cls) -> tuple[LocalSocket, socket.socket]:
        """Our end, and the end to be handed to another process."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes, as many as there are."""
        await checkpoint()
        while True:
            try:
                data = self._open().recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._raw)
            except ConnectionError as error:
                raise anyio.BrokenResourceError from error
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        """Send all of `item`."""
        await checkpoint()
        left = memoryview(item)
        while left:
            try:
                left = left[self._open().send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._raw)
            except ConnectionError as error:
                raise anyio.BrokenResourceError from error

    async def send_descriptors(self, files: Sequence[socket.socket]) -> None:
        """Hand over sockets, one byte each. Ours stay open."""
        for file in files:
            while True:
                try:
                    socket.send_fds(self._open(), [b"\0"], [file.fileno()])
                    break
                except BlockingIOError:
                    await anyio.wait_writable(self._raw)
                except ConnectionError as error:
                    raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """End our direction; the other one stays open."""
        try:
            self._open().shutdown(socket.SHUT_WR)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def aclose(self) -> None:
        """Close it, and let another task begin."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """Close it at once; whoever waits for it is told."""
        if self._raw.fileno() >= 0:
            anyio.notify_closing(self._raw)
            self._raw.close()

    def _open(self) -> socket.socket:
        if self._raw.fileno() < 0:
            raise anyio.ClosedResourceError
        return self._raw
