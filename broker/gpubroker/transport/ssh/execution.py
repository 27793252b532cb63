"""One script that runs on a machine: how it is asked for, and its streams."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream

from gpubroker.errors import ChannelLost, ErrorKind, ProviderError, Scope
from gpubroker.transport.said import said
from gpubroker.transport.ssh.local_socket import LocalSocket
from gpubroker.transport.ssh.mux import Opened

#: A command is one argument of the login shell there, and Linux allows 128 KiB for one.
_COMMAND_LIMIT: Final = 100_000
_NOISE_LIMIT: Final = 64 * 1024
_STDERR_KEPT: Final = 4096
#: Seconds that standard error gets to end once the script has: what it left running may hold it.
_STDERR_WAIT: Final = 0.2
_SAFE: Final = re.compile(r"[A-Za-z0-9_@%+=:,./-]*")


class Command:
    """A script with its arguments, and a line that marks where its own output begins.

    Login shells print what they like before a command's output. The mark is put together by the
    machine, so that an echo of the command is not taken for it.

    Raises:
        ValueError: an argument has other than the safe characters, or the script is too long.
    """

    def __init__(self, script: str, arguments: tuple[str, ...]) -> None:
        for argument in arguments:
            if not _SAFE.fullmatch(argument):
                raise ValueError(f"not a safe argument for a script: {argument[:80]!r}")
        first, second = secrets.token_hex(8), secrets.token_hex(8)
        quoted = " ".join(shlex.quote(word) for word in (script, "sh", *arguments))
        text = f"printf '%s%s\\n' {first} {second}; exec sh -c {quoted}"
        self.text = text.encode()
        self.mark = f"{first}{second}\n".encode()
        if len(self.text) > _COMMAND_LIMIT or "\0" in text:
            raise ValueError("the script is too long for a command line, or holds a NUL")


class Output(ByteReceiveStream):
    """Standard output from the mark on."""

    def __init__(self, source: LocalSocket) -> None:
        self._source = source
        self._held = b""

    async def begin(self, mark: bytes) -> bytes | None:
        """Skip everything up to `mark`; ``None``, or what came when it never did.

        Raises:
            ProviderError: there is no end to what comes before it.
        """
        noise = b""
        while mark not in noise:
            if len(noise) > _NOISE_LIMIT:
                raise ProviderError(
                    f"the machine prints more than {_NOISE_LIMIT} bytes before a script's output",
                    kind=ErrorKind.HOST_BROKEN,
                    scope=Scope.HOST,
                )
            try:
                noise += await self._source.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return noise
        self._held = noise.partition(mark)[2]
        return None

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes, as many as there are."""
        if not self._held:
            return await self._source.receive(max_bytes)
        data, self._held = self._held[:max_bytes], self._held[max_bytes:]
        return data

    async def aclose(self) -> None:
        """Read no more."""
        await self._source.aclose()


class SshExecution:
    """A script that runs over a master's connection."""

    def __init__(
        self,
        opened: Opened,
        streams: tuple[LocalSocket, LocalSocket, LocalSocket],
        complaint: Callable[[], str],
    ) -> None:
        self._opened = opened
        self._complaint = complaint
        self._streams = streams
        self._stdout = Output(streams[1])
        self._stderr = b""
        self._stderr_ended = anyio.Event()

    @property
    def stdin(self) -> ByteSendStream:
        """Its standard input; ``aclose`` ends it."""
        return self._streams[0]

    @property
    def stdout(self) -> ByteReceiveStream:
        """Its standard output, to be read to its end, which a broken connection brings too."""
        return self._stdout

    @property
    def stderr(self) -> bytes:
        """The last 4 KiB of its standard error so far."""
        return self._stderr

    async def wait(self) -> int:
        """Wait for its end: its exit code, 255 included.

        Raises:
            ChannelLost: the connection broke first, or the script was killed there.
        """
        code = await self._opened.wait_exit()
        if code is None:
            why = self._complaint() or "or the script was killed"
            raise ChannelLost(f"the connection broke while a script ran, {why}")
        with anyio.move_on_after(_STDERR_WAIT):
            await self._stderr_ended.wait()
        return code

    async def begin(self, mark: bytes) -> None:
        """Wait until the script has begun.

        Raises:
            ChannelLost: it never did; nobody knows why.
        """
        noise = await self._stdout.begin(mark)
        if noise is None:
            return
        code = await self._opened.wait_exit()
        with anyio.move_on_after(_STDERR_WAIT):
            await self._stderr_ended.wait()
        if code is None:
            raise ChannelLost("the connection broke before a script began")
        text = said(noise + b" " + self._stderr)
        raise ChannelLost(f"the machine did not run a script, it said (exit {code}): {text}")

    async def drain_stderr(self) -> None:
        """Read standard error to its end, keeping the last of it."""
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                data = await self._streams[2].receive()
                self._stderr = (self._stderr + data)[-_STDERR_KEPT:]
        self._stderr_ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        for stream in self._streams:
            stream.close()
