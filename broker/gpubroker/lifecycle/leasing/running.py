"""Run one job on a machine in hand, and have its results safe before anything else happens."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from gpubroker.errors import BrokerClosed, LedgerError, ProviderError, StaleOwner
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.events import EventKind
from gpubroker.model.jobs import Job, Purpose
from gpubroker.model.results import JobState, Outcome, OutputFile
from gpubroker.policy.retry import Retry
from gpubroker.transport.job_io import (
    Direction,
    JobIO,
    OutputCallback,
    ProgressCallback,
    Stream,
)
from gpubroker.transport.outputs import asked_for
from gpubroker.transport.receive import ReceivedFile, Receiver, discard_staged

#: Outputs that are put in place at once; more of them would hold up the event loop.
_FEW = 100

#: Seconds that a provider may take beyond a job's own time-out to report it.
_GRACE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one job went on one machine."""

    outcome: Outcome
    stdout: bytes
    stderr: bytes
    files: Mapping[str, OutputFile]
    missing: tuple[str, ...]
    seconds: float


async def run_on(
    parts: Parts,
    hold: Hold,
    job: Job,
    *,
    job_id: str,
    env: Mapping[str, str],
    destination: Path,
    purpose: Purpose = "job",
    on_output: OutputCallback | None = None,
    begun: bool = False,
    keep_output: bool = False,
) -> Run:
    """Run `job` to its end, whatever end that is.

    When the lease is given up meanwhile, the outcome says "cancelled" and why. What had come back
    whole by then is kept.

    Args:
        begun: it was started by a broker that is gone, and is followed to its end.
        keep_output: put what it prints beside its outputs, as ``<job id>.stdout`` and ``.stderr``.

    Raises:
        StaleOwner: the lease was taken over, and so was the job: its result is not ours to deliver.
        LetGo: this broker has let go of the lease; the job runs on.
        OSError: the outputs cannot be written here.
    """
    assert hold.machine is not None
    # Whoever had the job before may still be writing, under a name of its own.
    token = f"{job_id}.{hold.row.epoch}" if begun else job_id
    receiver = Receiver(destination, token=token)
    kept = _Kept(receiver, job_id) if keep_output else None
    io = JobIO(
        job_id=job_id,
        env=env,
        receiver=receiver,
        purpose=purpose,
        on_output=on_output if kept is None else kept.write,
        on_progress=_progress(parts, hold),
        begun=begun,
        taken_over=lambda: taken_over(parts, hold),
        running=hold.running,
    )
    hold.running.add(job_id)
    began = anyio.current_time()
    try:
        try:
            outcome = await _outcome(parts, hold, job, io)
        finally:
            hold.running.discard(job_id)
            if kept is not None:
                kept.close()
        if kept is not None and kept.problem is not None:
            raise kept.problem
        if hold.left:
            raise LetGo(hold.row.id)
        if hold.row.on_owner_death == "adopt" and taken_over(parts, hold):
            raise StaleOwner(f"lease {hold.row.id} was taken over, and its job with it")
    except BaseException:
        receiver.discard()
        raise
    files = await _placed(receiver)
    if kept is not None:
        files = {name: file for name, file in files.items() if name not in kept.names}
    if begun:
        discard_staged(destination, job_id)
    if io.callback_error is not None:
        text = f"the output callback failed and was left out: {io.callback_error!r}"
        parts.emit(EventKind.ALARM, text, lease_id=hold.row.id)
    seconds = anyio.current_time() - began
    # The machine's word is not enough: what is not here is missing.
    absent = [p for p in job.outputs if not any(asked_for(p, name) for name in files)]
    missing = tuple(dict.fromkeys([*io.missing, *absent]))
    return Run(
        outcome=outcome,
        stdout=io.kept("stdout"),
        stderr=io.kept("stderr"),
        files=files,
        missing=missing,
        seconds=seconds,
    )


class LetGo(Exception):
    """The broker has let go of a lease whose job runs on."""


def taken_over(parts: Parts, hold: Hold) -> bool:
    """Whether a lease is another broker's by now that goes on with it, as far as can be found out."""
    if not hold.row.has_files:
        return False
    try:
        row = parts.ledger.at_once(lambda ledger: ledger.lease(hold.row.id))
    except (LedgerError, BrokerClosed):
        return False
    return row is not None and row.epoch != hold.row.epoch


class _Kept:
    """What a job prints, as files among its outputs."""

    def __init__(self, receiver: Receiver, job_id: str) -> None:
        self._files: dict[Stream, ReceivedFile] = {}
        self._receiver = receiver
        self._job_id = job_id
        self.problem: Exception | None = None
        self.names: set[str] = set()

    def write(self, stream: Stream, data: bytes) -> None:
        """Add to a stream's file."""
        try:
            if stream not in self._files:
                name = f"{self._job_id}.{stream}"
                self._files[stream] = self._receiver.receive(name)
                self.names.add(name)
            self._files[stream].write(data)
        except (OSError, ProviderError) as problem:
            self.problem = problem
            raise

    def close(self) -> None:
        """There is no more."""
        for file in self._files.values():
            with suppress(OSError):
                file.close(whole=True)


async def _placed(receiver: Receiver) -> dict[str, OutputFile]:
    """Put the outputs in place; thousands of them not in the event loop's time."""
    if receiver.count <= _FEW:
        return receiver.commit()
    with anyio.CancelScope(shield=True):
        return await anyio.to_thread.run_sync(receiver.commit)
    raise AssertionError("a shield lets nothing through")


def _progress(parts: Parts, hold: Hold) -> ProgressCallback:
    """Tells how far files have come, once a second at the most."""
    told = anyio.current_time()

    def progress(direction: Direction, done: int, total: int | None) -> None:
        nonlocal told
        now = anyio.current_time()
        if now - told < 1.0:
            return
        told = now
        of = "" if not total else f" of {total / 1e6:,.0f}"
        text = f"{direction}: {done / 1e6:,.0f}{of} MB"
        parts.emit(EventKind.TRANSFERRING, text, provider=hold.provider.name, lease_id=hold.row.id)

    return progress


async def _outcome(parts: Parts, hold: Hold, job: Job, io: JobIO) -> Outcome:
    assert hold.machine is not None
    limit = float("inf") if job.timeout is None else job.timeout + _GRACE
    overdue = anyio.CancelScope()
    with anyio.CancelScope() as given_up:
        hold.use(given_up)
        try:
            overdue.deadline = anyio.current_time() + limit
            with overdue:
                try:
                    return await hold.provider.run(hold.machine, job, io, hold.channel)
                except ProviderError as error:
                    if local := io.local_error:
                        raise local from error
                    parts.recall.attempt_failed(error, hold.offer, hold.image, Retry(), parts.now())
                    parts.emit(
                        EventKind.FAILED,
                        str(error),
                        provider=hold.provider.name,
                        lease_id=hold.row.id,
                    )
                    return Outcome(state=JobState.LOST, message=str(error))
        finally:
            hold.disuse(given_up)
    if overdue.cancelled_caught:
        hold.unended = True  # whoever was to end it at its time-out has not said so
        return Outcome(state=JobState.TIMED_OUT, message=f"still not ended after {limit:g} s")
    state = JobState.LOST if hold.lost else JobState.CANCELLED
    return Outcome(state=state, message=hold.release_reason or "")
