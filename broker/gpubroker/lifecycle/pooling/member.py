"""One machine of a pool in this process's hands, and who waits for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio

from gpubroker.errors import LeaseReleased, MachineLost, SecretsRefused, StaleOwner
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.leasing.lease import AsyncLease
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseState
from gpubroker.model.results import JobState, Result
from gpubroker.policy.pool import MachineView, PoolRules, Standing, Waiting
from gpubroker.transport.job_io import OutputCallback

if TYPE_CHECKING:
    from gpubroker.lifecycle.leasing.service import AsyncServer

#: After these nothing of the job runs any more.
_ENDED: Final = (JobState.EXITED, JobState.TIMED_OUT, JobState.NOT_STARTED)


class Member:
    """One machine, from the request for it until it is given up.

    Attributes:
        id: of its lease; a name of its own until there is one.
        lease: ``None`` while it is asked for. hold: the same lease, for the pool.
        server: the service that runs on it, where the pool has one.
        standing: where it is. uses: jobs and borrowers that it has at the moment.
        since: Unix time at which it became idle. last_job: at which its last job ended.
        jobs: how many have run on it here.
        wrong: why it is to be given up once nobody uses it.
        taken: it was another process's.
        came_up: it has been ready for work. useful: somebody has used it.
        over: set when it is given up, or another process's.
    """

    def __init__(self, name: str, *, taken: bool = False) -> None:
        self.id = name
        self.taken = taken
        self.lease: AsyncLease | None = None
        self.hold: Hold | None = None
        self.server: AsyncServer | None = None
        self.standing = Standing.BOOTING
        self.uses = 0
        self.since = 0.0
        self.last_job = 0.0
        self.jobs = 0
        self.useful = False
        self.wrong = ""
        self.came_up = False
        self.over = anyio.Event()

    def __repr__(self) -> str:
        return f"<Member {self.id}: {self.standing}>"

    def got(self, lease: AsyncLease, hold: Hold) -> None:
        """There is a lease for it."""
        self.id, self.lease, self.hold = hold.row.id, lease, hold

    def ready(self, at: float) -> None:
        """It may be given work from Unix time `at` on."""
        self.standing, self.since, self.came_up = Standing.FREE, at, True

    def leave(self, reason: str) -> None:
        """Give it up. Does not await."""
        self.standing = Standing.LEAVING
        self.over.set()
        if self.lease is not None:
            self.lease.release(reason)

    def view(self, rules: PoolRules) -> MachineView:
        """As decisions see it."""
        if self.hold is None:
            return MachineView(id=self.id, standing=self.standing, taken=self.taken)
        row = self.hold.row
        parked = self.standing is Standing.PARKED
        return MachineView(
            id=self.id,
            standing=self.standing,
            uses=self.uses,
            since=self.since,
            idle_until=row.idle_until if parked else None,
            retires_at=min(row.created_at + rules.working_life, self.hold.life_ends),
            ends_at=self.hold.life_ends,
            wrong=self.wrong or self.hold.drain_reason,
            taken=self.taken,
            fresh=self.standing is Standing.FREE and row.state is LeaseState.READY,
        )


class Waiter:
    """Somebody in the queue of a pool.

    Attributes:
        asks: since when, and for what.
        member: what it got. error: why it gets nothing.
        served: set once one of them is there.
    """

    def __init__(self, asks: Waiting) -> None:
        self.asks = asks
        self.member: Member | None = None
        self.error: Exception | None = None
        self.served = anyio.Event()

    def serve(self, member: Member) -> None:
        """Give it a machine."""
        member.uses += 1
        member.standing = Standing.BUSY
        self.member = member
        self.served.set()

    def refuse(self, error: Exception) -> None:
        """Give it nothing."""
        self.error = error
        self.served.set()


async def on_member(
    member: Member, job: Job, on_output: OutputCallback | None, now: Callable[[], float]
) -> Result:
    """Run a job on a machine in hand; one on which it may still run is used no more.

    Raises:
        LeaseReleased, StaleOwner: it went before the job began.
        MachineLost, SecretsRefused, OSError: as on a lease.
    """
    assert member.lease is not None
    assert member.hold is not None
    wrong = "a job was left on it"
    try:
        result = await member.lease.run(job, on_output=on_output)
        if result.state not in _ENDED:
            wrong = str(result.state)
        elif not member.hold.unended:
            wrong = ""
        return result
    except (LeaseReleased, StaleOwner, MachineLost) as gone:
        wrong = str(gone)
        raise
    except SecretsRefused:
        wrong = ""
        raise
    finally:
        member.jobs += 1
        member.last_job = now()
        member.wrong = member.wrong or wrong
