"""A lease: a machine in hand, for as many jobs as its time allows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from gpubroker.errors import (
    BrokerClosed,
    LeaseReleased,
    LedgerError,
    MachineLost,
    SecretsRefused,
    SetupFailed,
    StaleOwner,
)
from gpubroker.ledger.ledger import Ledger
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.lease_files import KeptJob
from gpubroker.lifecycle.leasing.running import Run, run_on
from gpubroker.lifecycle.leasing.service import AsyncServer
from gpubroker.lifecycle.leasing.tunnel import answering, forwarded
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.events import EventKind
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseRow, LeaseState, ReleaseState
from gpubroker.model.money import ZERO, Money
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import HostIdentity, JobState, Outcome, Result, Timings
from gpubroker.model.services import Service
from gpubroker.policy.pricing import cost_so_far, spent
from gpubroker.transport.job_io import OutputCallback


class AsyncLease:
    """A machine in hand, from `AsyncBroker.lease`. Leaving its ``async with`` block gives it up.

    Jobs run one at a time. However the block is left, the first thing that happens, before
    anything is awaited, is a durable request for the release; the broker's supervisor carries it
    out, whatever becomes of the caller.
    """

    def __init__(
        self,
        parts: Parts,
        supervisor: Supervisor,
        hold: Hold,
        *,
        requirements: Requirements,
        record: DecisionRecord,
        acquire_seconds: float,
        release_wait: float,
        at_a_time: int = 1,
        charged: Money = ZERO,
    ) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._hold = hold
        self._requirements = requirements
        self._record = record
        self._acquire_seconds = acquire_seconds
        self._setup_seconds = 0.0
        self._release_wait = release_wait
        self._release_seconds = 0.0
        self._charged = charged
        self._at_a_time = at_a_time
        self._turn = anyio.Semaphore(at_a_time)
        self._borrowed = 0

    def __repr__(self) -> str:
        row = self._hold.row
        return f"<AsyncLease {row.id}: {row.title} from {row.provider}, {row.state}>"

    @property
    def id(self) -> str:
        """The lease's id in the ledger."""
        return self._hold.row.id

    @property
    def provider(self) -> str:
        """Who rents the machine out."""
        return self._hold.row.provider

    @property
    def machine(self) -> str:
        """What it is, such as ``2x RTX 4090``."""
        return self._hold.row.title

    @property
    def record(self) -> DecisionRecord:
        """Why this machine was chosen, and what else was tried."""
        return self._record

    @property
    def deadline(self) -> float:
        """Unix time at which the machine is given up, whatever runs on it."""
        return self._hold.row.deadline

    @property
    def cost(self) -> Money:
        """USD that it has cost so far."""
        row = self._hold.row
        if row.state is LeaseState.RELEASED:
            return row.spent
        return spent(row, self._parts.now())

    @property
    def charged(self) -> Money:
        """USD of it that jobs which have ended have cost. For a pool."""
        return self._charged

    @property
    def release_state(self) -> ReleaseState:
        """How far giving it up has come."""
        return self._hold.release_state

    @property
    def host_identity(self) -> HostIdentity | None:
        """How the machine's identity was made sure of; ``None`` without SSH."""
        return None if self._hold.link is None else self._hold.link.host_identity

    async def run(
        self, job: Job | str | Sequence[str], *, on_output: OutputCallback | None = None
    ) -> Result:
        """Run a job to its end, its outputs brought back.

        Args:
            job: a `Job`, the words of a command, or a script.
            on_output: called with ``"stdout"`` or ``"stderr"`` and each piece of output.

        Returns:
            The result. A job that failed is a result too; ``result.check()`` raises for it. It
            costs what the lease has cost since the end of the job before it; the first one bears
            boot and set-up.

        Raises:
            LeaseReleased: the lease has been given up.
            MachineLost: the machine went away under the job.
            SecretsRefused: the job has secrets, and the machine's identity is not proven.
            StaleOwner: another process took this broker for dead, and has adopted the job.
            OSError: the outputs cannot be written here.
        """
        job = Job.of(job)
        async with self._turn:
            self._check_held()
            self._check_secrets(job)
            job_id = self._parts.new_id("job")
            hold, at = self._hold, self._parts.now()
            self._keep(job_id, job)
            hold.update(
                await self._parts.ledger(
                    lambda ledger: ledger.begin_job(hold.row, job_id, job.title, job.tags, at)
                )
            )
            self._emit(EventKind.RUNNING, job.title)
            env = {**self._requirements.env, **job.env, **job.secrets}
            return await self._to_its_end(job_id, job, env, on_output=on_output)

    async def go_on(
        self,
        job_id: str,
        job: Job,
        *,
        on_output: OutputCallback | None = None,
        keep_output: bool = False,
    ) -> Result:
        """Go on with a job that a broker had begun which is gone. Called by the broker.

        Args:
            keep_output: put what it prints beside its outputs.

        Raises:
            MachineLost: the machine went away under the job, or knows nothing of it.
            StaleOwner: another process has taken the lease over.
            OSError: the outputs cannot be written here.
        """
        async with self._turn:
            self._check_held()
            self._emit(EventKind.RUNNING, f"{job.title}, begun by a broker that is gone")
            return await self._to_its_end(
                job_id, job, {}, on_output=on_output, begun=True, keep_output=keep_output
            )

    async def _to_its_end(
        self,
        job_id: str,
        job: Job,
        env: Mapping[str, str],
        *,
        on_output: OutputCallback | None,
        begun: bool = False,
        keep_output: bool = False,
    ) -> Result:
        """Have a job's result safe, and its end on record."""
        hold = self._hold
        try:
            run = await run_on(
                self._parts,
                hold,
                job,
                job_id=job_id,
                env=env,
                destination=job.output_dir,
                on_output=on_output,
                begun=begun,
                keep_output=keep_output,
            )
        except StaleOwner:
            raise
        except BaseException as error:
            if not hold.left:
                self._end_badly(job_id, type(error).__name__)
            raise
        ended = self._parts.now()
        await self._end(job_id, run.outcome, ended)
        result = replace(self._result(job_id, run), cost=self._charge(ended))
        if hold.drain_reason and not self._others_use_it:
            self.release(hold.drain_reason)
        self._emit(EventKind.JOB_ENDED, result.failure or "exit code 0")
        if result.state is JobState.LOST:
            raise MachineLost(f"{self.provider}: {result.failure}", result)
        return result

    def _keep(self, job_id: str, job: Job) -> None:
        """Have what an heir needs of a job on the disk, where it is to have one.

        Raises:
            OSError: it cannot be written.
        """
        files, link = self._parts.files, self._hold.link
        if self._hold.row.on_owner_death != "adopt" or files is None:
            return
        kept = KeptJob(
            id=job_id,
            title=job.title,
            outputs=job.outputs,
            output_dir=job.output_dir.absolute(),
            output_limit=job.output_limit,
            timeout=job.timeout,
            host_keys=() if link is None else link.host_keys,
            host_identity=self.host_identity,
        )
        files.put_job(self.id, kept)

    @asynccontextmanager
    async def in_use(self, title: str) -> AsyncGenerator[None]:
        """Have it busy for as long as the block lasts, as by a job. Called by a pool.

        Raises:
            LeaseReleased: the lease has been given up.
            StaleOwner: another process has taken it over.
        """
        self._check_held()
        use_id, hold, at = self._parts.new_id("use"), self._hold, self._parts.now()
        hold.update(
            await self._parts.ledger(
                lambda ledger: ledger.begin_job(hold.row, use_id, title, (), at)
            )
        )
        self._borrowed += 1
        try:
            yield
        finally:
            self._borrowed -= 1
            if not hold.left:
                self._end_badly(use_id, "ended")

    @asynccontextmanager
    async def tunnel(
        self,
        port: int,
        *,
        path: str | None = "/",
        timeout: float = 120.0,  # noqa: ASYNC109
    ) -> AsyncGenerator[str]:
        """Reach a service on the machine, once it answers.

        Args:
            port: the TCP port that it listens on, on the machine's own loopback address.
            path: what to ask it for over HTTP until it answers, with whatever status below 500;
                ``None`` for a service that does not speak HTTP, which only has to accept and
                keep a connection.
            timeout: seconds to wait for that.

        Returns:
            A context manager that gives where it is reached here: ``http://127.0.0.1:PORT``.

        Raises:
            LeaseReleased: the lease has been given up.
            TimeoutError: it did not answer in time.
            ChannelLost: there is no way to the machine.
        """
        self._check_held()
        async with forwarded(self._hold, port) as address:
            await answering(address, path, timeout)
            yield f"http://127.0.0.1:{address}"

    @asynccontextmanager
    async def service(self, service: Service) -> AsyncGenerator[AsyncServer]:
        """Run a server on the machine, beside its jobs, for as long as the block lasts.

        It is no job: it does not keep the machine busy, and costs what the machine costs. Leaving
        the block ends all its processes, and so does giving the machine up. A connection that
        breaks ends neither it nor its address here. An error that leaves the block while the
        server is not well comes out as `ServiceFailed`, with that error as its cause.

        Returns:
            A context manager that gives the server once it is ready: ``server.url``,
            ``server.log()``.

        Raises:
            ServiceFailed: it did not get ready, ended, or stopped answering.
            LeaseReleased: the lease has been given up.
            ChannelLost: there is no way to the machine.
        """
        self._check_held()
        env = self._requirements.env
        async with AsyncServer.started_on(self._parts, self._hold, service, env) as server:
            yield server

    def release(self, reason: str = "asked for") -> None:
        """Give the machine up. Does not wait; a second call changes nothing."""
        self._supervisor.request_release(self._hold, reason)

    async def set_up(self, on_output: OutputCallback | None = None) -> None:
        """Run the requirements' set-up script, once. Called by the broker.

        Args:
            on_output: called with each piece of its output, all of it as ``"stderr"``: standard
                output is the job's own.

        Raises:
            SetupFailed: it failed; the error's result has its output.
        """
        setup = self._requirements.setup
        hold, parts = self._hold, self._parts
        if setup is not None:
            self._emit(EventKind.SETTING_UP, " ".join(setup.argv)[:80])
            job_id = parts.new_id("setup")
            run = await run_on(
                parts,
                hold,
                Job(setup.argv, timeout=setup.timeout),
                job_id=job_id,
                env=self._requirements.env,
                destination=Path(),
                purpose="setup",
                on_output=on_output and (lambda _, data: on_output("stderr", data)),
            )
            self._setup_seconds = run.seconds
            if run.outcome.exit_code == 0:
                parts.recall.set_up(hold.offer, hold.image, run.seconds, parts.now())
            if run.outcome.exit_code != 0:
                result = self._result(job_id, run)
                said = (run.stderr or run.stdout).decode(errors="replace").strip()
                text = f"set-up failed ({result.failure}): {said[-500:]}"
                raise SetupFailed(text, result)
        at = parts.now()
        hold.update(
            await parts.ledger(
                lambda ledger: ledger.move(hold.row, LeaseState.READY, at, "ready", ready_at=at)
            )
        )
        self._emit(EventKind.READY, f"{self.machine} from {self.provider} is ready")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._hold.left:
            return
        self.release("done" if error is None else f"left by {type(error).__name__}")
        began = anyio.current_time()
        with anyio.move_on_after(self._release_wait, shield=True):
            await self._hold.acknowledged()
        self._release_seconds = anyio.current_time() - began

    def final(self, result: Result) -> Result:
        """`result` with the release, its time and the cost as they are now."""

        return replace(
            result,
            release=self.release_state,
            cost=self.cost,
            timings=replace(result.timings, release=self._release_seconds),
        )

    @property
    def _others_use_it(self) -> bool:
        """Whether it is used, besides by the job that asks: whoever is last gives it up."""
        return self._borrowed > 0 or self._at_a_time - self._turn.value > 1

    def _check_held(self) -> None:
        reason = self._hold.release_reason or self._hold.drain_reason
        if reason:
            raise LeaseReleased(self.id, reason)

    def _check_secrets(self, job: Job) -> None:
        if job.secrets and self.host_identity is HostIdentity.FIRST_USE:
            raise SecretsRefused(
                f"{', '.join(job.secrets)}: the log of {self.machine} from {self.provider} did not"
                " show its host keys, so its identity is not proven"
            )

    def _emit(self, kind: EventKind, text: str) -> None:
        self._parts.emit(kind, text, provider=self.provider, lease_id=self.id)

    async def _end(self, job_id: str, outcome: Outcome, at: float) -> None:
        """Put on record how a job ended, and that its machine was lost under it, if it was."""
        row = self._hold.row
        state, code = str(outcome.state), outcome.exit_code
        lost = outcome.state is JobState.LOST
        if lost:
            self._record = self._record.lost(self.id, outcome.message, at, self.cost)
        record = self._record

        def write(ledger: Ledger) -> LeaseRow:
            ended = ledger.end_job(row, job_id, state, code, at)
            if lost:
                ledger.put_record(record)
            return ended

        try:
            self._hold.update(await self._parts.ledger(write))
        except LedgerError as error:
            # A result in hand outweighs its line in the record.
            self._emit(EventKind.ALARM, f"the end of {job_id} could not be recorded: {error}")
            self._hold.drain_reason = self._hold.drain_reason or "its record cannot be kept"

    def _end_badly(self, job_id: str, state: str) -> None:
        """Put on record that a job was left, without an await: a cancellation is on its way out."""
        row, at = self._hold.row, self._parts.now()
        self._charge(at)
        try:
            self._hold.update(
                self._parts.ledger.at_once(
                    lambda ledger: ledger.end_job(row, job_id, state, None, at)
                )
            )
        except (LedgerError, BrokerClosed) as error:
            self._emit(EventKind.ALARM, f"the end of {job_id} could not be recorded: {error}")

    def _charge(self, at: float) -> Money:
        """USD since the end of the job before, which a job that ended at `at` has cost."""
        so_far = cost_so_far(self._hold.row, at)
        share = max(ZERO, so_far - self._charged, key=lambda money: money.amount)
        self._charged += share
        return share

    def _result(self, job_id: str, run: Run) -> Result:
        return Result(
            state=run.outcome.state,
            exit_code=run.outcome.exit_code,
            provider=self.provider,
            machine=self.machine,
            lease_id=self.id,
            job_id=job_id,
            stdout=run.stdout,
            stderr=run.stderr,
            dropped=run.outcome.dropped,
            message=run.outcome.message,
            files=run.files,
            missing=run.missing,
            cost=self.cost,
            timings=Timings(
                acquire=self._acquire_seconds, setup=self._setup_seconds, run=run.seconds
            ),
            host_identity=self.host_identity,
            release=self.release_state,
            record=self._record,
        )
