"""A pod's log as the vendor tells it: in pieces, with cuts, repetitions and silences."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.lowlevel

from gpubroker import ErrorKind, JobIO, ProviderError, Scope
from gpubroker.rest import ServerEvent
from gpubroker.transport.receive import Receiver

UP = {"status": "RUNNING", "startedAt": "2026-11-20T09:01:10Z", "runtime": {"uptime": 70}}


@dataclass(frozen=True)
class Connection:
    """What one stream does.

    Attributes:
        sends: lines that it sends before it ends; all there are, if ``None``.
        repeats: lines from before the asked one that it sends again.
        ends: ``"quiet"``, ``"closed"`` or ``"broken"``; ``"never"`` leaves it silent for ever.
        refused: instead of all this, the error that it is refused with.
    """

    sends: int | None = None
    repeats: int = 0
    ends: str = "quiet"
    refused: ProviderError | None = None


class _Stream:
    def __init__(self, events: Sequence[ServerEvent], ends: str) -> None:
        self.ended: str | None = None
        self._events = iter(events)
        self._ends = ends

    def __aiter__(self) -> AsyncIterator[ServerEvent]:
        return self

    async def __anext__(self) -> ServerEvent:
        await anyio.lowlevel.checkpoint()
        event = next(self._events, None)
        if event is not None:
            return event
        if self._ends == "never":
            await anyio.sleep_forever()
        self.ended = self._ends
        if self._ends == "broken":
            raise transient("the stream broke")
        raise StopAsyncIteration


@dataclass
class Log:
    """The log of one pod, and what the vendor says of it.

    Attributes:
        lines: all that was printed so far. A line that is no text is sent as it is.
        connections: what each stream in turn does; the last one goes for all later ones.
        rows: what is said of the pod, each time it is asked about; the last one stays.
        kept: how many of the last lines can still be had.
        asked: the id that each stream was asked to go on behind.
        looks: how often the pod was asked about.
    """

    lines: list[str | bytes] = field(default_factory=list[str | bytes])
    connections: list[Connection] = field(default_factory=lambda: [Connection()])
    rows: list[Any] = field(default_factory=lambda: [UP])
    kept: int = 5000
    asked: list[str | None] = field(default_factory=list[str | None])
    looks: int = 0
    on_look: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def log_events(
        self, pod_id: str, *, tail: int, last_id: str | None, idle: float, source: str = "container"
    ) -> AsyncGenerator[_Stream]:
        await anyio.lowlevel.checkpoint()
        assert idle > 0
        self.asked.append(last_id)
        connection = self.connections[0]
        if len(self.connections) > 1:
            del self.connections[0]
        if connection.refused is not None:
            raise connection.refused
        events = [self._event(number, source) for number in range(len(self.lines))]
        first = max(0, len(events) - min(tail, self.kept))
        known = [event.id for event in events]
        if last_id in known:
            first = max(0, known.index(last_id) + 1 - connection.repeats)
        chosen = events[first:]
        sends = None if connection.sends is None else connection.sends + connection.repeats
        yield _Stream(chosen[:sends], connection.ends)

    def _event(self, number: int, source: str) -> ServerEvent:
        line = self.lines[number]
        ident = f"2026-11-20T09:01:12Z/{number:012d}"
        if isinstance(line, bytes):
            return ServerEvent(ident, line.decode())
        return ServerEvent(ident, json.dumps({"ts": ident[:20], "source": source, "line": line}))

    async def pod(self, pod_id: str) -> Any:
        await anyio.lowlevel.checkpoint()
        self.looks += 1
        self.on_look()
        row = self.rows[0]
        if len(self.rows) > 1:
            del self.rows[0]
        if isinstance(row, ProviderError):
            raise row
        return row


def transient(message: str, **parts: Any) -> ProviderError:
    usual: dict[str, Any] = {"kind": ErrorKind.TRANSIENT, "scope": Scope.PROVIDER}
    return ProviderError(message, **{**usual, **parts})


class Caller:
    """Whoever asked for a job: what it was told."""

    def __init__(self, folder: Path, purpose: Any = "job") -> None:
        self.told = bytearray()
        self.io = JobIO(
            job_id="job-1",
            env={},
            receiver=Receiver(folder, token="t"),
            purpose=purpose,
            on_output=self._take,
        )

    def _take(self, stream: str, data: bytes) -> None:
        assert stream == "stdout"
        self.told += data
