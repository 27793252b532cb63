"""Ports of a machine that are forwarded over the built-in SSH server."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncssh

_CONNECT_FAILED: Final = 2


async def open_tunnel(port: int) -> Tunnel:
    """Connect to a port of 127.0.0.1, for a client that asked for it.

    Raises:
        ChannelOpenError: nobody listens there.
    """
    far = _Far()
    try:
        await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", port)
    except OSError as error:
        raise asyncssh.ChannelOpenError(_CONNECT_FAILED, str(error)) from None
    return Tunnel(far)


class Tunnel(asyncssh.SSHTCPSession[bytes]):
    """One forwarded connection, on the client's side: a channel.

    Each side's end is passed on, and both are closed when both have ended.
    """

    def __init__(self, far: _Far) -> None:
        self._far = far

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._far.channel = chan

    def session_started(self) -> None:
        self._far.transport.resume_reading()

    def data_received(self, data: bytes, datatype: object) -> None:  # noqa: ARG002
        self._far.transport.write(data)

    def eof_received(self) -> bool:
        self._far.end_input()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._far.channel = None
        self._far.transport.close()

    def pause_writing(self) -> None:
        self._far.transport.pause_reading()

    def resume_writing(self) -> None:
        self._far.transport.resume_reading()


class _Far(asyncio.Protocol):
    """The service's side of a tunnel."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.channel: asyncssh.SSHTCPChannel[bytes] | None = None
        self._ended = False
        self._input_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.channel is not None and not self.channel.is_closing():
            self.channel.write(data)  # pyright: ignore[reportUnknownMemberType]

    def eof_received(self) -> bool:
        self._ended = True
        if self.channel is not None and not self.channel.is_closing():
            self.channel.write_eof()
        return not self._input_ended

    def end_input(self) -> None:
        """The client sends no more."""
        self._input_ended = True
        if self._ended:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.channel is not None:
            self.channel.close()

    def pause_writing(self) -> None:
        if self.channel is not None:
            self.channel.pause_reading()

    def resume_writing(self) -> None:
        # Not now: the channel hands over at once what it kept back, its end included.
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.channel is not None:
            self.channel.resume_reading()
