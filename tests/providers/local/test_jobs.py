"""Running commands: what goes in is what they get, and how they end is what comes back."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gpubroker import JobState

if TYPE_CHECKING:
    from tests.providers.local.conftest import House

pytestmark = pytest.mark.anyio

SHOW = (
    "import json, os, sys;"
    "print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), sys.stdin.read()]))"
)


async def test_words_and_environment_arrive_exactly_as_given(house: House) -> None:
    """Spaces, quotes, newlines, empty words and bytes that are no UTF-8 all survive."""
    provider = house.provider()
    machine = await house.rent(provider)
    words = ["a b", "", "'\"$HOME\\", "line\nbreak", "ünï", os.fsdecode(b"\xff\xfe"), "*"]
    env = {"GREETING": "hello\nworld = 'x'", "EMPTY": ""}

    ran = await house.run(provider, machine, [sys.executable, "-c", SHOW, *words], io={"env": env})

    seen, environment, folder, stdin = json.loads(ran.stdout)
    assert seen == words
    assert environment.items() >= env.items()
    assert Path(folder).parent.parent == house.leases / machine.id / "jobs"
    assert stdin == ""
    assert ran.outcome.exit_code == 0
    assert ran.outcome.state is JobState.EXITED


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + signal.SIGKILL), ("kill $$", 143)],
)
async def test_exit_code_is_the_jobs_own(house: House, script: str, code: int) -> None:
    """Zero, not zero, or 128 and the signal's number."""
    provider = house.provider()
    machine = await house.rent(provider)

    ran = await house.run(provider, machine, script)

    assert (ran.outcome.state, ran.outcome.exit_code) == (JobState.EXITED, code)


async def test_program_that_cannot_start_says_why(house: House) -> None:
    """Not found, not executable, no interpreter: not started, with the reason, and no exit code."""
    provider = house.provider()
    machine = await house.rent(provider)
    scripts = {"plain": b"#!/bin/sh\n", "orphan": b"#!/no/such/shell\n"}

    missing = await house.run(provider, machine, ["no-such-program", "x"])
    plain = await house.run(provider, machine, ["./plain"], files=scripts)
    orphan = await house.run(
        provider, machine, ["sh", "-c", "chmod +x orphan && exec ./orphan"], files=scripts
    )
    (house.root / "orphan").write_bytes(scripts["orphan"])
    (house.root / "orphan").chmod(0o755)
    direct = await house.run(provider, machine, [str(house.root / "orphan")])

    assert missing.outcome.state is JobState.NOT_STARTED
    assert missing.outcome.exit_code is None
    assert missing.outcome.message == "command not found: no-such-program"
    assert plain.outcome.message == "not executable: ./plain"
    assert orphan.outcome.exit_code == 127
    assert direct.outcome.message.endswith("its interpreter does not exist")


async def test_programs_are_found_through_the_jobs_own_path(house: House) -> None:
    """PATH as the job sees it decides which program is meant."""
    provider = house.provider()
    machine = await house.rent(provider)
    tool = house.root / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)

    ran = await house.run(provider, machine, ["tool"], io={"env": {"PATH": f"/no:{tool.parent}"}})

    assert ran.text == "mine\n"


async def test_timeout_ends_the_job_and_what_it_started(house: House, until: Any) -> None:
    """Even what ignores SIGTERM or has left the job's session is killed."""
    provider = house.provider()
    machine = await house.rent(provider)
    script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & echo on; sleep 600"

    started = time.monotonic()
    ran = await house.run(provider, machine, script, timeout=0.2)

    assert ran.outcome.state is JobState.TIMED_OUT
    assert ran.outcome.exit_code is None
    assert ran.text == "on\n"
    assert time.monotonic() - started > 2.0  # it was asked first, and given time
    await until(lambda: house.alive() == [house.runner_of(machine)])


async def test_timeout_asks_before_it_kills(house: House) -> None:
    """SIGTERM comes first; a job that ends on it can say goodbye."""
    provider = house.provider()
    machine = await house.rent(provider)
    script = "trap 'echo bye; exit 3' TERM; while :; do sleep 0.01; done"

    ran = await house.run(provider, machine, script, timeout=0.2)

    assert (ran.outcome.state, ran.text) == (JobState.TIMED_OUT, "bye\n")


async def test_output_arrives_while_the_job_runs(house: House) -> None:
    """A line is handed on when it was written, not when the job has ended."""
    provider = house.provider()
    machine = await house.rent(provider)
    seen: list[tuple[str, bytes]] = []

    async def note(stream: str, data: bytes) -> None:
        seen.append((stream, data))
        (house.root / f"go-{len(seen)}").touch()

    go = house.root / "go-"
    script = f"wait() {{ while [ ! -e {go}$1 ]; do sleep 0.01; done; }}; echo a; wait 1; echo b >&2; wait 2"
    with anyio.fail_after(10):
        await house.run(provider, machine, script, io={"on_output": note})

    assert seen == [("stdout", b"a\n"), ("stderr", b"b\n")]


async def test_flood_of_output_takes_no_memory(house: House, rss: Any) -> None:
    """500 MB beyond the limit are counted and dropped on the way, on both sides."""
    provider = house.provider()
    machine = await house.rent(provider)
    await house.run(provider, machine, "head -c 5000000 /dev/zero", output_limit=4_000_000)
    runner = house.runner_of(machine)
    before = rss(), rss(runner)

    ran = await house.run(provider, machine, "head -c 500000000 /dev/zero", output_limit=10_000_000)

    assert ran.outcome.dropped == 490_000_000
    assert rss() - before[0] < 16
    assert rss(runner) - before[1] < 2


async def test_both_streams_are_complete_up_to_the_limit(house: House) -> None:
    """Each stream has its own limit; the last byte before it is kept."""
    provider = house.provider()
    machine = await house.rent(provider)
    script = "head -c 300000 /dev/zero; head -c 1000 /dev/zero >&2"

    ran = await house.run(provider, machine, script, output_limit=200_001)

    assert (len(ran.stdout), len(ran.stderr)) == (200_001, 1000)
    assert ran.outcome.dropped == 99_999


async def test_job_ends_with_its_own_process_not_with_what_it_left(
    house: House, is_running: Any
) -> None:
    """A background process neither holds the result up nor dies of its closed output."""
    provider = house.provider()
    machine = await house.rent(provider)
    script = f"(while echo tick; do sleep 0.02; done) & echo $! > {house.root}/pid"

    started = time.monotonic()
    ran = await house.run(provider, machine, script)
    waited = time.monotonic() - started
    await anyio.sleep(0.1)

    assert ran.outcome.exit_code == 0
    assert waited < 4
    assert is_running(int((house.root / "pid").read_text()))
    await provider.release(machine)
    assert house.alive() == []


async def test_jobs_share_a_home_but_no_folder(house: House) -> None:
    """What set-up puts into the home is there for every job; a job's folder begins empty."""
    provider = house.provider()
    machine = await house.rent(provider)

    await house.run(provider, machine, "echo kept > tool; pwd", io={"purpose": "setup"})
    await house.run(provider, machine, "echo gone > scratch")
    ran = await house.run(provider, machine, "cat ~/tool; ls")

    assert ran.text == "kept\n"


async def test_job_is_started_once_whoever_follows_it(house: House) -> None:
    """A second `run` with the same job id follows the job and sees all of its output."""
    first, second = house.provider(), house.provider()
    machine = await house.rent(first)
    io = {"job_id": "the-job"}
    results: list[str] = []

    async def follow(provider: Any) -> None:
        script = f"echo x >> {house.root}/starts; sleep 0.2; echo done"
        results.append((await house.run(provider, machine, script, io=io)).text)

    async with anyio.create_task_group() as group:
        group.start_soon(follow, first)
        await anyio.sleep(0.05)
        group.start_soon(follow, second)
    await follow(second)

    assert results == ["done\n"] * 3
    assert (house.root / "starts").read_text() == "x\n"


async def test_earlier_jobs_are_deleted_when_the_next_one_starts(house: House) -> None:
    """A lease of many jobs does not fill the disk."""
    provider = house.provider()
    machine = await house.rent(provider)

    for _ in range(3):
        await house.run(provider, machine, "head -c 1000000 /dev/zero > big")

    assert len(list((house.leases / machine.id / "jobs").iterdir())) == 1
