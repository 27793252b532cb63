"""The way to a machine, as everything above it sees it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from anyio.abc import ByteReceiveStream, ByteSendStream


class Execution(Protocol):
    """One script that runs on a machine."""

    @property
    def stdin(self) -> ByteSendStream:
        """Its standard input; ``aclose`` ends it."""
        ...

    @property
    def stdout(self) -> ByteReceiveStream:
        """Its standard output, to be read to its end. Whatever it holds is not trusted."""
        ...

    @property
    def stderr(self) -> bytes:
        """The last 4 KiB of its standard error so far."""
        ...

    async def wait(self) -> int:
        """Wait for its end.

        Returns:
            Its exit code.

        Raises:
            ChannelLost: the connection broke first.
        """
        ...


class Channel(Protocol):
    """A way to one machine: runs scripts there and forwards ports from there.

    A connection that breaks is made anew by the next call.
    """

    def execute(self, script: str, *arguments: str) -> AbstractAsyncContextManager[Execution]:
        """Run a POSIX shell script on the machine. Leaving the block ends our side of it.

        Args:
            script: fixed text, run by ``sh -c``; never put together from data.
            arguments: ``$1`` and so on: letters, digits and ``_@%+=:,./-`` only. Everything else
                travels through standard input.

        Raises:
            ChannelLost: there is no way to the machine.
        """
        ...

    def forward(self, port: int) -> AbstractAsyncContextManager[int]:
        """Make a TCP port of the machine's loopback address reachable on ours.

        Gives the port here, on 127.0.0.1.

        Raises:
            ChannelLost: there is no way to the machine.
        """
        ...
