"""Jobs on a machine, over a connection that holds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gpubroker.errors import ErrorKind, ProviderError
from gpubroker.model.jobs import Job
from gpubroker.model.results import JobState
from gpubroker.transport import run_job

from .conftest import on_output, processes_of
from .machines import each_shell, on_asyncio

if TYPE_CHECKING:
    from .conftest import Desk, MakeMachine
    from .machines import LocalChannel

pytestmark = pytest.mark.anyio

SHOW = (
    "import json, os, signal, sys;"
    "print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), sys.stdin.read(),"
    "[signal.getsignal(one) == signal.SIG_IGN for one in (signal.SIGHUP, signal.SIGQUIT)],"
    "signal.getsignal(signal.SIGINT) == signal.default_int_handler]))"
)
WORDS = [
    "a b",
    "",
    "'\"$HOME\\",
    "line\nbreak\n\n",
    "ünï 日本 Á",
    os.fsdecode(b"\xff\x81\xfe"),
    "*",
]
SPECIAL = {
    "GREETING": "hello\nworld = 'x'\n",
    "EMPTY": "",
    "LINE": "\\0101 \\",
    "IFS": "x",
    "v": "1",
}


def folder_of(machine: LocalChannel, number: int = 1) -> Path:
    return machine.home / f".gpubroker/jobs/job-{number}"


async def until(condition: Any) -> None:
    """Wait for something that other processes do."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.01)


class TestWhatAJobGets:
    @each_shell
    async def test_words_and_environment_arrive_exactly(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Spaces, quotes, line breaks at the end, empty words, bytes that are no UTF-8."""
        command = [sys.executable, "-c", SHOW, *WORDS]

        ran = await desk.run(any_machine, command, io={"env": SPECIAL})

        words, environment, folder, stdin, ignored, interruptible = json.loads(ran.stdout)
        assert words == WORDS
        assert environment.items() >= {**SPECIAL, "HOME": str(any_machine.home)}.items()
        assert folder == str(folder_of(any_machine) / "work")
        assert stdin == ""
        assert ignored == [False, False]
        assert interruptible

    @each_shell
    async def test_nothing_else_is_in_its_environment(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """What the scripts set for themselves stays theirs."""
        ran = await desk.run(any_machine, "env", io={"env": {"A": "1"}})

        names = {line.split("=")[0] for line in ran.stdout.decode().splitlines()}
        assert names - {"A", "HOME", "PATH", "LANG", "PWD", "GPUBROKER_JOB", "GPUBROKER_RUN"} <= {
            *("OLDPWD", "SHLVL", "_")
        }

    @each_shell
    async def test_set_up_runs_in_the_home_folder(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """What it leaves there is there for every job; a job's own folder begins empty."""
        await desk.run(any_machine, "echo kept > tool; pwd", io={"purpose": "setup"})
        ran = await desk.run(any_machine, 'cat "$HOME/tool"; ls')

        assert ran.stdout == b"kept\n"

    async def test_files_of_a_set_up_are_in_the_home_folder(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """And its outputs are looked for there."""
        io = {"purpose": "setup"}
        ran = await desk.run(machine, "cat a/b > c", files={"a/b": b"1"}, io=io, outputs="c")

        assert ran.contents() == {"c": b"1"}

    @on_asyncio
    async def test_thousands_of_words_and_long_values(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """More than a pipe holds."""
        words, value = [f"w{i}" for i in range(1000)], "x\n" * 50_000
        ran = await desk.run(
            machine,
            ["sh", "-c", 'echo $#; printf %s "$V" | wc -c', "sh", *words],
            io={"env": {"V": value}},
        )

        assert ran.stdout.split() == [b"1000", b"100000"]


class TestHowAJobEnds:
    @pytest.mark.parametrize(
        ("script", "code"),
        [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + signal.SIGKILL), ("exit 255", 255)],
    )
    @each_shell
    async def test_exit_code_is_the_jobs_own(
        self, desk: Desk, any_machine: LocalChannel, script: str, code: int
    ) -> None:
        """Zero, not zero, or 128 and the signal's number."""
        ran = await desk.run(any_machine, script)

        assert (ran.outcome.state, ran.outcome.exit_code) == (JobState.EXITED, code)

    @each_shell
    async def test_program_that_cannot_start_says_why(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Not found, not executable, no interpreter: not started, with no exit code."""
        files = {"plain": b"#!/bin/sh\n", "d/x": b""}
        orphan = desk.root / "orphan"
        orphan.write_bytes(b"#! /no/such/shell -x\n")
        orphan.chmod(0o755)

        missing = await desk.run(any_machine, ["no-such-programm", "x"])
        relative = await desk.run(any_machine, ["./no\nsuch"])
        plain = await desk.run(any_machine, ["./plain"], files=files)
        folder = await desk.run(any_machine, ["./d"], files=files)
        direct = await desk.run(any_machine, ["./orphan"], files={"orphan": orphan})

        said = [ran.outcome.message for ran in (missing, relative, plain, folder, direct)]
        assert said == [
            "command not found: no-such-programm",
            "command not found: ./no such",
            "not executable: ./plain",
            "not executable: ./d",
            "cannot run ./orphan: its interpreter does not exist",
        ]
        assert {ran.outcome.state for ran in (missing, plain)} == {JobState.NOT_STARTED}
        assert missing.outcome.exit_code is None
        assert missing.stderr == b""

    @each_shell
    async def test_programs_are_found_through_the_jobs_own_path(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """PATH as the job sees it decides which program is meant."""
        tool = desk.root / "bin/tool"
        tool.parent.mkdir()
        tool.write_text("#!/bin/sh\necho mine\n")
        tool.chmod(0o755)

        ran = await desk.run(any_machine, ["tool"], io={"env": {"PATH": f"/no:{tool.parent}"}})

        assert ran.stdout == b"mine\n"

    @each_shell
    async def test_a_variable_that_no_shell_can_set_is_an_error(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Said plainly, where it is one, and never left out in silence."""
        ran = await desk.run(any_machine, "env | grep ^UID=", io={"env": {"UID": "7"}})

        assert ran.stdout == b"UID=7\n" or "cannot set the variable UID" in ran.outcome.message

    @each_shell
    async def test_timeout_ends_the_job_and_what_it_started(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Also what has left the job's group, and ignores being asked."""
        script = "setsid sh -c 'trap \"\" TERM; sleep 600' & echo on; sleep 600"

        ran = await desk.run(any_machine, script, timeout=0.5)

        assert (ran.outcome.state, ran.outcome.exit_code) == (JobState.TIMED_OUT, None)
        assert ran.stdout == b"on\n"
        await until(lambda: processes_of(any_machine.home) == [])

    @on_asyncio
    async def test_a_job_that_ignores_being_asked_is_killed(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """Two seconds later."""
        ran = await desk.run(machine, "trap '' TERM; echo on; sleep 600", timeout=0.5)

        assert (ran.outcome.state, ran.stdout) == (JobState.TIMED_OUT, b"on\n")
        await until(lambda: processes_of(machine.home) == [])

    @each_shell
    async def test_a_job_that_ends_in_time_leaves_no_timer(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Nothing at all of it runs on."""
        ran = await desk.run(any_machine, "echo x", timeout=600)

        assert ran.outcome.exit_code == 0
        await until(lambda: processes_of(any_machine.home) == [])

    @each_shell
    async def test_timeout_asks_before_it_kills(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """A job that ends on SIGTERM can say goodbye, and its outputs come back."""
        script = "trap 'echo bye; exit 3' TERM; echo 1 > a; while :; do sleep 0.01; done"

        ran = await desk.run(any_machine, script, timeout=0.5, outputs="a")

        assert (ran.outcome.state, ran.stdout) == (JobState.TIMED_OUT, b"bye\n")
        assert ran.contents() == {"a": b"1\n"}

    @each_shell
    async def test_cancelling_ends_the_job(self, desk: Desk, any_machine: LocalChannel) -> None:
        """All of it, even what has left its group and ignores being asked."""
        began = anyio.Event()
        io, _ = desk.io(on_output=on_output(began.set))
        job = Job("setsid sh -c \"trap '' TERM; sleep 600\" & echo on; sleep 600")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_job, any_machine, job, io)
            await began.wait()
            tasks.cancel_scope.cancel()

        await until(lambda: processes_of(any_machine.home) == [])

    @on_asyncio
    async def test_a_job_cancelled_on_its_way_never_starts(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """A start that is still under way finds its token taken."""
        io, _ = desk.io()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run_job(machine, Job("touch ../../../../ran"), io)
        again, _ = desk.io(job_id="job-1")
        outcome = await run_job(machine, Job('touch "$HOME/ran"'), again)

        assert outcome.state is JobState.LOST
        assert not (machine.home / "ran").exists()

    @each_shell
    async def test_job_ends_with_its_own_process_not_with_what_it_left(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """A background process neither holds the result up nor dies of a closed pipe."""
        script = "(while echo tick; do sleep 0.5; done) & echo $! > ../../../../pid"

        with anyio.fail_after(8):
            ran = await desk.run(any_machine, script)

        pid = int((any_machine.home / "pid").read_text())
        assert ran.outcome.exit_code == 0
        assert pid in processes_of(any_machine.home)


class TestOutput:
    @each_shell
    async def test_it_arrives_while_the_job_runs(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """A line is handed on when it was written, not when the job has ended."""
        seen: list[tuple[str, bytes]] = []

        def note(stream: str, data: bytes) -> None:
            seen.append((stream, data))
            (desk.root / f"go-{len(seen)}").touch()

        go = desk.root / "go-"
        script = f"wait() {{ while [ ! -e {go}$1 ]; do sleep 0.01; done; }}; echo a; wait 1; echo b >&2; wait 2"
        with anyio.fail_after(10):
            await desk.run(any_machine, script, io={"on_output": note})

        assert seen == [("stdout", b"a\n"), ("stderr", b"b\n")]

    @each_shell
    async def test_streams_are_pipes(self, desk: Desk, any_machine: LocalChannel) -> None:
        """Writing to /dev/stderr by name cuts nothing off."""
        ran = await desk.run(
            any_machine, "echo 1 >&2; echo 2 >/dev/stderr; echo 3 >&2; [ -p /dev/stdout ]"
        )

        assert ran.stderr == b"1\n2\n3\n"
        assert ran.outcome.exit_code == 0

    @each_shell
    async def test_both_streams_are_complete_up_to_the_limit(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Each stream has its own; the last byte before it is kept, the others are counted."""
        script = "head -c 900000 /dev/zero; head -c 1000 /dev/zero >&2"

        ran = await desk.run(any_machine, script, output_limit=700_001)

        assert (len(ran.stdout), len(ran.stderr)) == (700_001, 1000)
        assert ran.outcome.dropped == 199_999

    @on_asyncio
    async def test_a_flood_does_not_fill_the_machines_disk(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """What is beyond the limit is dropped while the job runs."""
        script = "head -c 200000000 /dev/zero; while [ -e ../stdout ] && [ ! -e ../stdout.dropped ]; do sleep 0.05; done"

        ran = await desk.run(machine, script, output_limit=1000)

        assert ran.outcome.exit_code == 0
        assert len(ran.stdout) == 1000
        # What was written while the log was cut is dropped, and not all of it is counted.
        assert 100_000_000 < ran.outcome.dropped <= 200_000_000 - 1000


@pytest.mark.deep
class TestABusyMachine:
    async def test_a_launcher_that_takes_its_time_is_waited_for(
        self, desk: Desk, make_machine: MakeMachine, tmp_path: Path
    ) -> None:
        """Between the token and the first sign of the launcher a crowded machine may take seconds."""
        slow = tmp_path / "slow"
        slow.mkdir()
        (slow / "mv").write_text('#!/bin/sh\n[ "$2" != launcher ] || sleep 3\nexec /bin/mv "$@"\n')
        (slow / "mv").chmod(0o755)
        machine = make_machine(path=f"{slow}:{os.environ['PATH']}")

        ran = await desk.run(machine, "echo there")

        assert ran.stdout == b"there\n"
        assert ran.outcome.exit_code == 0

    @pytest.mark.parametrize("by", ["timeout", "cancellation"])
    async def test_what_is_to_end_before_it_began_ends(
        self, desk: Desk, make_machine: MakeMachine, tmp_path: Path, by: str
    ) -> None:
        """Between the launcher's start and the job's, too, may lie seconds."""
        slow = tmp_path / "slow"
        slow.mkdir()
        (slow / "setsid").write_text('#!/bin/sh\nsleep 1.5\nexec /usr/bin/setsid "$@"\n')
        (slow / "setsid").chmod(0o755)
        machine = make_machine(path=f"{slow}:{os.environ['PATH']}")
        timeout = 0.2 if by == "timeout" else None
        folder = machine.home / ".gpubroker/jobs/job-1"

        async def run() -> None:
            ran = await desk.run(machine, "echo ran > ~/ran; sleep 300", timeout=timeout)
            assert ran.outcome.state is JobState.TIMED_OUT

        async def comes(name: str) -> None:
            while not (folder / name).exists():
                await anyio.sleep(0.05)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                if by == "cancellation":
                    await comes("launcher")
                    tasks.cancel_scope.cancel()
            await comes("end")
        assert not (machine.home / "ran").exists()


class TestStartingOnce:
    @each_shell
    async def test_the_same_id_is_started_once(self, desk: Desk, any_machine: LocalChannel) -> None:
        """Who asks again is told what became of it, from the first byte on."""
        job = Job(
            'echo run; echo >> "$HOME/runs"; cat a; echo b > b', files={"a": b"A"}, outputs="b"
        )
        first, _ = desk.io(job_id="same")
        second, receiver = desk.io(job_id="same")

        one = await run_job(any_machine, job, first)
        two = await run_job(any_machine, job, second)

        assert one == two
        assert first.kept("stdout") == second.kept("stdout") == b"run\nA"
        assert receiver.commit()["b"].size == 2
        assert (any_machine.home / "runs").read_text() == "\n"

    @each_shell
    async def test_two_who_ask_at_once_start_it_once(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Both see all of it."""
        job = Job('echo run; echo >> "$HOME/runs"; sleep 0.2')
        ios = [desk.io(job_id="same")[0] for _ in range(3)]

        async with anyio.create_task_group() as tasks:
            for io in ios:
                tasks.start_soon(run_job, any_machine, job, io)

        assert [io.kept("stdout") for io in ios] == [b"run\n"] * 3
        assert (any_machine.home / "runs").read_text() == "\n"

    @on_asyncio
    async def test_earlier_jobs_that_have_ended_are_deleted(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """Their outputs are with their callers."""
        await desk.run(machine, "echo 1 > a")
        await desk.run(machine, "echo 1 > a")

        assert [path.name for path in (machine.home / ".gpubroker/jobs").iterdir()] == ["job-2"]

    @each_shell
    async def test_those_whose_outputs_are_on_their_way_are_not(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Jobs may run side by side: what has ended beside a new one is its caller's still."""
        await desk.run(any_machine, "echo 1 > a", files={"x": b""})
        running = ["job-1", "job-3"]

        await desk.run(any_machine, "echo 1 > a", files={"x": b""}, io={"running": running})

        left = sorted(path.name for path in (any_machine.home / ".gpubroker/jobs").iterdir())
        assert left == ["job-1", "job-2"]

    @pytest.mark.parametrize("job_id", ["", "../x", "a b", "a/b", ".", "x" * 101])
    async def test_an_id_is_a_plain_name(
        self, desk: Desk, machine: LocalChannel, job_id: str
    ) -> None:
        """It becomes a folder's."""
        with pytest.raises(ProviderError, match="job id") as refused:
            await desk.run(machine, "true", io={"job_id": job_id})

        assert refused.value.kind is ErrorKind.BAD_REQUEST


class TestSecrets:
    @each_shell
    async def test_they_are_on_no_disk_and_in_no_command_line(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Only the job's own environment holds them."""
        secret = "s3cret-value"
        found: list[str] = []

        def look(*_: object) -> None:
            for path in any_machine.home.rglob("*"):
                if path.is_file() and secret.encode() in path.read_bytes():
                    found.append(str(path))
            for pid in processes_of(any_machine.home):
                if secret.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(f"{pid}")

        io = {"env": {"TOKEN": secret}, "on_output": look}
        ran = await desk.run(any_machine, '[ -n "$TOKEN" ] && echo on', io=io)
        look()

        assert ran.stdout == b"on\n"
        assert found == []

    @each_shell
    async def test_only_its_user_sees_what_a_job_has(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """The job's folder is closed to others; what the job makes in it is as usual."""
        old = os.umask(0o022)
        try:
            await desk.run(any_machine, "touch x", files={"a": b""})
        finally:
            os.umask(old)

        assert folder_of(any_machine).stat().st_mode & 0o777 == 0o700
        assert (folder_of(any_machine) / "work/x").stat().st_mode & 0o777 == 0o644


class TestMachinesThatLackSomething:
    @on_asyncio
    async def test_without_tar_no_file_moves(
        self, desk: Desk, make_machine: MakeMachine, without: Any
    ) -> None:
        """The error names it, and the job was not started."""
        machine = make_machine(path=without("tar"))

        placed = await desk.run(machine, 'touch "$HOME/ran"', files={"a": b""}, outputs="b")
        wanted = await desk.run(machine, 'touch "$HOME/ran"', outputs="b")
        neither = await desk.run(machine, "echo fine")

        assert placed.outcome.state is wanted.outcome.state is JobState.NOT_STARTED
        assert "no tar" in placed.outcome.message
        assert "no tar" in wanted.outcome.message
        assert placed.missing == wanted.missing == ["b"]
        assert not (machine.home / "ran").exists()
        assert neither.stdout == b"fine\n"

    @on_asyncio
    async def test_without_setsid_and_digests_all_works(
        self, desk: Desk, make_machine: MakeMachine, without: Any
    ) -> None:
        """These are used where they are; a job is still ended on time."""
        machine = make_machine(path=without("setsid", "sha256sum", "openssl", "stat", "grep"))

        ran = await desk.run(
            machine, "cat a > b; sleep 600", files={"a": b"1"}, outputs="b", timeout=0.3
        )

        assert ran.outcome.state is JobState.TIMED_OUT
        assert ran.contents() == {"b": b"1"}


class TestMachinesThatForget:
    async def test_a_machine_made_anew_has_lost_the_job(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """Its folder is gone: nobody will ever know."""
        io, _ = desk.io(on_output=on_output(partial(shutil.rmtree, folder_of(machine))))

        outcome = await run_job(machine, Job("echo x; sleep 3"), io)

        assert outcome.state is JobState.LOST

    @each_shell
    async def test_a_machine_that_was_restarted_has_lost_the_job(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Its folder is there, and nothing that stands for it runs any more."""

        def strike(*_: object) -> None:
            launcher = int((folder_of(any_machine) / "launcher").read_text().split()[0])
            os.kill(launcher, signal.SIGKILL)

        io, _ = desk.io(on_output=strike)

        outcome = await run_job(any_machine, Job("echo x; sleep 3"), io)

        assert outcome.state is JobState.LOST
