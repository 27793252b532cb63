"""The stream of a pod's logs: server-sent events that never end by themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gpubroker.testing.emulation import Answer, Call, Cut, Endpoint
from gpubroker_runpod.emulator.answers import invalid, no_pod
from gpubroker_runpod.emulator.log import CONTAINER, SYSTEM, Line, PodLog
from gpubroker_runpod.emulator.pods import Pod
from gpubroker_runpod.emulator.world import World

_MOST_TAIL: Final = 5000
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFault:
    """What goes wrong with one stream.

    Attributes:
        cut_after: events before the connection is cut, in the middle of the next one.
        end_after: events before the server ends the stream as if all were well.
        stall_after: events before nothing comes any more, not even comments.
        lose: every event with a number that this divides is missing.
        again: the event that the reader has seen last comes a second time.
    """

    cut_after: int | None = None
    end_after: int | None = None
    stall_after: int | None = None
    lose: int | None = None
    again: bool = False


class LogsApi:
    """The endpoint of logs."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (Endpoint("logs", "GET", "/v2/pods/{id}/logs", self._logs),)

    def _logs(self, call: Call) -> Answer:
        return self.answer(call, StreamFault())

    def answer(self, call: Call, fault: StreamFault) -> Answer:
        """The stream that a call asks for, with a fault."""
        pod = self._world.found(call.parameters["id"], call.at)
        if pod is None:
            return no_pod()
        source = call.query.get("source")
        tail = call.query.get("tail", "100")
        if source not in (None, CONTAINER, SYSTEM):
            return invalid("source: value must be one of 'container', 'system'")
        if not tail.isdigit() or int(tail) > _MOST_TAIL:
            return invalid(f"tail: must be between 0 and {_MOST_TAIL}")
        try:
            begin = _begin(pod.log, call, source, int(tail), again=fault.again)
        except ValueError:
            return invalid("since: is not a valid date-time")
        stream = self._stream(pod, source, begin, fault)
        return Answer(200, b"", _HEADERS, "text/event-stream", stream=stream)

    async def _stream(
        self, pod: Pod, source: str | None, after: int, fault: StreamFault
    ) -> AsyncGenerator[bytes]:
        sent = 0
        pod.log.readers += 1
        try:
            while True:
                # Taken before the lines are looked at, so that none comes in between.
                change = pod.log.change()
                for line in pod.log.after(after):
                    after = line.number
                    if source not in (None, line.source):
                        continue
                    sent += 1
                    if fault.lose and sent % fault.lose == 0:
                        continue
                    if fault.cut_after is not None and sent > fault.cut_after:
                        whole = _event(line)
                        yield whole[: len(whole) // 2]
                        raise Cut
                    yield _event(line)
                    if sent == fault.end_after:
                        return
                    if sent == fault.stall_after:
                        await asyncio.Event().wait()
                if pod.log.closed:
                    return
                try:
                    heartbeat = self._world.behaviour.heartbeat or None
                    await asyncio.wait_for(change.wait(), heartbeat)
                except TimeoutError:
                    yield b": keep-alive\n\n"
        finally:
            pod.log.readers -= 1


def _begin(log: PodLog, call: Call, source: str | None, tail: int, *, again: bool) -> int:
    """The number of the line after which a stream begins.

    Raises:
        ValueError: a moment cannot be read.
    """
    cursor = call.headers.get("last-event-id")
    if cursor:
        stamp, _, number = cursor.partition("/")
        if number.isdigit():
            return max(int(number) - again, 0)
        return _before(log, stamp)
    if "since" in call.query:
        return _before(log, call.query["since"])
    kept = log.tail(tail, source)
    return kept[0].number - 1 if kept else log.last


def _before(log: PodLog, stamp: str) -> int:
    """The number of the last line that is older than a moment."""
    moment = datetime.fromisoformat(stamp).timestamp()
    numbers = [line.number for line in log.after(0) if line.at >= moment]
    return min(numbers) - 1 if numbers else log.last


def _event(line: Line) -> bytes:
    data = json.dumps(
        {"ts": line.stamp, "source": line.source, "line": line.text},
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return f"id: {line.id}\ndata: {data}\n\n".encode()
