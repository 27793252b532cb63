"""What is promised about machines that run: the way to them, their log, and jobs."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from gpubroker.errors import ProviderError
from gpubroker.model.jobs import Job, Purpose
from gpubroker.model.machines import Machine, PlannedJob
from gpubroker.model.results import JobState, Outcome
from gpubroker.testing.conformance.session import Session, expect, opened
from gpubroker.testing.conformance.subject import Subject
from gpubroker.transport.job_io import JobIO
from gpubroker.transport.receive import Receiver

#: Quotes, blanks, an empty word and a line's end: what a shell would take apart.
_WORDS: Final = ("a b", "", "'\"$HOME\\", "line\nbreak", "*", "ünï")
_GREETING: Final = "hello\nworld = 'x' $HOME"
_FOREVER: Final = 600
_NO_JOBS: Final = "reaches its machines over SSH, which its own tests try"


@dataclass(frozen=True, slots=True)
class _Ran:
    outcome: Outcome
    stdout: bytes
    stderr: bytes


async def check_a_way_to_the_machine_appears(subject: Subject) -> None:
    """A machine that is reached over SSH says where, once it runs.

    Without a route nobody can use what is being paid for. Fill in `Machine.routes` as soon as the
    vendor tells a host and a port, the best first.
    """
    subject.need(subject.ssh, "reaches its machines in a way of its own")
    async with opened(subject) as session:
        made = await session.rent()
        machine = await session.running_machine(made, routes=True)
    expect(made.ssh and machine.ssh, "a machine that was ordered without jobs is reached over SSH")
    for route in machine.routes:
        expect(
            0 < route.port < 65536 and route.host and not route.host.startswith("-"),
            f"no SSH client can be sent to {route}",
        )


async def check_log_shows_the_nonce(subject: Subject) -> None:
    """The log is text while the machine boots, and shows the order's nonce once it runs.

    Only so is it proven which SSH host keys are the machine's own; without it, secrets are not
    sent there. Let the machine print `gpubroker.transport.announcement`.
    """
    subject.need(subject.logs, "has no hook logs")
    async with opened(subject) as session:
        made = await session.rent()
        await session.provider.logs(made)
        if not subject.announces:
            return
        machine = await session.running_machine(made)
        await _announced(session, machine)


async def check_exit_code_is_the_jobs_own(subject: Subject) -> None:
    """Zero, another code, and the death by a signal are told apart, as a shell tells them."""
    async with _machine_for_jobs(subject) as (session, machine):
        for script, code in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)):
            ran = await _run(session, machine, Job(script))
            expect(
                (ran.outcome.state, ran.outcome.exit_code) == (JobState.EXITED, code),
                f"{script!r} is reported as {ran.outcome}",
            )


async def check_output_comes_back_whole(subject: Subject) -> None:
    """Both streams, apart from each other, byte for byte, up to the last one."""
    data = bytes(range(256)) * 512
    program = (
        "import sys; d = bytes(range(256)) * 512; sys.stdout.buffer.write(d); sys.stderr.write('e')"
    )
    async with _machine_for_jobs(subject) as (session, machine):
        ran = await _run(session, machine, Job([sys.executable, "-c", program]))
    expect(
        ran.stdout == data, f"{len(data)} bytes were written, and {len(ran.stdout)} came, or others"
    )
    expect(ran.stderr == b"e", f"standard error was b'e', and {ran.stderr!r} came")


async def check_words_and_environment_arrive(subject: Subject) -> None:
    """A command's words and its environment arrive exactly as given.

    Never build a shell's text out of them: pass them on as data.
    """
    program = (
        "import os, sys; sys.stdout.write('\\0'.join([os.environ['GREETING'], *sys.argv[1:]]))"
    )
    job = Job([sys.executable, "-c", program, *_WORDS])
    async with _machine_for_jobs(subject) as (session, machine):
        ran = await _run(session, machine, job, {"GREETING": _GREETING})
    seen = ran.stdout.decode(errors="replace").split("\0")
    expect(seen == [_GREETING, *_WORDS], f"{[_GREETING, *_WORDS]} arrived as {seen}")


async def check_timeout_ends_the_job(subject: Subject) -> None:
    """A job whose time is up is ended, reported as such, and its output is kept."""
    async with _machine_for_jobs(subject) as (session, machine):
        with anyio.move_on_after(subject.patience) as patience:
            ran = await _run(
                session, machine, Job(f"echo begun; exec sleep {_FOREVER}", timeout=0.5)
            )
            expect(
                (ran.outcome.state, ran.stdout) == (JobState.TIMED_OUT, b"begun\n"),
                f"a job whose time was up is reported as {ran.outcome}, with {ran.stdout!r}",
            )
    expect(not patience.cancelled_caught, "a job went on after its time was up")


async def check_jobs_of_an_order_run_by_themselves(subject: Subject) -> None:
    """A machine that is not reached over SSH runs the jobs of its order, and says how they ended.

    Such a machine says ``ssh=False`` in the answer to its create and in every inventory, shows the
    order's nonce in its log, and ``run`` reads each job's output and exit code with no channel.
    """
    subject.need(subject.runs_jobs, "hands no jobs over with an order")
    jobs = (
        PlannedJob(purpose="setup", argv=("sh", "-c", "printf ready"), timeout=60),
        PlannedJob(
            purpose="job",
            argv=("sh", "-c", 'printf "%s" "$GREETING$1"; exit 7', "sh", _WORDS[2]),
            env={"GREETING": _GREETING},
            timeout=60,
        ),
    )
    output = (b"ready", (_GREETING + _WORDS[2]).encode())
    async with opened(subject) as session:
        offer = await session.cheapest()
        made = await session.provision(offer, session.order(offer, jobs=jobs))
        expect(
            not made.ssh, "the machine was handed its jobs, and says that it is reached over SSH"
        )
        machine = await session.running_machine(made)
        expect(not machine.ssh, "inventory says that the machine is reached over SSH")
        await _announced(session, machine)
        for planned, text, code in zip(jobs, output, (0, 7), strict=True):
            job = Job(list(planned.argv))
            ran = await _run(session, machine, job, planned.env, planned.purpose)
            seen = (ran.outcome.state, ran.outcome.exit_code, ran.stdout)
            expect(seen == (JobState.EXITED, code, text), f"{planned.argv} is reported as {seen}")


@asynccontextmanager
async def _machine_for_jobs(subject: Subject) -> AsyncGenerator[tuple[Session, Machine]]:
    """A machine that a job can be run on right away."""
    subject.need(not subject.ssh, _NO_JOBS)
    async with opened(subject) as session:
        yield session, await session.running_machine(await session.rent())


async def _announced(session: Session, machine: Machine) -> None:
    """Wait for the order's nonce in the log."""
    nonce, text = session.orders[-1].nonce, ""
    with anyio.move_on_after(session.subject.patience):
        while nonce not in text:
            await session.pause()
            try:
                text = await session.provider.logs(machine)
            except ProviderError as error:
                text = repr(error)
    expect(nonce in text, f"the log of {machine.id} does not show the nonce, but {text[-200:]!r}")


async def _run(
    session: Session,
    machine: Machine,
    job: Job,
    env: Mapping[str, str] | None = None,
    purpose: Purpose = "job",
) -> _Ran:
    """Run one job to its end."""
    number = secrets.token_hex(6)
    with tempfile.TemporaryDirectory(prefix="gpubroker-conformance-") as folder:
        receiver = Receiver(Path(folder), token=number)
        io = JobIO(job_id=f"job-{number}", env=env or {}, receiver=receiver, purpose=purpose)
        outcome = await session.provider.run(machine, job, io)
    return _Ran(outcome, io.kept("stdout"), io.kept("stderr"))
