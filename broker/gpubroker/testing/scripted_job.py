"""A job on a machine of a scripted cloud: it prints, writes, takes its time, and ends as told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import anyio

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.model.jobs import Job
from gpubroker.model.results import JobState, Outcome
from gpubroker.testing.books import RentedMachine
from gpubroker.testing.script import SAME_MOMENT, Script, reached
from gpubroker.transport.job_io import JobIO, Stream
from gpubroker.transport.outputs import asked_for

#: Makes what sets an event, whoever calls it: another event loop may be the one that destroys.
Waker = Callable[[anyio.Event], Callable[[], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """All that one job is to do. Everything it prints and writes comes when it starts.

    Attributes:
        seconds: how long it runs.
        writes: files it leaves in its folder. sends: files that are sent back unasked.
        start_failure: why it cannot be started; empty if it can.
    """

    seconds: float = 0.0
    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    writes: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    sends: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    start_failure: str = ""

    @classmethod
    def of_job(cls, script: Script, at: float) -> Performance:
        """What the next job was told."""
        failure = script.job_start_failures.take(at)
        if failure is not None:
            return cls(start_failure=failure)
        stdout, stderr = script.job_prints.take(at) or (b"", b"")
        return cls(
            seconds=script.job_seconds.take(at) or 0.0,
            exit_code=script.job_exits.take(at) or 0,
            stdout=stdout,
            stderr=stderr,
            writes=script.job_writes.take(at) or {},
            sends=script.machine_sends.take(at) or {},
        )

    @classmethod
    def of_setup(cls, script: Script, at: float) -> Performance:
        """What the next set-up was told."""
        return cls(
            seconds=script.setup_seconds.take(at) or 0.0,
            exit_code=script.setup_exits.take(at) or 0,
        )


async def perform(
    performance: Performance,
    machine: RentedMachine,
    job: Job,
    io: JobIO,
    now: Callable[[], float],
    waker: Waker,
) -> Outcome:
    """Run a job to its end, its time limit, or the loss of its machine.

    Raises:
        ProviderError: the machine was lost under it, or sent something that is not accepted.
    """
    if performance.start_failure:
        return Outcome(state=JobState.NOT_STARTED, message=performance.start_failure)
    started = now()
    dropped = await _print("stdout", performance.stdout, job, io)
    dropped += await _print("stderr", performance.stderr, job, io)
    end = started + performance.seconds
    limit = started + (math.inf if job.timeout is None else job.timeout)

    await _wait_until(min(end, limit), machine, now, io.job_id, waker)

    # What is ready at the moment of the loss was not lost.
    if machine.lost_at < min(end, limit) - SAME_MOMENT and reached(machine.lost_at, now()):
        raise _lost(machine)
    _bring_back(performance, job, io)
    if limit < end - SAME_MOMENT:
        return Outcome(state=JobState.TIMED_OUT, dropped=dropped)
    return Outcome(state=JobState.EXITED, exit_code=performance.exit_code, dropped=dropped)


async def _print(stream: Stream, data: bytes, job: Job, io: JobIO) -> int:
    if data[: job.output_limit]:
        await io.output(stream, data[: job.output_limit])
    return max(len(data) - job.output_limit, 0)


async def _wait_until(
    moment: float,
    machine: RentedMachine,
    now: Callable[[], float],
    job_id: str,
    waker: Waker,
) -> None:
    destroyed = anyio.Event()
    machine.watchers[job_id] = waker(destroyed)
    try:
        while not reached(min(moment, machine.lost_at), now()):
            with anyio.move_on_after(min(moment, machine.lost_at) - now()):
                await destroyed.wait()
    finally:
        del machine.watchers[job_id]


def _lost(machine: RentedMachine) -> ProviderError:
    if machine.preempted_at < machine.ended_at:
        message, scope = f"machine {machine.id} was preempted", Scope.OFFER
    else:
        message, scope = f"machine {machine.id} went away", Scope.HOST
    return ProviderError(message, kind=ErrorKind.HOST_BROKEN, scope=scope)


def _bring_back(performance: Performance, job: Job, io: JobIO) -> None:
    files = dict(performance.sends)
    for pattern in job.outputs:
        found = {n: data for n, data in performance.writes.items() if asked_for(pattern, n)}
        files |= found
        if not found:
            io.report_missing(pattern)
    for name, data in files.items():
        with io.receive(name) as file:
            file.write(data)
