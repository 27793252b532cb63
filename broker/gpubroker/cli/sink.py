"""The process's own output streams, written without ever holding up the event loop.

A reader that stops reading (``| less``) must not stop heartbeats and releases. A pipe or terminal
that says it is ready takes a small piece without blocking, so nothing needs a thread, and the
stream's mode, which it shares with other processes, stays as it is.
"""

from __future__ import annotations

import os
import select
import stat
from typing import Final

import anyio

#: Bytes that a pipe which is ready takes without blocking (PIPE_BUF), and fewer for a terminal.
_PIPE: Final = 4096
_TERMINAL: Final = 512


class Sink:
    """One stream of this process.

    Attributes:
        terminal: somebody looks at it.
        problem: why it can be written no more; from then on everything is dropped.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._backlog = bytearray()
        self._turn = anyio.Lock()
        self.terminal = os.isatty(descriptor)
        self.problem: OSError | None = None
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError as error:
            self.problem, mode = error, 0
        self._can_block = self.terminal or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def put(self, data: bytes) -> None:
        """Write as much as can be written now; the rest waits its turn."""
        self._backlog += data
        self._write()

    async def drain(self) -> None:
        """Wait until everything is written."""
        async with self._turn:
            while self._backlog:
                await anyio.wait_writable(self._descriptor)
                self._write()

    def finish(self) -> None:
        """Write what is left, however long the reader takes."""
        self._can_block = False
        self._write()

    def _write(self) -> None:
        piece = _TERMINAL if self.terminal else _PIPE
        while self._backlog and self.problem is None and self._ready():
            try:
                written = os.write(self._descriptor, self._backlog[:piece])
            except OSError as error:
                self.problem = error
            else:
                del self._backlog[:written]
        if self.problem is not None:
            self._backlog.clear()

    def _ready(self) -> bool:
        return not self._can_block or bool(select.select([], [self._descriptor], [], 0)[1])
