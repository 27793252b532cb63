"""Real processes and real signals: whatever ends a program, its machine ends too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpubroker import Broker, LeaseState

from .conftest import Start

pytestmark = pytest.mark.usefixtures("own_settings")

BACKENDS = ["asyncio", "trio"]

PROGRAM = """
import signal, sys, anyio
from gpubroker import AsyncBroker
async def main():
    async with AsyncBroker() as broker:
        await broker.run("(setsid sleep 1000 &) ; touch {started}; sleep 1000")
if {sigterm}:
    def leave(*_): raise SystemExit(143)
    signal.signal(signal.SIGTERM, leave)
anyio.run(main, backend={backend!r})
"""


def started(program: subprocess.Popen[str], mark: Path) -> None:
    """Wait until the job has made `mark`."""
    for _ in range(1000):
        if mark.exists():
            return
        assert program.poll() is None, program.communicate()
        time.sleep(0.02)
    raise AssertionError("the job did not start within 20 s")


def processes_of(folder: Path) -> Iterator[int]:
    """Processes that belong to a lease below `folder`, by their environment."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"GPUBROKER_MARK=" in environment and str(folder).encode() in environment:
                yield int(entry.name)


def assert_all_gone(tmp_path: Path) -> None:
    """No process of any lease is left, and the ledger says so and keeps its rules."""
    assert list(processes_of(tmp_path)) == []
    with Broker() as broker:
        rows = broker.leases(open_only=False)
        assert {row.state for row in rows} == {LeaseState.RELEASED}
        assert broker.verify() == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_gives_the_machine_up(start: Start, tmp_path: Path, backend: str) -> None:
    """SIGINT ends the job, grandchildren in sessions of their own included, before the program."""
    mark = tmp_path / "started"
    program = start(PROGRAM.format(started=mark, backend=backend, sigterm=False))
    started(program, mark)

    program.send_signal(signal.SIGINT)
    program.communicate(timeout=30)

    assert program.returncode != 0
    assert_all_gone(tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sigterm_handled_by_leaving_gives_the_machine_up(
    start: Start, tmp_path: Path, backend: str
) -> None:
    """A program that turns SIGTERM into an exception gives its machine up on the way out."""
    mark = tmp_path / "started"
    program = start(PROGRAM.format(started=mark, backend=backend, sigterm=True))
    started(program, mark)

    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=30)

    with Broker() as broker:
        broker.sweep()
        for row in broker.leases():
            broker.wait_released(row.id, timeout=20)
    assert_all_gone(tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("killer", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_broker_is_reaped_by_the_next_one(
    start: Start, tmp_path: Path, backend: str, killer: signal.Signals
) -> None:
    """After `kill -9`, or an unhandled SIGTERM, the next broker's first sweep ends the machine."""
    mark = tmp_path / "started"
    program = start(PROGRAM.format(started=mark, backend=backend, sigterm=False))
    started(program, mark)

    program.send_signal(killer)
    program.communicate(timeout=30)
    orphans = list(processes_of(tmp_path))
    with Broker() as broker:
        (row,) = broker.leases(open_only=False)
        broker.wait_released(row.id, timeout=20)

    assert orphans
    assert_all_gone(tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_interrupt_still_leaves_the_release_request_behind(
    start: Start, tmp_path: Path, backend: str
) -> None:
    """Two interrupts in a row may end the program at once, but never without the request."""
    mark = tmp_path / "started"
    program = start(PROGRAM.format(started=mark, backend=backend, sigterm=False))
    started(program, mark)

    program.send_signal(signal.SIGINT)
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=30)
    with Broker(sweep=False) as broker:
        (row,) = broker.leases(open_only=False)
        assert row.release_requested_at is not None
        broker.sweep()
        broker.wait_released(row.id, timeout=20)

    assert_all_gone(tmp_path)


def test_two_processes_share_one_ledger(start: Start, tmp_path: Path) -> None:
    """Brokers of several processes work on one ledger without getting in each other's way."""
    programs = [
        start(
            """
            from gpubroker import Broker
            with Broker() as broker:
                for n in range(10):
                    assert broker.run(["echo", str(n)]).text == f"{n}\\n"
            """
        )
        for _ in range(3)
    ]

    errors = [program.communicate(timeout=60)[1] for program in programs]

    assert errors == ["", "", ""]
    assert_all_gone(tmp_path)
