"""Send what somebody should know to a command and to a webhook.

Nothing waits for it but the end of the broker, and that not for long.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from gpubroker.errors import BrokerClosed, LedgerError
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.alerts import Alerts
from gpubroker.model.codec import to_json
from gpubroker.model.events import Event, EventKind
from gpubroker.policy.windows import day_of

if TYPE_CHECKING:
    import httpx

#: Seconds that one try may take, and the pauses between tries.
_WITHIN: Final = 10.0
_PAUSES: Final = (1.0, 4.0)
#: Alerts that may wait to be sent; more than that at once are told by the log alone.
_KEPT: Final = 100

_log: Final = logging.getLogger("gpubroker")

Way = Callable[[bytes], Awaitable[str]]
"""Sends a message once; returns why that failed, or nothing."""


def is_for_people(event: Event) -> bool:
    """Whether an event is sent, and not only told to the program."""
    return event.kind in (EventKind.BUDGET, EventKind.ALARM)


def alarm_name(event: Event, timezone: str) -> str:
    """What an alarm is known by in the ledger: the same one counts once in a day."""
    what = "\0".join((event.provider or "", event.lease_id or "", event.text))
    day, _ = day_of(event.at, timezone)
    digest = hashlib.sha256(what.encode(errors="replace")).hexdigest()
    return f"alarm {digest[:16]}/{day:.0f}"


@asynccontextmanager
async def alerting(
    parts: Parts, alerts: Alerts, patience: Callable[[], float]
) -> AsyncGenerator[None]:
    """Send alerts for as long as the block lasts.

    Args:
        patience: seconds that leaving the block waits for what is still to be sent.
    """
    if not alerts:
        yield
        return
    put, events = anyio.create_memory_object_stream[Event](_KEPT)
    async with anyio.create_task_group() as tasks:
        sender = _Sender(parts, _ways(alerts))

        def listen(event: Event) -> None:
            if not is_for_people(event) or sender.speaking:
                return
            try:
                put.send_nowait(event)
            except anyio.WouldBlock:
                _log.error("too many alerts at once; this one is not sent: %s", event.text)

        parts.listeners.append(listen)
        tasks.start_soon(sender.work, events)
        try:
            yield
        finally:
            parts.listeners.remove(listen)
            put.close()
            with anyio.move_on_after(patience(), shield=True):
                await sender.done.wait()
            sender.stop()


class _Sender:
    """Sends one alert after another, each in all ways at once.

    Attributes:
        speaking: it is telling of its own failure, which is not to be sent.
        done: set once everything has been sent, or given up.
    """

    def __init__(self, parts: Parts, ways: dict[str, Way]) -> None:
        self._parts = parts
        self._ways = ways
        self._told: set[str] = set()
        self._scope = anyio.CancelScope(shield=True)
        self.speaking = False
        self.done = anyio.Event()

    async def work(self, events: MemoryObjectReceiveStream[Event]) -> None:
        """Send everything that comes, until there is no more."""
        with self._scope, events:
            async for event in events:
                try:
                    if await self._is_new(event):
                        await self._send(event)
                except Exception as error:  # noqa: BLE001 - it must not end the broker
                    self._failed(f"an alert could not be sent: {type(error).__name__}")
        if self._scope.cancelled_caught:
            self._failed("an alert was not sent before the end")
        self.done.set()

    def stop(self) -> None:
        """Send nothing more."""
        self._scope.cancel()

    async def _is_new(self, event: Event) -> bool:
        """Whether no process has told of it yet; thresholds are told once as it is."""
        if event.kind is not EventKind.ALARM:
            return True
        name = alarm_name(event, self._parts.budget.timezone)
        if name in self._told:
            return False
        self._told.add(name)
        try:
            return bool(
                await self._parts.ledger(lambda ledger: ledger.claim_alerts([name], event.at))
            )
        except (LedgerError, BrokerClosed):
            return True  # it may be just what the alarm is about

    async def _send(self, event: Event) -> None:
        message = to_json(Event, event).encode()
        problems: list[str] = []
        async with anyio.create_task_group() as tasks:
            for name, way in self._ways.items():
                tasks.start_soon(self._insist, name, way, message, problems)
        if len(problems) == len(self._ways) and event.kind is EventKind.ALARM:
            await self._forget(alarm_name(event, self._parts.budget.timezone))
        for problem in problems:
            self._failed(problem)

    async def _insist(self, name: str, way: Way, message: bytes, problems: list[str]) -> None:
        problem = await _once(way, message)
        for pause in _PAUSES:
            if not problem:
                return
            await anyio.sleep(pause)
            problem = await _once(way, message)
        if problem:
            problems.append(f"an alert could not be sent to the {name}: {problem}")

    async def _forget(self, name: str) -> None:
        """Send an alarm that has reached nobody when it is raised again."""
        self._told.discard(name)
        with suppress(LedgerError, BrokerClosed):
            await self._parts.ledger(lambda ledger: ledger.unclaim_alert(name))

    def _failed(self, text: str) -> None:
        _log.error("%s", text)
        self.speaking = True
        try:
            self._parts.emit(EventKind.ALARM, text)
        finally:
            self.speaking = False


async def _once(way: Way, message: bytes) -> str:
    """Try it once; returns why it failed, in words without an address."""
    try:
        with anyio.fail_after(_WITHIN):
            return await way(message)
    except TimeoutError:
        return f"no answer within {_WITHIN:g} s"
    except OSError as error:
        return error.strerror or type(error).__name__
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the broker
        return type(error).__name__


# ---- the ways ------------------------------------------------------------------------------


def _ways(alerts: Alerts) -> dict[str, Way]:
    command, webhook = alerts.command, alerts.webhook
    ways: dict[str, Way] = {}
    if command:
        ways["command"] = lambda message: _run(command, message)
    if webhook is not None:
        ways["webhook"] = lambda message: _post(webhook, message)
    return ways


async def _run(command: tuple[str, ...], message: bytes) -> str:
    # Not a pipe: a command that does not read it may end before it was written.
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.seek(0)
        done = await anyio.run_process(
            command,
            stdin=file,
            stdout=DEVNULL,
            stderr=DEVNULL,
            check=False,
            start_new_session=True,  # a Ctrl-C is not meant for it
        )
    return "" if done.returncode == 0 else f"exit code {done.returncode}"


async def _post(webhook: str, message: bytes) -> str:
    import httpx

    from gpubroker.rest import is_loopback

    url = httpx.URL(webhook)
    kind = {"Content-Type": "application/json", "User-Agent": "gpubroker"}
    async with httpx.AsyncClient(trust_env=not is_loopback(webhook), timeout=_WITHIN) as client:
        with _unlogged(url):
            async with client.stream("POST", url, content=message, headers=kind) as answer:
                return "" if answer.is_success else f"HTTP {answer.status_code}"


@contextmanager
def _unlogged(url: httpx.URL) -> Generator[None]:
    """Keep an address, which is as good as a key, out of httpx's own log of requests."""

    def is_other(record: logging.LogRecord) -> bool:
        return not isinstance(record.args, tuple) or url not in record.args

    log = logging.getLogger("httpx")
    log.addFilter(is_other)
    try:
        yield
    finally:
        log.removeFilter(is_other)
