"""The broker for asynchronous code: opens the parts, closes them, and runs jobs with them.

Loading this module loads nothing of what it works with: making a broker does, and what only some
programs use, such as pools, is loaded where it is first asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import anyio
from anyio import AsyncContextManagerMixin

from gpubroker.errors import BrokerClosed, InvalidValue, JobError, StaleOwner
from gpubroker.model.costs import Costs, CostsBy
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseRow, LedgerEvent, OnOwnerDeath, ReleaseState
from gpubroker.model.money import Money, parse_money
from gpubroker.model.requirements import Requirements, alternatives

if TYPE_CHECKING:
    from gpubroker.lifecycle.leasing.lease import AsyncLease
    from gpubroker.lifecycle.parts import Parts
    from gpubroker.lifecycle.pooling.pool import AsyncPool
    from gpubroker.lifecycle.pooling.terms import Activity, Health
    from gpubroker.lifecycle.reaping.lost_ledger import Search
    from gpubroker.lifecycle.reaping.reap import Reaper, Swept
    from gpubroker.lifecycle.releasing.supervise import Supervisor
    from gpubroker.lifecycle.renting.acquire import Wish
    from gpubroker.lifecycle.standing import ProviderStatus
    from gpubroker.model.batches import Template
    from gpubroker.model.decisions import DecisionRecord
    from gpubroker.model.events import Event
    from gpubroker.model.results import Result
    from gpubroker.model.services import Service
    from gpubroker.plugins import Deadlines, Plugin
    from gpubroker.policy.budget import Budget, Limits
    from gpubroker.policy.keep_warm import KeepWarm
    from gpubroker.policy.policy import Policy
    from gpubroker.policy.pool import Hours
    from gpubroker.settings import Settings
    from gpubroker.transport.job_io import OutputCallback


class AsyncBroker(AsyncContextManagerMixin):
    """Rents the cheapest machine that can do the job, runs it, and gives the machine up.

    Use it as an async context manager, on asyncio or trio::

        async with AsyncBroker() as broker:
            result = await broker.run(["nvidia-smi"], Requirements(gpu="RTX 4090"))

    Args:
        settings: settings read by `gpubroker.load_settings`; read from the environment and
            ``gpubroker.toml`` where left out.
        ledger: the ledger file, a URL of PostgreSQL, or ``":memory:"``.
        budget: limits on money; a single amount is the limit per job. Replaces the settings'.
        plugins: the providers to use instead of the installed ones.
        on_event: called with every `Event`, in the event loop; it must not block.
        now: reads the wall clock, in Unix seconds.
        seed: makes ids, marks and jitter repeatable. For tests only.
        deadlines: how long each provider hook may take.
        release_wait: seconds that leaving a lease waits for the destroy to be acknowledged.
        close_wait: seconds that closing waits for everything to be proven gone.
        sweep: look for leaked machines at the start and every 30 s while leases are open.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        ledger: str | Path | None = None,
        budget: Budget | Money | float | str | None = None,
        plugins: Iterable[Plugin] | None = None,
        on_event: Callable[[Event], None] | None = None,
        now: Callable[[], float] = time.time,
        seed: int | None = None,
        deadlines: Deadlines | None = None,
        release_wait: float = 60.0,
        close_wait: float = 60.0,
        sweep: bool = True,
    ) -> None:
        # What gives a machine up is in memory before there is one: that must not depend on what
        # can still be read from a disk. Workers forked from here share it.
        import_module("gpubroker.lifecycle.opening")
        from gpubroker.plugins import Deadlines
        from gpubroker.settings import in_force

        self.settings = in_force(settings, ledger=ledger, budget=budget)
        self._plugins = None if plugins is None else list(plugins)
        self._on_event = on_event
        self._now = now
        self._seed = seed
        self._deadlines = deadlines or Deadlines()
        self._release_wait = release_wait
        self._close_wait = close_wait
        self._alert_wait = 10.0
        self._sweep = sweep
        self._open: tuple[Parts, Supervisor, Reaper] | None = None

    # ---- opening and closing --------------------------------------------------------------

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        from gpubroker.lifecycle.alerts import alerting
        from gpubroker.lifecycle.opening import set_to_work

        async with AsyncExitStack() as stack:
            parts = await self._open_parts(stack)
            if self._on_event is not None:
                parts.listeners.append(self._on_event)
            problem: BaseException | None = None
            try:
                async with (
                    alerting(parts, self.settings.alerts, lambda: self._alert_wait),
                    anyio.create_task_group() as tasks,
                ):
                    supervisor, reaper = set_to_work(parts, tasks, sweep=self._sweep)
                    self._open = (parts, supervisor, reaper)
                    try:
                        yield self
                    except BaseException as error:  # noqa: BLE001 - raised again below
                        # Not through the task group, which would wrap it into a group.
                        problem = error
                    finally:
                        supervisor.close(self._close_wait, reaper.finish)
            finally:
                self._open = None
                if problem is not None:
                    raise problem

    def hurry(self, seconds: float) -> None:
        """Have closing wait no longer than this for proof. Called where a program exits."""
        self._close_wait = min(self._close_wait, seconds)
        self._alert_wait = min(self._alert_wait, seconds)

    async def _open_parts(self, stack: AsyncExitStack) -> Parts:
        """What this broker works with. A simulation puts parts of its own in their place."""
        from gpubroker.lifecycle.opening import open_parts

        return await open_parts(
            stack,
            self.settings,
            self._plugins,
            deadlines=self._deadlines,
            now=self._now,
            seed=self._seed,
        )

    def _parts(self) -> Parts:
        return self._opened()[0]

    def _opened(self) -> tuple[Parts, Supervisor, Reaper]:
        if self._open is None:
            raise BrokerClosed("the broker is not open: use it as `async with AsyncBroker() as …`")
        if not self._open[0].identity.here:
            raise BrokerClosed("this broker belongs to the process before the fork; open a new one")
        return self._open

    # ---- the main job ---------------------------------------------------------------------

    async def quote(
        self,
        requirements: Requirements | Sequence[Requirements] | None = None,
        *,
        policy: Policy | None = None,
        budget: Money | float | str | None = None,
    ) -> DecisionRecord:
        """What would be rented now, and why not the rest. Rents nothing, writes nothing.

        Returns:
            A record without attempts: every offer with its rank or the reason against it.
        """
        from gpubroker.lifecycle.renting.acquire import look

        parts = self._parts()
        wish = self._wish(requirements, policy=policy, budget=budget)
        return await look(parts, wish)

    @asynccontextmanager
    async def lease(
        self,
        requirements: Requirements | Sequence[Requirements] | None = None,
        *,
        policy: Policy | None = None,
        budget: Money | float | str | None = None,
        lifetime: float | None = None,
        tags: Sequence[str] = (),
        secrets: bool = False,
        on_owner_death: OnOwnerDeath = "release",
    ) -> AsyncGenerator[AsyncLease]:
        """A machine in hand, for several jobs; leaving the block gives it up.

        Args:
            requirements: what machine; any will do where left out. Several are alternatives: the
                second is looked at when nothing does for the first, and so on.
            policy: how a machine is chosen, and what follows a failure; the settings' own where
                left out.
            budget: USD that this may cost at the most, failed attempts included.
            lifetime: seconds that the machine may live, whatever happens. One hour where left
                out; less where `budget` does not pay for that.
            tags: names to find it and its cost by.
            secrets: jobs with secrets will run on it, so only a machine whose identity is proven
                will do.
            on_owner_death: what whoever finds it does when this process has died: release it, or,
                with ``"adopt"``, go on with the job that runs on it, put its outputs and what it
                prints into the job's ``output_dir``, and release it then.

        Raises:
            AcquireError: there is no machine; the error carries the decision record.
            SetupFailed: the set-up script failed.
            LedgerError: the durable record cannot be used. Nothing was rented.
        """
        wish = self._wish(
            requirements,
            policy=policy,
            budget=budget,
            lifetime=lifetime,
            tags=tags,
            secrets=secrets,
            reached=True,
            on_owner_death=on_owner_death,
        )
        async with self._lease(wish) as lease:
            yield lease

    async def run(
        self,
        job: Job | str | Sequence[str],
        requirements: Requirements | Sequence[Requirements] | None = None,
        *,
        policy: Policy | None = None,
        budget: Money | float | str | None = None,
        lifetime: float | None = None,
        on_owner_death: OnOwnerDeath = "release",
        on_output: OutputCallback | None = None,
    ) -> Result:
        """Rent a machine, run one job, bring its outputs back, and give the machine up.

        Args:
            job: a `Job`, the words of a command, or a script.
            on_output: called with ``"stdout"`` or ``"stderr"`` and each piece of output; set-up's
                output comes as ``"stderr"``.

        The other arguments, and the errors, are those of `lease`.

        Returns:
            The result, once it is safe here and the destroy is acknowledged. A job that failed is
            a result too; ``result.check()`` raises for it.

        Raises:
            MachineLost: the machine went away under the job, more often than the job's
                ``retries`` allow.
        """
        from gpubroker.model.results import JobState
        from gpubroker.policy.handover import can_be_handed_over

        job = Job.of(job)
        wish = self._wish(
            requirements,
            policy=policy,
            budget=budget,
            lifetime=lifetime,
            timeout=job.timeout,
            tags=job.tags,
            secrets=bool(job.secrets),
            job=job,
            reached=not can_be_handed_over(job),
            on_owner_death=on_owner_death,
        )
        for left in reversed(range(job.retries + 1)):
            lease: AsyncLease | None = None
            try:
                async with self._lease(wish, on_output) as lease:
                    result = await lease.run(job, on_output=on_output)
            except JobError as error:
                if lease is None:
                    raise
                error.result = lease.final(error.result)
                if not left or error.result.state is not JobState.LOST:
                    raise
                wish = replace(wish, earlier=lease.record)
            else:
                return lease.final(result)
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def pool(
        self,
        requirements: Requirements | Sequence[Requirements] | None = None,
        *,
        name: str = "default",
        policy: Policy | None = None,
        budget: Limits | Money | float | str | None = None,
        keep_warm: KeepWarm | None = None,
        min_warm: int = 0,
        max_machines: int = 1,
        jobs_per_machine: int = 1,
        queue: int = 100,
        wait: float = 600.0,
        lifetime: float = 12 * 3600.0,
        schedule: Hours | None = None,
        service: Service | None = None,
        health: Health | None = None,
        activity: Activity = "jobs",
        tags: Sequence[str] = (),
        secrets: bool = False,
    ) -> AsyncGenerator[AsyncPool]:
        """Machines that are kept warm while that pays; leaving the block gives them up.

        Processes that open a pool of the same name on one ledger share it: together they have no
        more than `max_machines`, and on one host each takes what another has left idle. A machine
        whose process has died is there for the others until its idle limit is over.

        Of a machine's life no more than half an hour's money is reserved ahead of time. Its
        reservation is renewed, under every limit, before it ends; where a limit does not allow
        that, the machine takes no more work.

        Args:
            requirements: what machines; several are alternatives.
            name: the pool's. Its costs are found by the tag ``pool:NAME``.
            budget: `Limits` of the pool as a whole; or USD that each machine may cost.
            keep_warm: the rule for how long an idle machine is kept; `learnt` where left out.
            min_warm: machines that are kept warm whatever that rule says, within `schedule`.
            max_machines: machines at a time, of all processes.
            jobs_per_machine: jobs at a time on each.
            queue: how many may wait for a machine. wait: seconds that each of them may.
            lifetime: seconds that a machine may live. It takes no new work for the last quarter of
                an hour, or for the last tenth of a shorter life.
            schedule: when machines may be warm; outside, jobs still run, each on a machine that is
                given up when nobody uses it any more.
            service: a server that is started on each machine before its first use.
            health: a command, or a function of the lease, that an idle machine is asked once a
                minute; one that is not well is given up.
            activity: what an idle time begins with: ``"jobs"``: the last job, or the end of a
                borrowing without any; ``"use"``: the end of any borrowing; or a function of the
                lease that gives the Unix time of its last activity.
            tags: more names to find its costs by.

        The other arguments are those of `lease`.

        Raises:
            InvalidValue: an argument makes no sense, or this broker has a pool of that name.
        """
        from gpubroker.lifecycle.pooling.pool import AsyncPool
        from gpubroker.lifecycle.pooling.serving import Serving
        from gpubroker.lifecycle.pooling.sharing import fingerprint
        from gpubroker.lifecycle.pooling.terms import PoolTerms
        from gpubroker.model.pools import PoolShare
        from gpubroker.policy.budget import Limits
        from gpubroker.policy.keep_warm import learnt
        from gpubroker.policy.pool import HORIZON, PoolRules

        parts, supervisor, reaper = self._opened()
        rules = PoolRules(
            min_warm=min_warm,
            max_machines=max_machines,
            jobs_per_machine=jobs_per_machine,
            schedule=schedule,
            lifetime=lifetime,
        )
        each = None if isinstance(budget, Limits) else budget
        wish = self._wish(
            requirements,
            policy=policy,
            budget=each,
            lifetime=min(HORIZON, lifetime),
            tags=(*tags, f"pool:{name}"),
            secrets=secrets,
            reached=True,
            limited=budget is not None,
        )
        share = PoolShare(
            name=name,
            machines=max_machines,
            lifetime=lifetime,
            wanted=fingerprint(wish.wanted, (service, secrets)),
        )
        terms = PoolTerms(
            wish=replace(wish, share=share),
            share=share,
            rules=rules,
            keep_warm=learnt() if keep_warm is None else keep_warm,
            queue=queue,
            wait=wait,
            service=service,
            health=health,
            activity=activity,
        )
        serving = Serving(parts, supervisor, terms, self._release_wait)
        own = budget if isinstance(budget, Limits) else None
        with parts.pool(name, own):
            try:
                async with serving.open():
                    yield AsyncPool(serving)
            finally:
                if own is not None:
                    # Once the pool is closed nobody here knows its limits any more.
                    with anyio.CancelScope(shield=True), suppress(BrokerClosed):
                        await reaper.spending.look()

    async def map(
        self,
        template: Template,
        inputs: Iterable[Any],
        requirements: Requirements | Sequence[Requirements] | None = None,
        *,
        name: str = "",
        machines: int = 1,
        jobs_per_machine: int = 1,
        retries: int = 1,
        policy: Policy | None = None,
        budget: Limits | Money | float | str | None = None,
        lifetime: float = 12 * 3600.0,
        tags: Sequence[str] = (),
        secrets: bool = False,
    ) -> AsyncGenerator[tuple[int, Result]]:
        """Run one job for each input on a few machines; the results come as they complete.

        Use it with ``async for index, result in broker.map(…)``. Leaving the loop early ends what
        runs. Under a `name`, finished items are on record: run again under the same name, as after
        a crash, they are given again and not done again, as long as the job is the same and its
        outputs lie where they were put.

        Args:
            template: makes a job of an input: a function of it; or a job, script or words with
                ``{}`` for the input as text, or ``{n}`` for its number.
            inputs: what there is a job for each of. All are read first.
            machines: machines at a time. jobs_per_machine: jobs at a time on each.
            retries: how often a job that has failed is started again, elsewhere if possible.

        The other arguments are those of `pool`; costs are found by the tag ``pool:NAME``.

        Returns:
            Pairs of an input's number, from 0 on, and its result. A job that failed is a result
            too. Of one that was finished before, no more than 4 KiB of each stream are on record.

        Raises:
            AcquireError, SetupFailed: there are no machines for it.
            InvalidValue: an argument makes no sense.
        """
        from gpubroker.lifecycle.pooling.batch import Batch
        from gpubroker.model.batches import items
        from gpubroker.policy.keep_warm import fixed

        parts, supervisor, _ = self._opened()
        todo = items(template, inputs)

        def open_pool() -> AbstractAsyncContextManager[AsyncPool]:
            return self.pool(
                requirements,
                name=name or parts.new_id("batch"),
                policy=policy,
                budget=budget,
                keep_warm=fixed(0),
                max_machines=machines,
                jobs_per_machine=jobs_per_machine,
                queue=len(todo),
                wait=math.inf,
                lifetime=lifetime,
                tags=tags,
                secrets=secrets,
            )

        width = machines * jobs_per_machine
        batch = Batch(parts, name, todo, open_pool, width=width, retries=retries)
        async with aclosing(batch.results(supervisor)) as results:
            async for done in results:
                yield done

    async def attach(
        self, name: str | None = None, *, on_output: OutputCallback | None = None
    ) -> Result:
        """Go on with a job whose broker has died, deliver its result, and give its machine up.

        For leases that were made with ``on_owner_death="adopt"``, on the computer that made them.

        Args:
            name: of the lease or of the job; may be left out where there is only one.
            on_output: called with all that the job prints, from its first byte on.

        Returns:
            The result, as `run` would have; its files are where the job wanted them.

        Raises:
            InvalidValue: there is no such lease, its owner lives, or it cannot be adopted here.
            StaleOwner: another process was quicker.
            MachineLost: the machine went away under the job.
        """
        from gpubroker.lifecycle.reaping.adoption import CannotAdopt

        reaper = self._opened()[2]
        lease = await self._orphan(name)
        try:
            return await reaper.adopter.attach(lease, self._release_wait, on_output)
        except CannotAdopt as problem:
            raise InvalidValue("lease", lease.id, str(problem)) from problem

    async def _orphan(self, name: str | None) -> LeaseRow:
        """The lease that `attach` means."""
        from gpubroker.policy.sweeping import can_be_adopted

        if name is not None:
            job = await self._parts().ledger(lambda ledger: ledger.job(name))
            return await self._lease_row(name if job is None else job.lease_id)
        now = self._parts().now()
        found = [row for row in await self.leases() if can_be_adopted(row, now)]
        if len(found) != 1:
            named = ", ".join(row.id for row in found) or "there is none"
            raise InvalidValue("lease", "", f"say which lease to attach to: {named}")
        return found[0]

    @asynccontextmanager
    async def _lease(
        self, wish: Wish, on_output: OutputCallback | None = None
    ) -> AsyncGenerator[AsyncLease]:
        from gpubroker.lifecycle.leasing.lease import AsyncLease
        from gpubroker.lifecycle.renting.acquire import Acquisition

        parts, supervisor, _ = self._opened()
        began = anyio.current_time()
        acquisition = Acquisition(parts, supervisor, wish)
        hold, requirements = await acquisition.machine()
        lease = AsyncLease(
            parts,
            supervisor,
            hold,
            requirements=requirements,
            record=acquisition.record,
            acquire_seconds=anyio.current_time() - began,
            release_wait=self._release_wait,
        )
        async with lease:
            await lease.set_up(on_output)
            yield lease

    def _wish(
        self,
        requirements: Requirements | Sequence[Requirements] | None,
        *,
        policy: Policy | None = None,
        budget: Money | float | str | None = None,
        lifetime: float | None = None,
        timeout: float | None = None,
        tags: Sequence[str] = (),
        secrets: bool = False,
        job: Job | None = None,
        reached: bool = False,
        on_owner_death: OnOwnerDeath = "release",
        limited: bool = False,
    ) -> Wish:
        """What is asked for, with the settings for what was left out.

        Args:
            timeout: seconds that the job itself may take.
            job: the only one that the machine is for. reached: there must be a way to it.
            limited: a limit on money holds for it, besides `budget` and those in the settings.
        """
        from gpubroker.lifecycle.renting.acquire import Wish
        from gpubroker.lifecycle.standing import statuses

        if lifetime is not None and not 0 < lifetime < float("inf"):
            raise InvalidValue("lifetime", lifetime, "must be a positive number of seconds")
        if on_owner_death not in get_args(OnOwnerDeath):
            raise InvalidValue("on_owner_death", on_owner_death, "must be release or adopt")
        if on_owner_death == "adopt" and self._parts().files is None:
            problem = "nobody could adopt it: this ledger is no file"
            raise InvalidValue("on_owner_death", on_owner_death, problem)
        wanted = alternatives(requirements)
        setup = max(r.setup.timeout if r.setup is not None else 0.0 for r in wanted)
        limits = self.settings.budget
        standing = statuses(self._parts(), self.settings, limited=limited or budget is not None)
        return Wish(
            wanted=wanted,
            providers=frozenset(status.name for status in standing if status.on),
            off={status.name: status.why for status in standing if not status.on},
            policy=policy or self.settings.policy,
            allowance=limits.job if budget is None else parse_money("budget", budget),
            lifetime=lifetime,
            needed=0.0 if timeout is None else timeout + setup,
            tags=tuple(tags),
            secrets=secrets,
            job=job,
            reached=reached,
            on_owner_death=on_owner_death,
        )

    # ---- what is there --------------------------------------------------------------------

    async def providers(self, *, balances: bool = False) -> list[ProviderStatus]:
        """Every installed provider: taking part, off, or broken, and why.

        Args:
            balances: also ask each that takes part what its account has left.
        """
        from gpubroker.lifecycle.standing import statuses, with_balances

        parts = self._parts()
        found = statuses(parts, self.settings, limited=False)
        return await with_balances(parts, found) if balances else found

    async def leases(self, *, open_only: bool = True) -> list[LeaseRow]:
        """The leases of this ledger, whichever process holds them, the newest first."""
        return await self._parts().ledger(lambda ledger: ledger.leases(open_only=open_only))

    async def events(self, lease_id: str) -> list[LedgerEvent]:
        """Everything on record about one lease, the oldest first."""
        return await self._parts().ledger(lambda ledger: ledger.events(lease_id))

    async def costs(
        self,
        by: CostsBy = "day",
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Costs:
        """What this ledger's leases have cost, and how full the limits are.

        Args:
            by: what to add it up by: ``"day"``, ``"provider"``, ``"tag"`` or ``"job"``.
            since, until: only leases asked for within this half-open interval, Unix seconds.

        Raises:
            InvalidValue: `by` is none of these.
        """
        if by not in get_args(CostsBy):
            raise InvalidValue.unknown("by", by, get_args(CostsBy), noun="sum")
        parts = self._parts()
        now, budget = parts.now(), parts.budget
        return await parts.ledger(
            lambda ledger: ledger.costs(by, budget, since=since, until=until, now=now)
        )

    async def explain(self, lease_id: str | None = None) -> DecisionRecord | None:
        """Why a lease's machine was chosen; of the newest request where no lease is named."""
        if lease_id is None:
            return await self._parts().ledger(lambda ledger: ledger.record())
        lease = await self._parts().ledger(lambda ledger: ledger.lease(lease_id))
        request = lease_id if lease is None else lease.request_id
        return await self._parts().ledger(lambda ledger: ledger.record(request))

    # ---- giving up, and making sure -------------------------------------------------------

    async def release(self, lease_id: str, *, reason: str = "asked for") -> ReleaseState:
        """Give up a lease of this ledger, whichever process holds it. Does not wait for proof.

        When it returns the request is on record: it outlives this process.

        Raises:
            InvalidValue: there is no such lease.
            StaleOwner: it was this broker's until another process took this one for dead.
        """
        _, supervisor, reaper = self._opened()
        if lease_id in supervisor.lost:
            raise StaleOwner(f"lease {lease_id} was taken over by another process")
        hold = supervisor.holds.get(lease_id)
        if hold is not None:
            supervisor.request_release(hold, reason)
            await supervisor.write_request(hold)
            return hold.release_state
        lease = await self._lease_row(lease_id)
        if lease.state.open:
            lease = await reaper.release(lease, reason)
        return lease.release_state

    async def wait_released(self, lease_id: str, *, timeout: float = 60.0) -> ReleaseState:  # noqa: ASYNC109
        """Wait until a lease's machine is proven gone, `timeout` seconds at the most.

        Returns:
            How far it has come by then.

        Raises:
            InvalidValue: there is no such lease.
        """
        _, supervisor, _ = self._opened()
        with anyio.move_on_after(timeout):
            if lease_id in supervisor.holds:
                await supervisor.holds[lease_id].proven()
            while (await self._lease_row(lease_id)).release_state is not ReleaseState.PROVEN:  # noqa: ASYNC110
                await anyio.sleep(0.25)  # another process may be the one that ends it
        return (await self._lease_row(lease_id)).release_state

    async def _lease_row(self, lease_id: str) -> LeaseRow:
        lease = await self._parts().ledger(lambda ledger: ledger.lease(lease_id))
        if lease is None:
            known = [row.id for row in await self.leases()]
            raise InvalidValue.unknown("lease", lease_id, known, noun="lease")
        return lease

    async def sweep(self) -> list[Swept]:
        """Compare every provider's machines with this ledger, and release what nobody holds."""
        return await self._opened()[2].sweep_all()

    async def strays(self) -> Search:
        """Look for machines that carry a mark but are not in this ledger, as after its loss.

        Those whose mark was made with this installation's key are ours, unless another ledger with
        the same key is in use; the others may be anybody's.
        """
        from gpubroker.lifecycle.reaping.lost_ledger import search

        return await search(self._parts())

    async def adopt(self, provider: str, machine_id: str, *, unverified: bool = False) -> LeaseRow:
        """Take a machine that carries our mark, but has no row here, and release it.

        Args:
            unverified: also if its mark does not prove that it is ours.

        Raises:
            InvalidValue: the provider lists no such machine, or it may be somebody else's.
        """
        from gpubroker.lifecycle.reaping.lost_ledger import adopt

        parts, _, reaper = self._opened()
        return await adopt(parts, reaper, provider, machine_id, unverified=unverified)

    async def verify(self) -> list[str]:
        """Replay the ledger against its own rules; returns what does not hold, one line each."""
        from gpubroker.ledger.verify import violations

        return await self._parts().ledger(
            lambda ledger: [
                *ledger.damage(),
                *violations(ledger.leases(open_only=False), ledger.events()),
            ]
        )
