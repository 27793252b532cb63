from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from typing import Any

import pytest

from gpubroker import InvalidValue
from gpubroker.testing.emulation import (
    EmulatedMachine,
    LifeTasks,
    Options,
    afflict,
    condition,
    condition_of,
    later,
)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Emulators have a loop of asyncio's, whoever asks them."""
    return "asyncio", {}


pytestmark = pytest.mark.anyio


class TestLifeTasks:
    async def test_a_life_goes_on_in_one_way_at_a_time(self) -> None:
        """The former way has ended before the next one begins."""
        tasks, events = LifeTasks(), list[str]()
        over = asyncio.Event()

        async def first() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0)
                events.append("first ended")

        async def second() -> None:
            events.append("second began")
            over.set()

        tasks.drive("a", first())
        await asyncio.sleep(0)
        tasks.drive("a", second())
        await over.wait()

        assert events == ["first ended", "second began"]
        await tasks.close()

    async def test_what_they_raise_is_kept(self) -> None:
        """Nobody waits for them, so it would be lost."""
        tasks = LifeTasks()

        async def fail() -> None:
            raise RuntimeError("a bug of the emulator")

        await asyncio.wait({tasks.soon(fail())})
        await asyncio.sleep(0)

        assert "RuntimeError: a bug of the emulator" in tasks.bugs[0]

    async def test_close_ends_all_of_them(self) -> None:
        """Those of machines, and those beside."""
        tasks, ended = LifeTasks(), list[str]()

        async def wait(name: str) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append(name)

        tasks.drive("a", wait("life"))
        tasks.soon(wait("other"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        await tasks.close()

        assert sorted(ended) == ["life", "other"]
        assert tasks.bugs == []

    @pytest.mark.filterwarnings("error")
    async def test_what_is_ended_before_it_began_leaves_nothing_behind(self) -> None:
        """No coroutine that nobody awaits."""
        tasks = LifeTasks()

        async def wait() -> None:
            await asyncio.sleep(1000)

        tasks.drive("a", wait())
        tasks.soon(wait()).cancel()

        await tasks.close()
        gc.collect()


@dataclass
class Place:
    """Where a machine is rented."""

    tasks: LifeTasks = field(default_factory=LifeTasks)


@dataclass
class Thing:
    """What is rented."""

    machine: EmulatedMachine | None = None
    destroyed_at: float | None = None
    conditions: list[tuple[str, Options]] = field(default_factory=list[tuple[str, Options]])
    stubborn: bool = False
    destroy_errors: int = 0
    happened: list[str] = field(default_factory=list[str])


def happen(place: Place, thing: Thing, options: Options) -> None:
    """A fault that is seen."""
    thing.happened.append("now")


class TestAfflictions:
    async def test_of_a_boot_are_kept_for_it(self) -> None:
        """With their options; the last ones count."""
        thing = Thing()
        for seconds in (1, 2):
            condition("slow")(Place(), thing, {"seconds": seconds})

        assert condition_of(thing, "slow") == {"seconds": 2}
        assert condition_of(thing, "other") is None

    async def test_happen_in_a_while_unless_the_machine_has_gone(self) -> None:
        """Or at once."""
        place, thing, gone = Place(), Thing(), Thing()
        fault = later(happen)

        fault(place, thing, {})
        assert thing.happened == ["now"]
        for one in (thing, gone):
            fault(place, one, {"after": 0.001})
        gone.destroyed_at = 1.0
        while len(thing.happened) < 2:
            await asyncio.sleep(0)

        await asyncio.sleep(0.002)
        assert gone.happened == []

    async def test_that_do_not_exist_are_refused(self) -> None:
        """With the nearest one."""
        with pytest.raises(InvalidValue, match="freeze"):
            afflict({"freeze": happen}, Place(), Thing(), "freze", {})
