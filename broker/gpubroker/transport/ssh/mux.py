"""What is said over the control socket of an OpenSSH master, as its PROTOCOL.mux has it.

Speaking to the master ourselves, in place of a second ``ssh`` process for each script, leaves
nothing to guess: a session that was refused never began, an exit code is the script's own even
when it is 255, and a connection that broke shows as the end of the control stream.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import anyio

from gpubroker.errors import ChannelLost
from gpubroker.transport.said import said
from gpubroker.transport.ssh.local_socket import LocalSocket

_VERSION: Final = 4
_HELLO: Final = 0x00000001
_NEW_SESSION: Final = 0x10000002
_NEW_STDIO_FORWARD: Final = 0x10000008
_PERMISSION_DENIED: Final = 0x80000002
_FAILURE: Final = 0x80000003
_EXIT_MESSAGE: Final = 0x80000004
_SESSION_OPENED: Final = 0x80000006

_NO_ESCAPE_CHARACTER: Final = 0xFFFFFFFF
_REQUEST: Final = 1  # a control connection of ours carries one request only
_MESSAGE_LIMIT: Final = 256 * 1024


class MasterGone(Exception):
    """The master does not answer, or its connection ended, before anything was started."""


class OpenRefused(Exception):
    """The machine, or the master, refused to open what was asked for: nothing was started."""


def encode(*fields: int | bytes) -> bytes:
    """One message: numbers of 32 bits, and texts with their lengths before them."""
    body = b"".join(
        struct.pack(">I", field)
        if isinstance(field, int)
        else struct.pack(">I", len(field)) + field
        for field in fields
    )
    return struct.pack(">I", len(body)) + body


class Opened:
    """Something asked for, and then open, over the master. Closing it ends our side of it."""

    def __init__(self, control: LocalSocket) -> None:
        self._control = control
        self._received = b""
        self._exit: int | None = None
        self._ended = False
        self._reading = anyio.Lock()

    async def wait_exit(self) -> int | None:
        """Wait for its end: the exit code, or ``None`` where there is none."""
        async with self._reading:
            while self._exit is None and not self._ended:
                kind, body = await self._receive()
                if kind == _EXIT_MESSAGE and len(body) >= 8:
                    self._exit = struct.unpack(">I", body[4:8])[0]
        return self._exit

    async def granted(self) -> None:
        """Wait until the master grants it.

        Raises:
            MasterGone, OpenRefused: it does not; nothing was started.
            ChannelLost: the connection ended after the master had taken the request.
        """
        greeted = False
        while not self._ended:
            kind, body = await self._receive()
            if self._grants(kind, body):
                return
            # It greets before it asks the machine, and longer before the machine can answer.
            greeted = greeted or kind == _HELLO
        if greeted:
            raise ChannelLost("the connection broke while a machine was asked for something")
        raise MasterGone("the connection ended")

    @staticmethod
    def _grants(kind: int, body: bytes) -> bool:
        if kind == _HELLO and body[:4] != struct.pack(">I", _VERSION):
            raise OpenRefused("this ssh speaks another version of the control protocol")
        if kind in {_FAILURE, _PERMISSION_DENIED}:
            raise OpenRefused(said(body[8:]))
        return kind == _SESSION_OPENED

    async def _receive(self) -> tuple[int, bytes]:
        """The next message: its type and its body; zero and nothing at the end."""
        while (message := self._take()) is None and not self._ended:
            try:
                # What has come is kept when a wait is cancelled, and read again the next time.
                self._received += await self._control.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._ended = True
        return message or (0, b"")

    def _take(self) -> tuple[int, bytes] | None:
        if len(self._received) < 4:
            return None
        size = struct.unpack(">I", self._received[:4])[0]
        if not 4 <= size <= _MESSAGE_LIMIT:
            self._ended = True
            return None
        if len(self._received) < 4 + size:
            return None
        message, self._received = self._received[4 : 4 + size], self._received[4 + size :]
        return struct.unpack(">I", message[:4])[0], message[4:]

    def close(self) -> None:
        """End our side; what the master was handed is closed by it."""
        self._control.close()


async def open_session(control: Path, command: bytes, files: Sequence[socket.socket]) -> Opened:
    """Run `command` on the machine with `files` as its three standard streams.

    Raises:
        MasterGone, OpenRefused: it was not started.
        ChannelLost: the connection broke; nobody knows whether it was.
    """
    request = encode(
        *(_NEW_SESSION, _REQUEST, b""),
        *(0, 0, 0, 0),  # no terminal, no X11, no agent, no subsystem
        *(_NO_ESCAPE_CHARACTER, b"", command),
    )
    return await _open(control, request, files)


async def open_forward(control: Path, port: int, files: Sequence[socket.socket]) -> Opened:
    """Join `files` (in, out) with a TCP port of the machine's loopback address.

    Raises:
        MasterGone, OpenRefused: nothing listens there, or there is no way.
    """
    request = encode(_NEW_STDIO_FORWARD, _REQUEST, b"", b"127.0.0.1", port)
    return await _open(control, request, files)


async def _open(control: Path, request: bytes, files: Sequence[socket.socket]) -> Opened:
    raw = socket.socket(socket.AF_UNIX)
    stream = LocalSocket(raw)
    with ExitStack() as undo:
        undo.callback(stream.close)
        try:
            raw.connect(str(control))
            await stream.send(encode(_HELLO, _VERSION) + request)
            await stream.send_descriptors(files)
        except BlockingIOError:
            raise OpenRefused("the master has too much to do") from None
        except (OSError, anyio.BrokenResourceError):
            raise MasterGone("the connection is gone") from None
        opened = Opened(stream)
        # A master looks at this socket no more until the machine has answered: to leave while
        # that is awaited harms nothing else that is open over it.
        await opened.granted()
        undo.pop_all()
    return opened
