"""Server-sent events: an answer that goes on for as long as the server has something to say."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal

import anyio

from gpubroker.rest.reply import Reply

#: Comments keep a stream that says nothing open for so many times its `idle` seconds.
_COMMENTED: Final = 3
_BREAK: Final = re.compile(rb"\r\n|\n|\r")
_ID: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,510}[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event.

    Attributes:
        id: as the server gave it with this event; ``None`` where it gave none, or one that could
            not be sent back in a header.
        data: its lines, joined by newlines. Shown by no repr, however long.
        whole: ``False`` where it was longer than allowed, so that its end is missing.
    """

    id: str | None
    data: str
    whole: bool = True

    def __repr__(self) -> str:
        return f"<ServerEvent {self.id}, {len(self.data)} characters>"


class EventParser:
    """Turns what comes over the wire, cut anywhere, into events.

    Args:
        limit: most bytes of one line, and of one event's data, that are kept.

    Attributes:
        last_id: the last id seen; what a later request goes on from.
    """

    def __init__(self, limit: int) -> None:
        self.last_id: str | None = None
        self._limit = limit
        self._line = bytearray()
        self._after_cr = False
        self._first = True
        self._id: str | None = None
        self._data: list[bytes] = []
        self._size = 0
        self._whole = True

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that end in this piece. One that never ends is never given."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        *ended, rest = _BREAK.split(chunk)
        found: list[ServerEvent] = []
        for piece in ended:
            self._add(piece)
            event = self._end_of_line()
            if event is not None:
                found.append(event)
        self._add(rest)
        return found

    def _add(self, piece: bytes) -> None:
        room = self._limit - len(self._line)
        self._whole = self._whole and len(piece) <= room
        self._line += piece[: max(0, room)]

    def _end_of_line(self) -> ServerEvent | None:
        line = bytes(self._line)
        self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._end_of_event()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._whole = self._whole and self._size + len(value) <= self._limit
            if self._whole or not self._data:
                self._data.append(value)
                self._size += len(value) + 1
        elif name == b"id" and _ID.fullmatch(value):
            self._id = self.last_id = value.decode("ascii")
        return None

    def _end_of_event(self) -> ServerEvent | None:
        event = None
        if self._data:
            data = b"\n".join(self._data).decode("utf-8", "replace")
            event = ServerEvent(self._id, data, self._whole)
        self._id, self._data, self._size, self._whole = None, [], 0, True
        return event


class EventStream:
    """An open stream of events, to be iterated over once.

    The iteration ends when the server ends the stream, and after so many seconds of silence. A
    comment is no event and breaks the silence, but not for ever: who waits for news wants to
    look elsewhere some time, so that three times the silence without an event is the end too.

    Attributes:
        reply: status and headers of the answer; its body only where the status is not ok, and
            then there are no events.
        ended: why the iteration ended: ``"closed"`` by the server, ``"quiet"``, or ``"broken"``.
    """

    def __init__(
        self,
        reply: Reply,
        chunks: AsyncIterator[bytes] | None,
        *,
        failing: Callable[[], AbstractContextManager[None]],
        idle: float,
        limit: int,
    ) -> None:
        self.reply = reply
        self.ended: Literal["closed", "quiet", "broken"] | None = None
        self._chunks = chunks
        self._failing = failing
        self._idle = idle
        self._parser = EventParser(limit)
        self._ready = deque[ServerEvent]()
        self._waited = 0.0

    @property
    def last_id(self) -> str | None:
        """The last id that came, with an event or without."""
        return self._parser.last_id

    def __aiter__(self) -> AsyncIterator[ServerEvent]:
        return self

    async def __anext__(self) -> ServerEvent:
        """The next event.

        Raises:
            RequestFailed: the stream broke. What came of an unfinished event is dropped.
        """
        while not self._ready:
            if self.ended is not None or self._chunks is None:
                self.ended = self.ended or "closed"
                raise StopAsyncIteration
            await self._read(self._chunks)
        self._waited = 0.0
        return self._ready.popleft()

    async def _read(self, chunks: AsyncIterator[bytes]) -> None:
        """Only time spent here is silence: what its reader takes for an event is not."""
        began = anyio.current_time()
        patience = min(self._idle, _COMMENTED * self._idle - self._waited)
        self.ended = "broken"  # unless it turns out otherwise
        with self._failing(), anyio.move_on_after(patience) as scope:
            chunk = await anext(chunks, None)
            self.ended = "closed" if chunk is None else None
            self._ready.extend(self._parser.feed(chunk or b""))
        self._waited += anyio.current_time() - began
        if scope.cancelled_caught:
            self.ended = "quiet"


async def unwind(chunks: AsyncIterator[bytes]) -> None:
    """Close the generators that an answer's body comes through, from the innermost on.

    Being left is not enough: each would be found open later, by the garbage collector. Cancelled
    at its next wait, the innermost one ends with an exception that ends all others.
    """
    with anyio.CancelScope() as scope:
        scope.cancel()
        async for _ in chunks:
            pass
