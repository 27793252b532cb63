"""The watchdog names the plugin that blocks the event loop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import Any

import anyio
import pytest

from gpubroker.errors import ProviderError
from gpubroker.hookspecs import AccountSettings, hookimpl
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.requirements import Requirements
from gpubroker.plugins import Deadlines, Plugin, open_provider
from gpubroker.watchdog import Watchdog

pytestmark = pytest.mark.anyio

LIMIT = 0.05
LONG = 0.12


def ignore(kind: str, text: str) -> None:
    """Events are of no interest here."""


class Reports(list[tuple[str, float, int]]):
    """What was reported: whose hook, how long, and from which thread."""

    def __call__(self, label: str, seconds: float) -> None:
        self.append((label, seconds, threading.get_ident()))

    @property
    def labels(self) -> list[str]:
        return [label for label, _, _ in self]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def watchdog(reports: Reports) -> Watchdog:
    """Without its thread: it reports what returns late."""
    return Watchdog(LIMIT, reports)


@pytest.fixture
def watching(reports: Reports) -> Iterator[Watchdog]:
    """With its thread."""
    dog = Watchdog(LIMIT, reports)
    dog.start()
    yield dog
    dog.stop()


async def blocks(seconds: float = LONG) -> str:
    await anyio.sleep(0)
    time.sleep(seconds)
    await anyio.sleep(0)
    return "done"


class TestReports:
    async def test_a_step_that_returns_late_is_named(
        self, watchdog: Watchdog, reports: Reports
    ) -> None:
        """With the time that it blocked; its answer is taken all the same."""
        assert await watchdog.watched("acme.quote", blocks()) == "done"

        ((label, seconds, _),) = reports
        assert label == "acme.quote"
        assert LONG <= seconds < 10 * LONG

    async def test_a_step_that_does_not_return_is_named_meanwhile(
        self, watching: Watchdog, reports: Reports
    ) -> None:
        """From a thread of its own, and once for each step."""
        said_while_blocked: list[str] = []

        async def look() -> None:
            time.sleep(3 * LONG)
            said_while_blocked.extend(reports.labels)

        await watching.watched("acme.release", look())

        assert said_while_blocked == ["acme.release"]
        assert reports.labels == ["acme.release"]
        assert reports[0][2] != threading.get_ident()

    async def test_each_step_is_timed_by_itself(self, watchdog: Watchdog, reports: Reports) -> None:
        """Many short steps are no long one."""

        async def many() -> None:
            for _ in range(8):
                time.sleep(LIMIT / 3)
                await anyio.sleep(0)

        await watchdog.watched("acme.run", many())

        assert reports == []

    async def test_waiting_is_not_blocking(self, watching: Watchdog, reports: Reports) -> None:
        """A hook that awaits for long holds nobody up."""
        await watching.watched("acme.run", anyio.sleep(LONG))

        assert reports == []

    async def test_blocking_between_two_calls_is_nobodys(
        self, watching: Watchdog, reports: Reports
    ) -> None:
        """What the application does in the event loop is its own affair."""
        await watching.watched("acme.quote", anyio.sleep(0))
        time.sleep(LONG)

        assert reports == []

    async def test_a_step_that_blocks_and_then_fails_is_named_too(
        self, watchdog: Watchdog, reports: Reports
    ) -> None:
        """The failure is passed on."""

        async def fails() -> None:
            time.sleep(LONG)
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await watchdog.watched("acme.quote", fails())

        assert reports.labels == ["acme.quote"]

    async def test_stopping_ends_the_thread(self, reports: Reports) -> None:
        """A closed broker leaves none behind; stopping what never started is no error."""
        before = threading.active_count()
        dog = Watchdog(LIMIT, reports)
        dog.stop()
        dog = Watchdog(LIMIT, reports)
        dog.start()
        dog.stop()

        assert threading.active_count() == before


class TestTransparency:
    """Awaiting through the watchdog is awaiting."""

    async def test_values_and_errors_pass_through(self, watchdog: Watchdog) -> None:
        """Whatever is awaitable, however often it suspends."""

        class Awaited:
            def __await__(self) -> Generator[Any, Any, int]:
                yield from anyio.sleep(0).__await__()
                return 7

        async def fails() -> None:
            await anyio.sleep(0)
            raise KeyError("k")

        assert await watchdog.watched("x", Awaited()) == 7
        with pytest.raises(KeyError):
            await watchdog.watched("x", fails())

    async def test_cancellation_reaches_the_plugin_and_goes_on(self, watchdog: Watchdog) -> None:
        """Its ``finally`` runs, and what it awaits there is cancelled or shielded as anywhere."""
        log: list[str] = []

        async def plugin() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log.append("cancelled")
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                    log.append("cleaned up")

        with anyio.move_on_after(0.02) as scope:
            await watchdog.watched("x", plugin())

        assert scope.cancelled_caught
        assert log == ["cancelled", "cleaned up"]

    async def test_a_plugin_may_catch_its_cancellation_for_a_while(
        self, watchdog: Watchdog
    ) -> None:
        """Scopes of its own end where they should."""

        async def plugin() -> str:
            with anyio.move_on_after(0.01):
                await anyio.sleep_forever()
            await anyio.sleep(0)
            return "went on"

        assert await watchdog.watched("x", plugin()) == "went on"

    async def test_hooks_run_side_by_side(self, watchdog: Watchdog, reports: Reports) -> None:
        """The one that blocks is named, not the one that was waiting."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watchdog.watched, "innocent.quote", anyio.sleep(0.2))
            tasks.start_soon(watchdog.watched, "guilty.quote", blocks())

        assert reports.labels == ["guilty.quote"]

    async def test_context_managers_and_iterators_work_inside(self, watchdog: Watchdog) -> None:
        """Nothing of the language is lost on the way."""

        @contextlib.asynccontextmanager
        async def managed() -> AsyncGenerator[int]:
            await anyio.sleep(0)
            yield 1
            await anyio.sleep(0)

        async def plugin() -> int:
            async with managed() as one, anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 0)
            return one

        assert await watchdog.watched("x", plugin()) == 1


class Blocking:
    """A plugin that uses a blocking client, as authors do by mistake."""

    facts = ProviderFacts(paid=False)

    def __init__(self, where: str) -> None:
        self.where = where
        if where == "create":
            time.sleep(LONG)

    async def __aenter__(self) -> object:
        if self.where == "open":
            time.sleep(LONG)
        return self

    async def __aexit__(self, *details: object) -> None:
        if self.where == "close":
            time.sleep(LONG)

    @hookimpl
    async def quote(self) -> list[object]:
        if self.where == "quote":
            time.sleep(LONG)
        return []

    @hookimpl
    async def provision(self) -> None: ...

    @hookimpl
    async def run(self) -> None: ...

    @hookimpl
    async def release(self) -> None: ...


@pytest.mark.parametrize("where", ["create", "open", "quote", "close"])
async def test_a_plugin_that_blocks_is_named_wherever_it_does(
    where: str, watching: Watchdog, reports: Reports
) -> None:
    """In its factory, while it opens and closes, and in each of its hooks."""
    plugin = Plugin("acme", lambda settings, emit: Blocking(where), "acme 1.0")
    account = AccountSettings("acme")
    deadlines = Deadlines()

    async with open_provider(plugin, account, ignore, deadlines, watching) as provider:
        await provider.quote(Requirements())

    assert reports.labels == [f"acme.{where}"]


async def test_a_plugin_that_blocks_past_its_deadline_is_cut_when_it_returns(
    watching: Watchdog, reports: Reports
) -> None:
    """Nothing can stop it sooner in its own thread, but it is named, and its answer is late."""

    async def too_long() -> list[object]:
        time.sleep(LONG)
        await anyio.sleep(1)
        return []

    act: Callable[[], Awaitable[list[object]]] = too_long

    class Late(Blocking):
        @hookimpl
        async def quote(self) -> list[object]:
            return await act()

    plugin = Plugin("acme", lambda settings, emit: Late(""), "acme 1.0")
    async with open_provider(
        plugin, AccountSettings("acme"), ignore, Deadlines(quote=LONG / 2), watching
    ) as provider:
        with pytest.raises(ProviderError, match="took longer"):
            await provider.quote(Requirements())

    assert set(reports.labels) == {"acme.quote"}
