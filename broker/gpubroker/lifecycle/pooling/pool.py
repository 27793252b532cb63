"""A pool as its users see it: run a job on a warm machine, or borrow one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from gpubroker.errors import LeaseReleased, MachineLost, PoolTimeout, StaleOwner
from gpubroker.lifecycle.leasing.lease import AsyncLease
from gpubroker.lifecycle.pooling.member import Member, Waiter, on_member
from gpubroker.lifecycle.pooling.serving import Serving
from gpubroker.model.jobs import Job
from gpubroker.model.money import ZERO, Money
from gpubroker.model.pools import PoolStatus
from gpubroker.model.results import Result
from gpubroker.policy.pool import Waiting
from gpubroker.transport.job_io import OutputCallback

#: Seconds beyond a job's own time-out for which its machine must live.
_GRACE = 60.0


class AsyncPool:
    """Machines that are kept warm while that pays, from `AsyncBroker.pool`.

    Whoever asks gets a machine that is idle; or one is rented, or waited for, in turn. A machine
    that nobody uses is given up when its idle limit is over. Leaving the block gives all up that
    this process holds.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def __repr__(self) -> str:
        return f"<AsyncPool {self.name}>"

    @property
    def name(self) -> str:
        """What processes that share it call it."""
        return self._serving.terms.share.name

    async def run(
        self,
        job: Job | str | Sequence[str],
        *,
        on_output: OutputCallback | None = None,
        avoid: Collection[str] = (),
    ) -> Result:
        """Run a job on a machine of the pool, its outputs brought back.

        Where its machine is lost, it is started again on another one as often as its ``retries``
        say. One that is cancelled takes its machine with it: whether it has ended is not known.

        Args:
            job: a `Job`, the words of a command, or a script.
            on_output: called with ``"stdout"`` or ``"stderr"`` and each piece of output.
            avoid: ids of leases whose machines it is rather not run on, if there is another one.

        Returns:
            The result. It costs what its machine has since the end of the job before it: the first
            one bears boot and set-up. ``timings.acquire`` is the time in the queue.

        Raises:
            PoolFull: too many wait already.
            PoolTimeout: no machine became free in time.
            AcquireError: there is none to be had; the error carries the decision record.
            MachineLost: the machine went away under the job.
            InvalidValue: its time-out is more than a machine of the pool may work.
            SecretsRefused, OSError, SetupFailed: as on a lease.
        """
        job = Job.of(job)
        left, shunned = job.retries, frozenset(avoid)
        while True:
            result: Result | None = None
            needs = 0.0 if job.timeout is None else job.timeout + _GRACE
            async with self._use(needs, shunned) as (member, waited):
                try:
                    result = await self._run(member, job, on_output, waited)
                except MachineLost:
                    if not left:
                        raise
                    left, shunned = left - 1, shunned | {member.id}
                except (LeaseReleased, StaleOwner):
                    shunned |= {member.id}  # it went before the job began
            if result is not None:
                await self._serving.looked()
                return result

    @asynccontextmanager
    async def machine(self) -> AsyncGenerator[AsyncPoolMachine]:
        """Borrow a machine of the pool, for several jobs or for its service.

        Raises:
            PoolFull, PoolTimeout, AcquireError, SetupFailed: there is none, as from `run`.
        """
        async with self._use(0.0, frozenset()) as (member, _):
            assert member.lease is not None
            async with member.lease.in_use(f"borrowed from {self.name}"):
                machine = AsyncPoolMachine(member, self._serving.now)
                try:
                    yield machine
                finally:
                    machine.given_back = True
        await self._serving.looked()

    async def status(self) -> PoolStatus:
        """How it is now."""
        return await self._serving.status()

    async def _run(
        self, member: Member, job: Job, on_output: OutputCallback | None, waited: float
    ) -> Result:
        """Run a job on a machine in hand; one on which it may still run is used no more."""
        result = await on_member(member, job, on_output, self._serving.now)
        setup = result.timings.setup if member.jobs == 1 else 0.0
        return replace(result, timings=replace(result.timings, acquire=waited, setup=setup))

    @asynccontextmanager
    async def _use(
        self, needs: float, avoid: frozenset[str]
    ) -> AsyncGenerator[tuple[Member, float]]:
        """Somebody's turn on a machine, and the seconds that it was waited for."""
        serving = self._serving
        began = anyio.current_time()
        waiter = Waiter(Waiting(serving.now(), needs, avoid))
        serving.check(waiter)
        serving.queue.append(waiter)
        serving.look()
        jobs = 0
        try:
            with anyio.move_on_after(serving.terms.wait):
                await waiter.served.wait()
            if waiter.error is not None:
                raise waiter.error
            if waiter.member is None:
                raise PoolTimeout(
                    f"no machine of pool {self.name} became free within {serving.terms.wait:g} s"
                )
            jobs = waiter.member.jobs
            yield waiter.member, anyio.current_time() - began
        finally:
            if waiter in serving.queue:
                serving.queue.remove(waiter)
            if waiter.member is not None:
                serving.give_back(waiter.member, worked=waiter.member.jobs > jobs)


class AsyncPoolMachine:
    """A machine that was borrowed from a pool, from `AsyncPool.machine`.

    Attributes:
        given_back: its borrowing is over; it takes no more jobs.
    """

    def __init__(self, member: Member, now: Callable[[], float]) -> None:
        assert member.lease is not None
        self._member = member
        self._now = now
        self._lease = member.lease
        self._charged = member.lease.charged
        self.given_back = False

    @property
    def lease(self) -> AsyncLease:
        """The lease that it is held by. The pool gives it up."""
        return self._lease

    @property
    def url(self) -> str:
        """Where the pool's service on it is reached here; empty where the pool has none."""
        return "" if self._member.server is None else self._member.server.url

    @property
    def log(self) -> str:
        """The end of what the service has printed. Not trusted."""
        return "" if self._member.server is None else self._member.server.log()

    @property
    def cost(self) -> Money:
        """USD that the machine has cost since its last use before this one."""
        return max(ZERO, self._lease.cost - self._charged, key=lambda money: money.amount)

    async def run(
        self, job: Job | str | Sequence[str], *, on_output: OutputCallback | None = None
    ) -> Result:
        """Run a job on it, as `AsyncLease.run` does, while it is borrowed."""
        if self.given_back:
            raise LeaseReleased(self._lease.id, "it was given back to the pool")
        return await on_member(self._member, Job.of(job), on_output, self._now)

    def discard(self, reason: str) -> None:
        """Have it given up, instead of used again, once it has been given back."""
        self._member.wrong = self._member.wrong or reason
