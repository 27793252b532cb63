"""What somebody should know reaches a real command and a real web server, and holds nothing up."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from hypothesis import given
from hypothesis import strategies as st
from tests.loopback import serving

from gpubroker import Alerts, AsyncBroker, BudgetAlert, Event, EventKind, Money, Settings
from gpubroker.errors import InvalidValue, LedgerError
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle import alerts as sending
from gpubroker.lifecycle.alerts import alarm_name, alerting
from gpubroker.lifecycle.opening import open_parts
from gpubroker.lifecycle.parts import Parts
from gpubroker.plugins import Deadlines

pytestmark = pytest.mark.anyio

TOKEN = "T0KEN-that-nobody-may-see"
DAY = 86_400.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each event loop, in real time: commands and servers do not wait for virtual time."""
    return str(request.param)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No real pauses between tries."""
    monkeypatch.setattr(sending, "_PAUSES", (0.01, 0.01))


class Hook:
    """A web server that is posted to.

    Args:
        answers: the status of each answer in turn, and of the last one from then on; 0: none ever.
    """

    def __init__(self, *answers: int) -> None:
        self._answers = list(answers)
        self.url = ""
        self.got: list[Any] = []

    async def talk(self, stream: ByteStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        while len(body) < length:
            body += await stream.receive()
        assert head.startswith(b"POST /" + TOKEN.encode())
        self.got.append(json.loads(body))
        status = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not status:
            await anyio.sleep_forever()
        await stream.send(b"HTTP/1.1 %d X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n" % status)


@asynccontextmanager
async def hooked(*answers: int) -> AsyncGenerator[Hook]:
    """A web server, with the address to post to."""
    hook = Hook(*answers)
    async with serving(hook.talk) as address:
        hook.url = f"{address}/{TOKEN}"
        yield hook


@asynccontextmanager
async def parts_on(ledger: Path, events: list[Event]) -> AsyncGenerator[Parts]:
    """The parts of a broker without providers."""
    async with AsyncExitStack() as stack:
        settings = Settings(ledger=ledger)
        deadlines = Deadlines()
        parts = await open_parts(stack, settings, [], deadlines=deadlines, now=time.time, seed=None)
        parts.listeners.append(events.append)
        yield parts


@pytest.fixture
async def parts(tmp_path: Path, events: list[Event]) -> AsyncGenerator[Parts]:
    """The parts of a broker without providers, whose events are kept."""
    async with parts_on(tmp_path / "ledger.db", events) as parts:
        yield parts


HALF = BudgetAlert(
    limit="budget of this day",
    fraction=0.5,
    amount=Money(10),
    spent=Money("5.25"),
    committed=Money(7),
)


async def test_a_threshold_is_posted_whole(parts: Parts) -> None:
    """As one JSON object: the sentence for people, and the numbers for programs."""
    async with hooked(204) as hook, alerting(parts, Alerts(webhook=hook.url), ten_seconds):
        parts.emit(EventKind.BUDGET, str(HALF), provider="acme", alert=HALF)

        await until(lambda: bool(hook.got))

    (message,) = hook.got
    assert message["kind"] == "budget"
    assert message["text"].startswith("budget of this day: 50% spent: $5.25 of $10.00")
    assert message["provider"] == "acme"
    assert message["alert"]["spent"] == "5.25"
    assert message["at"] == pytest.approx(time.time(), abs=DAY)


async def test_a_command_reads_the_same(parts: Parts, tmp_path: Path, events: list[Event]) -> None:
    """From its standard input; and one that reads nothing has been told, too."""
    told = tmp_path / "told"
    writing = Alerts(command=("sh", "-c", 'cat >"$0"', str(told)))

    async with alerting(parts, writing, ten_seconds):
        parts.emit(EventKind.ALARM, "it cannot be released", lease_id="lease-1")
    async with alerting(parts, Alerts(command=("true",)), ten_seconds):
        parts.emit(EventKind.ALARM, "x" * 1_000_000)

    message = json.loads(told.read_text())
    assert (message["kind"], message["lease_id"]) == ("alarm", "lease-1")
    assert [event.text[:3] for event in events] == ["it ", "xxx"]


async def test_what_is_not_for_people_is_not_sent(parts: Parts) -> None:
    """Progress is the program's own business."""
    async with hooked(204) as hook:
        async with alerting(parts, Alerts(webhook=hook.url), ten_seconds):
            for kind in set(EventKind) - {EventKind.ALARM, EventKind.BUDGET}:
                parts.emit(kind, "nothing to see")

    assert hook.got == []


async def test_a_failure_is_followed_by_another_try(parts: Parts, events: list[Event]) -> None:
    """And forgotten once that has worked."""
    async with hooked(503, 204) as hook:
        async with alerting(parts, Alerts(webhook=hook.url), ten_seconds):
            parts.emit(EventKind.ALARM, "look")

    assert [message["text"] for message in hook.got] == ["look", "look"]
    assert [event.text for event in events] == ["look"]


@pytest.mark.parametrize("status", [302, 500])
async def test_what_cannot_be_sent_is_an_alarm_that_is_not_sent(
    parts: Parts, events: list[Event], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """The program and its log are told, in words without the address, which is a secret."""
    caplog.set_level(logging.DEBUG)
    async with hooked(status) as hook:
        alerts = Alerts(webhook=hook.url, command=("no-such-program-here", TOKEN))
        async with alerting(parts, alerts, ten_seconds):
            parts.emit(EventKind.ALARM, "look")

    assert [message["text"] for message in hook.got] == ["look"] * 3
    assert sorted(event.text for event in events) == [
        "an alert could not be sent to the command: No such file or directory",
        f"an alert could not be sent to the webhook: HTTP {status}",
        "look",
    ]
    assert {event.kind for event in events} == {EventKind.ALARM}
    logged = [record.getMessage() for record in caplog.records]
    assert [text for text in logged if "could not be sent to the webhook" in text]
    assert TOKEN not in "\n".join([*logged, repr(events), repr(alerts)])


async def test_nothing_waits_for_it_but_the_end_and_not_for_long(
    parts: Parts, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that never answers holds nobody up; what was not sent is told."""
    with anyio.fail_after(30):
        async with hooked(0) as hook:
            async with alerting(parts, Alerts(webhook=hook.url), lambda: 0.05):
                for number in range(200):
                    parts.emit(EventKind.ALARM, f"look {number}")

                await until(lambda: bool(hook.got))

    assert len(hook.got) == 1
    assert events[-1].text == "an alert was not sent before the end"
    assert any("too many alerts at once" in record.getMessage() for record in caplog.records)


async def test_the_same_alarm_is_sent_once_a_day_whoever_raises_it(
    tmp_path: Path, events: list[Event]
) -> None:
    """Every broker of a ledger may see it, and each with every sweep."""
    async with hooked(204) as hook:
        for _ in range(2):
            async with parts_on(tmp_path / "ledger.db", events) as parts:
                async with alerting(parts, Alerts(webhook=hook.url), ten_seconds):
                    parts.emit(EventKind.ALARM, "look", provider="acme")
                    parts.emit(EventKind.ALARM, "look", provider="acme")
                    parts.emit(EventKind.ALARM, "look", provider="other")

    assert [message["provider"] for message in hook.got] == ["acme", "other"]


async def test_an_alarm_that_reached_nobody_is_sent_when_it_is_raised_again(
    tmp_path: Path, events: list[Event]
) -> None:
    """By whichever process: it is not over for that day because a server was down."""
    async with hooked(500, 500, 500, 204) as hook:
        for _ in range(3):
            async with parts_on(tmp_path / "ledger.db", events) as parts:
                async with alerting(parts, Alerts(webhook=hook.url), ten_seconds):
                    parts.emit(EventKind.ALARM, "look")

    assert [message["text"] for message in hook.got] == ["look"] * 4
    assert [event.text for event in events if event.text != "look"] == [
        "an alert could not be sent to the webhook: HTTP 500"
    ]


async def test_a_ledger_that_cannot_be_used_silences_nobody(parts: Parts) -> None:
    """It may be just what the alarm is about."""

    class Broken:
        async def __call__(self, use: Callable[[Ledger], object]) -> object:
            raise LedgerError("the disk is full")

    async with hooked(204) as hook:
        parts.ledger = Broken()  # type: ignore[assignment]  # pyright: ignore
        async with alerting(parts, Alerts(webhook=hook.url), ten_seconds):
            parts.emit(EventKind.ALARM, "the disk is full")

    assert [message["text"] for message in hook.got] == ["the disk is full"]


async def test_a_broker_sends_what_it_finds_wrong_at_its_opening(tmp_path: Path) -> None:
    """From its first moment on, as the settings say, and before it has closed."""
    ledger = tmp_path / "ledger.db"
    async with AsyncBroker(settings=Settings(ledger=ledger), plugins=[]):
        pass
    ledger.chmod(0o644)

    async with hooked(204) as hook:
        settings = Settings(ledger=ledger, alerts=Alerts(webhook=hook.url))
        async with AsyncBroker(settings=settings, plugins=[]):
            pass

    (message,) = hook.got
    assert str(ledger) in message["text"]


TEXTS = st.one_of(st.none(), st.text(max_size=3))
EVENTS = st.builds(
    Event,
    at=st.floats(1_000 * DAY, 1_003 * DAY),
    kind=st.just(EventKind.ALARM),
    text=st.text(max_size=3),
    provider=TEXTS,
    lease_id=TEXTS,
)


@given(EVENTS, EVENTS)
def test_alarms_are_the_same_if_they_say_the_same_on_the_same_day(one: Event, two: Event) -> None:
    """And then alone, as long as no name holds a NUL."""

    def said(event: Event) -> tuple[object, ...]:
        parts = (event.provider or "", event.lease_id or "", event.text)
        return (*(part.replace("\0", "") for part in parts), event.at // DAY)

    def plain(event: Event) -> bool:
        return "\0" not in f"{event.provider}{event.lease_id}{event.text}"

    if plain(one) and plain(two):
        assert (alarm_name(one, "UTC") == alarm_name(two, "UTC")) == (said(one) == said(two))


def ten_seconds() -> float:
    """How long the end may wait; it never does."""
    return 10.0


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that a real server or process does."""
    with anyio.fail_after(20):
        while not holds():
            await anyio.sleep(0.01)


def test_a_command_is_a_list_of_words() -> None:
    """Else its first letter would be what is run, and nobody would be told."""
    with pytest.raises(InvalidValue, match="list of words"):
        Alerts(command="notify me")  # type: ignore[arg-type]
