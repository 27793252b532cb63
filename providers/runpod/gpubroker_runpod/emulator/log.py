"""What a pod printed, and what its host says of it: lines that are kept, and awaited."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CONTAINER: Final = "container"
SYSTEM: Final = "system"
#: Older lines are forgotten.
_MOST_LINES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        number: counted over all lines of the pod, from 1.
        at: Unix seconds.
    """

    number: int
    at: float
    source: str
    text: str

    @property
    def stamp(self) -> str:
        """The moment as the vendor writes it."""
        return moment(self.at)

    @property
    def id(self) -> str:
        """What a reader names to go on after it."""
        return f"{self.stamp}/{self.number:012}"


class PodLog:
    """The lines of one pod. Used in the emulator's event loop alone."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=_MOST_LINES)
        self._numbers = itertools.count(1)
        self._rest = b""
        self._changed = asyncio.Event()
        #: Nothing will be added any more.
        self.closed = False
        #: How many streams of it are open.
        self.readers = 0

    def say(self, text: str) -> None:
        """Add what the host says."""
        self._add(SYSTEM, text)

    def printed(self, data: bytes, limit: int) -> None:
        """Add what the container printed, line by line; ``b""`` ends the last one.

        Args:
            limit: bytes after which a line is split.
        """
        *whole, self._rest = (self._rest + data).split(b"\n")
        if (not data and self._rest) or len(self._rest) >= limit:
            whole.append(self._rest)
            self._rest = b""
        for line in whole:
            for at in range(0, max(len(line), 1), limit):
                text = line[at : at + limit].decode(errors="replace")
                self._add(CONTAINER, text.removesuffix("\r"))

    def after(self, number: int) -> Iterator[Line]:
        """The lines that came after one."""
        return (line for line in tuple(self._lines) if line.number > number)

    def tail(self, lines: int, source: str | None) -> list[Line]:
        """The last lines, of one source or of both."""
        kept = [line for line in self._lines if source in (None, line.source)]
        return kept[-lines:] if lines else []

    @property
    def last(self) -> int:
        """The number of the last line; 0 if there is none."""
        return self._lines[-1].number if self._lines else 0

    def forget(self) -> None:
        """Drop every line so far. Numbers go on."""
        self._lines.clear()

    def close(self) -> None:
        """Let readers come to their end."""
        self.closed = True
        self._wake()

    def change(self) -> asyncio.Event:
        """What is set by the next thing that happens after this call."""
        return self._changed

    def _add(self, source: str, text: str) -> None:
        self._lines.append(Line(next(self._numbers), time.time(), source, text))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def moment(at: float) -> str:
    """Unix seconds as RFC 3339, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
