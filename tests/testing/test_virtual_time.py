"""Virtual time on both event loops."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any, Literal

import anyio
import pytest

from gpubroker.testing import (
    VirtualDeadlock,
    VirtualEventLoop,
    VirtualWallClock,
    run_virtual,
    virtual_backends,
)
from gpubroker.testing.virtual_time import JumpingSelector

Backend = Literal["asyncio", "trio"]
BOTH: list[Backend] = ["asyncio", "trio"]


@pytest.mark.parametrize("backend", BOTH)
def test_a_simulated_day_takes_well_under_a_second(backend: Backend) -> None:
    """A day of waiting costs no more than the steps in it, and is exactly a day long."""

    async def day() -> float:
        start = anyio.current_time()
        for _ in range(24 * 60):
            await anyio.sleep(60)
        return anyio.current_time() - start

    assert run_virtual(backend, day) == 86_400


@pytest.mark.parametrize("backend", BOTH)
def test_time_goes_on_after_years(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two moments that differ at all differ by more than a nanosecond."""
    left = 20_000  # asyncio waits for a day at the most
    select = JumpingSelector.select

    def counted(self: JumpingSelector, timeout: float | None = None) -> Any:
        nonlocal left
        left -= 1
        assert left, "time stands still"
        return select(self, timeout)

    monkeypatch.setattr(JumpingSelector, "select", counted)

    async def years() -> float:
        await anyio.sleep(30 * 365 * 86_400.0)
        start = anyio.current_time()
        for _ in range(60):
            await anyio.sleep(1.1)
        return anyio.current_time() - start

    assert run_virtual(backend, years) == pytest.approx(66)


@pytest.mark.parametrize("backend", BOTH)
def test_timers_fire_in_order_and_at_their_times(backend: Backend) -> None:
    """Tasks that sleep for different times wake up in that order, each at its exact time."""

    async def race() -> list[float]:
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            await anyio.sleep(seconds)
            woken.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            for seconds in (30.5, 3600.0, 0.25, 7.0):
                tasks.start_soon(sleeper, seconds)
        return woken

    assert run_virtual(backend, race) == [0.25, 7.0, 30.5, 3600.0]


@pytest.mark.parametrize("backend", BOTH)
def test_a_deadline_cuts_off_what_waits_for_ever(backend: Backend) -> None:
    """A wait without end inside a deadline ends at the deadline, in virtual time."""

    async def wait() -> float:
        with anyio.move_on_after(500):
            await anyio.sleep_forever()
        return anyio.current_time()

    assert run_virtual(backend, wait) == 500


@pytest.mark.parametrize("backend", BOTH)
def test_a_standstill_is_an_error_that_names_who_waits(backend: Backend) -> None:
    """Where nothing can run and no timer is set, the run unwinds and says what it waited for."""
    cleaned: list[str] = []

    async def nobody_sets_it() -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                await anyio.Event().wait()
        finally:
            cleaned.append("yes")

    with pytest.raises(VirtualDeadlock, match="nothing can run") as caught:
        run_virtual(backend, nobody_sets_it)

    assert any("test_virtual_time.py" in task for task in caught.value.waiting)
    assert cleaned == ["yes"]


def test_a_thread_that_reports_back_is_waited_for() -> None:
    """A short wait for something outside the loop is no standstill."""

    async def scenario() -> str:
        import asyncio

        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        thread = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(answer.set_result, "done"))
        thread.start()
        try:
            return await answer
        finally:
            thread.join()

    assert run_virtual("asyncio", scenario) == "done"


@pytest.mark.parametrize("backend", BOTH)
def test_an_error_comes_out_as_it_is(backend: Backend) -> None:
    """What the function raises is raised unchanged, and its value is returned."""

    async def fail() -> None:
        raise KeyError("mine")

    async def double(value: int) -> int:
        return 2 * value

    with pytest.raises(KeyError, match="mine"):
        run_virtual(backend, fail)
    assert run_virtual(backend, double, 21) == 42


@pytest.mark.anyio
async def test_the_fixture_runs_tests_in_virtual_time() -> None:
    """The options work as the ``anyio_backend`` fixture: an hour passes at once."""
    began = anyio.current_time()

    await anyio.sleep(3600)

    assert anyio.current_time() - began == 3600


def test_every_use_gets_a_fresh_clock() -> None:
    """Options are made anew for every use, since trio's clock cannot be used twice."""
    (_, first), (_, second) = virtual_backends()[1], virtual_backends()[1]

    assert first["clock"] is not second["clock"]
    assert VirtualEventLoop is virtual_backends()[0][1]["loop_factory"]


@pytest.mark.anyio
async def test_wall_time_moves_with_the_event_loop(now: VirtualWallClock) -> None:
    """The wall clock begins at its start and gains exactly what the event loop gains."""
    await anyio.sleep(99)
    assert now() == 1_800_000_000

    await anyio.sleep(90)

    assert now() == 1_800_000_090


@pytest.mark.anyio
async def test_a_jump_shifts_wall_time_alone(now: VirtualWallClock) -> None:
    """A laptop that slept: wall time is later, the event loop's time is not."""
    now()
    before = anyio.current_time()

    now.jump(3600)
    await anyio.sleep(1)

    assert now() == 1_800_003_601
    assert anyio.current_time() == before + 1


def test_wall_time_goes_on_over_a_restart() -> None:
    """One clock serves several event loops in turn; between them it stands still."""
    now = VirtualWallClock(start=1000.0)

    async def live(seconds: float) -> float:
        now()
        await anyio.sleep(seconds)
        return now()

    assert run_virtual("asyncio", live, 60.0) == 1060
    assert now() == 1060
    now.jump(40)
    assert run_virtual("trio", live, 10.0) == 1110
    assert run_virtual("asyncio", live, 5.0) == 1115


def test_neither_trio_nor_pytest_is_imported_unasked() -> None:
    """The package can be used where only asyncio is installed."""
    probe = "import sys, gpubroker.testing; print(sorted({'trio', 'pytest'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True)

    assert done.stdout.decode().strip() == "[]"
