"""The broker for synchronous code: the same names and signatures, over a portal.

An event loop in a thread of its own does the work, so that this works in any thread, under
pre-fork servers, and inside a running event loop (which it blocks, as any synchronous call does).
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    contextmanager,
    nullcontext,
    suppress,
)
from inspect import cleandoc
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from gpubroker.broker import AsyncBroker
from gpubroker.errors import BrokerClosed, ServiceFailed
from gpubroker.model.jobs import Job

if TYPE_CHECKING:
    from gpubroker.lifecycle.leasing.lease import AsyncLease
    from gpubroker.lifecycle.leasing.service import AsyncServer
    from gpubroker.lifecycle.pooling.pool import AsyncPool, AsyncPoolMachine
    from gpubroker.lifecycle.pooling.terms import Activity, Health
    from gpubroker.lifecycle.reaping.lost_ledger import Search
    from gpubroker.lifecycle.reaping.reap import Swept
    from gpubroker.lifecycle.standing import ProviderStatus
    from gpubroker.model.batches import Template
    from gpubroker.model.costs import Costs, CostsBy
    from gpubroker.model.decisions import DecisionRecord
    from gpubroker.model.events import Event
    from gpubroker.model.leases import LeaseRow, LedgerEvent, OnOwnerDeath, ReleaseState
    from gpubroker.model.money import Money
    from gpubroker.model.pools import PoolStatus
    from gpubroker.model.requirements import Requirements
    from gpubroker.model.results import HostIdentity, Result
    from gpubroker.model.services import Service
    from gpubroker.plugins import Deadlines, Plugin
    from gpubroker.policy.budget import Budget, Limits
    from gpubroker.policy.keep_warm import KeepWarm
    from gpubroker.policy.policy import Policy
    from gpubroker.policy.pool import Hours
    from gpubroker.settings import Settings
    from gpubroker.transport.job_io import OutputCallback

P = ParamSpec("P")
T = TypeVar("T")


def call_in_progress() -> AbstractContextManager[None]:
    """Says, inside the event loop, that a synchronous caller waits for it.

    A loop in virtual time has a method of this name, and moves its clock only meanwhile.
    """
    loop = asyncio.get_running_loop()
    said: Callable[[], AbstractContextManager[None]] = getattr(
        loop, "call_in_progress", nullcontext
    )
    return said()


@contextmanager
def within(portal: BlockingPortal, context: AbstractAsyncContextManager[T]) -> Generator[T]:
    """Stay in an async context manager while a ``with`` block runs.

    It is entered and left in one task of the portal. An interrupt while it is being entered
    cancels that, and waits until it has undone what it did.
    """
    entered: Future[tuple[T, anyio.Event]] = Future()
    ended = threading.Event()
    left_by: list[BaseException] = []

    async def stay() -> None:
        try:
            with call_in_progress():
                value = await context.__aenter__()
                leave = anyio.Event()
                entered.set_result((value, leave))
            try:
                await leave.wait()
            except BaseException as ended_early:
                # The broker is closed, and the block is still open.
                await context.__aexit__(type(ended_early), ended_early, ended_early.__traceback__)
                raise
            error = left_by[0] if left_by else None
            with call_in_progress():
                await context.__aexit__(
                    type(error) if error else None, error, error.__traceback__ if error else None
                )
        finally:
            ended.set()

    def failed(task: Future[None]) -> None:
        if not entered.done():
            problem = None if task.cancelled() else task.exception()
            entered.set_exception(problem or BrokerClosed("it was cancelled while being entered"))

    task = portal.start_task_soon(stay)
    task.add_done_callback(failed)
    try:
        value, leave = entered.result()
    except BaseException:
        task.cancel()
        ended.wait()
        raise
    try:
        yield value
    except BaseException as error:
        left_by.append(error)
        raise
    finally:
        if not ended.is_set():  # the broker was closed first
            portal.call(leave.set)
            task.result()


def _as_it_is(job: Any) -> Any:
    """A template of jobs that are made already."""
    return job


#: Held fast: one that nobody else holds any more, since an interrupt came as it was opened, say, has
#: to be closed in order all the same.
_open_brokers: set[Broker] = set()


class Server:
    """A server that runs on a machine, from `Lease.service`."""

    def __init__(self, server: AsyncServer, call: Callable[..., Any]) -> None:
        self._server = server
        self._call = call

    def __repr__(self) -> str:
        return repr(self._server).replace("AsyncServer", "Server", 1)

    @property
    def url(self) -> str:
        """Where it is reached here: ``http://127.0.0.1:PORT``; the same as long as it runs."""
        return self._server.url

    @property
    def port(self) -> int:
        """The TCP port that it listens on, on the machine."""
        return self._server.port

    @property
    def failure(self) -> ServiceFailed | None:
        """Why it is of no use any more; ``None`` while it is well, as far as is known."""
        return self._server.failure

    def log(self, tail: int = 64 * 1024) -> str:
        """As `AsyncServer.log`."""
        return self._server.log(tail)

    def check(self) -> None:
        """As `AsyncServer.check`."""
        self._call(self._server.check)

    def wait_failed(self) -> ServiceFailed:
        """As `AsyncServer.wait_failed`."""
        failure: ServiceFailed = self.failure or self._call(self._server.wait_failed)
        return failure


class Lease:
    """A machine in hand, from `Broker.lease`. Leaving its ``with`` block gives it up.

    It may be used from any thread; jobs run one at a time.
    """

    def __init__(self, lease: AsyncLease, call: Callable[..., Any], portal: BlockingPortal) -> None:
        self._lease = lease
        self._call = call
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._lease).replace("AsyncLease", "Lease", 1)

    @property
    def id(self) -> str:
        """The lease's id in the ledger."""
        return self._lease.id

    @property
    def provider(self) -> str:
        """Who rents the machine out."""
        return self._lease.provider

    @property
    def machine(self) -> str:
        """What it is, such as ``2x RTX 4090``."""
        return self._lease.machine

    @property
    def record(self) -> DecisionRecord:
        """Why this machine was chosen, and what else was tried."""
        return self._lease.record

    @property
    def deadline(self) -> float:
        """Unix time at which the machine is given up, whatever runs on it."""
        return self._lease.deadline

    @property
    def cost(self) -> Money:
        """USD that it has cost so far."""
        return self._lease.cost

    @property
    def release_state(self) -> ReleaseState:
        """How far giving it up has come."""
        return self._lease.release_state

    def run(
        self, job: Job | str | Sequence[str], *, on_output: OutputCallback | None = None
    ) -> Result:
        """As `AsyncLease.run`. `on_output` is called in the broker's thread."""
        result: Result = self._call(self._lease.run, job, on_output=on_output)
        return result

    @property
    def host_identity(self) -> HostIdentity | None:
        """How the machine's identity was made sure of; ``None`` without SSH."""
        return self._lease.host_identity

    @contextmanager
    def tunnel(
        self, port: int, *, path: str | None = "/", timeout: float = 120.0
    ) -> Generator[str]:
        """As `AsyncLease.tunnel`."""
        with within(self._portal, self._lease.tunnel(port, path=path, timeout=timeout)) as url:
            yield url

    @contextmanager
    def service(self, service: Service) -> Generator[Server]:
        """As `AsyncLease.service`."""
        with within(self._portal, self._lease.service(service)) as server:
            yield Server(server, self._call)

    def release(self, reason: str = "asked for") -> None:
        """As `AsyncLease.release`."""

        async def release() -> None:
            self._lease.release(reason)

        self._call(release)


class PoolMachine:
    """A machine that was borrowed from a pool, from `Pool.machine`."""

    def __init__(
        self, machine: AsyncPoolMachine, call: Callable[..., Any], portal: BlockingPortal
    ) -> None:
        self._machine = machine
        self._call = call
        self._portal = portal

    @property
    def lease(self) -> Lease:
        """The lease that it is held by. The pool gives it up."""
        return Lease(self._machine.lease, self._call, self._portal)

    @property
    def url(self) -> str:
        """Where the pool's service on it is reached here; empty where the pool has none."""
        return self._machine.url

    @property
    def log(self) -> str:
        """The end of what the service has printed. Not trusted."""
        return self._machine.log

    @property
    def cost(self) -> Money:
        """USD that the machine has cost since its last use before this one."""
        return self._machine.cost

    def run(
        self, job: Job | str | Sequence[str], *, on_output: OutputCallback | None = None
    ) -> Result:
        """As `AsyncPoolMachine.run`. `on_output` is called in the broker's thread."""
        result: Result = self._call(self._machine.run, job, on_output=on_output)
        return result

    def discard(self, reason: str) -> None:
        """As `AsyncPoolMachine.discard`."""
        self._machine.discard(reason)


class Pool:
    """Machines that are kept warm while that pays, from `Broker.pool`.

    It may be used from any thread. Leaving its ``with`` block gives its machines up.
    """

    def __init__(self, pool: AsyncPool, call: Callable[..., Any], portal: BlockingPortal) -> None:
        self._pool = pool
        self._call = call
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._pool).replace("AsyncPool", "Pool", 1)

    @property
    def name(self) -> str:
        """What processes that share it call it."""
        return self._pool.name

    def run(
        self,
        job: Job | str | Sequence[str],
        *,
        on_output: OutputCallback | None = None,
        avoid: Collection[str] = (),
    ) -> Result:
        """As `AsyncPool.run`. `on_output` is called in the broker's thread."""
        result: Result = self._call(self._pool.run, job, on_output=on_output, avoid=avoid)
        return result

    @contextmanager
    def machine(self) -> Generator[PoolMachine]:
        """As `AsyncPool.machine`."""
        with within(self._portal, self._pool.machine()) as machine:
            yield PoolMachine(machine, self._call, self._portal)

    def status(self) -> PoolStatus:
        """As `AsyncPool.status`."""
        status: PoolStatus = self._call(self._pool.status)
        return status


class Broker:
    """Rents the cheapest machine that can do the job, runs it, and gives the machine up.

    Use it as a context manager, or keep one for the life of an app: it opens itself at the first
    call, and closes with the interpreter at the latest::

        with Broker() as broker:
            result = broker.run(["nvidia-smi"], Requirements(gpu="RTX 4090"))

    It may be shared by threads. Make it before a fork or after, but open it after: an open one
    belongs to the process that opened it. The arguments are those of `AsyncBroker`; callbacks are
    called in the broker's thread.
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
        self._broker = AsyncBroker(
            settings=settings,
            ledger=ledger,
            budget=budget,
            plugins=plugins,
            on_event=on_event,
            now=now,
            seed=seed,
            deadlines=deadlines,
            release_wait=release_wait,
            close_wait=close_wait,
            sweep=sweep,
        )
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._contexts: list[AbstractContextManager[Any]] = []
        self._pid: int | None = None
        self._closed = False

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._broker.settings

    # ---- opening and closing --------------------------------------------------------------

    def open(self) -> Self:
        """Open it now instead of at the first call. Opening an open broker does nothing.

        Raises:
            BrokerClosed: it was closed, or opened by the process before a fork.
            LedgerError: the durable record cannot be used.
        """
        if self._pid not in (None, os.getpid()):
            raise BrokerClosed(
                "this broker was opened before the process forked; make a new one in each child"
            )
        with self._lock:
            if self._closed:
                raise BrokerClosed("the broker is closed; make a new one")
            if self._portal is None:
                self._open()
        return self

    def _open(self) -> None:
        portal_context = self._start_portal()
        portal = portal_context.__enter__()
        broker_context = within(portal, self._broker)
        try:
            broker_context.__enter__()
        except BaseException:
            portal_context.__exit__(None, None, None)
            raise
        self._contexts = [broker_context, portal_context]
        self._portal, self._pid = portal, os.getpid()
        _open_brokers.add(self)

    def _start_portal(self) -> AbstractContextManager[BlockingPortal]:
        """The event loop that this broker works in. Tests in virtual time put theirs in its place."""
        return start_blocking_portal("asyncio", name="gpubroker")

    def close(self, patience: float | None = None) -> None:
        """Give up everything held, wait until it is proven gone, and close. Again does nothing.

        Args:
            patience: seconds to wait for the proof at the most, where that is less than the
                broker's ``close_wait``.
        """
        with self._lock:
            self._closed = True
            if self._portal is None or self._pid != os.getpid():
                return
            if patience is not None:
                self._broker.hurry(patience)
            portal, self._portal = self._portal, None
            contexts, self._contexts = self._contexts, []
            _open_brokers.discard(self)
            try:
                contexts[0].__exit__(None, None, None)
            finally:
                # Whoever never left the block of a lease must not be waited for.
                portal.call(portal.stop, True)
                contexts[1].__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Carry out `function` in the broker's loop. An interrupt here cancels it there."""
        self.open()
        portal = self._portal
        if portal is None:
            raise BrokerClosed("the broker is closed; make a new one")

        async def call() -> T:
            with call_in_progress():
                return await function(*args, **kwargs)

        future = portal.start_task_soon(call)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    # ---- the main job ---------------------------------------------------------------------

    def quote(
        self,
        requirements: Requirements | Sequence[Requirements] | None = None,
        *,
        policy: Policy | None = None,
        budget: Money | float | str | None = None,
    ) -> DecisionRecord:
        """As `AsyncBroker.quote`."""
        return self._call(self._broker.quote, requirements, policy=policy, budget=budget)

    @contextmanager
    def lease(
        self,
        requirements: Requirements | Sequence[Requirements] | None = None,
        *,
        policy: Policy | None = None,
        budget: Money | float | str | None = None,
        lifetime: float | None = None,
        tags: Sequence[str] = (),
        secrets: bool = False,
        on_owner_death: OnOwnerDeath = "release",
    ) -> Generator[Lease]:
        """As `AsyncBroker.lease`."""
        self.open()
        assert self._portal is not None
        leasing = self._broker.lease(
            requirements,
            policy=policy,
            budget=budget,
            lifetime=lifetime,
            tags=tags,
            secrets=secrets,
            on_owner_death=on_owner_death,
        )
        with within(self._portal, leasing) as lease:
            yield Lease(lease, self._call, self._portal)

    def run(
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
        """As `AsyncBroker.run`."""
        return self._call(
            self._broker.run,
            job,
            requirements,
            policy=policy,
            budget=budget,
            lifetime=lifetime,
            on_owner_death=on_owner_death,
            on_output=on_output,
        )

    @contextmanager
    def pool(
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
    ) -> Generator[Pool]:
        """As `AsyncBroker.pool`. Callbacks are called in the broker's thread, with its own lease."""
        self.open()
        assert self._portal is not None
        pooling = self._broker.pool(
            requirements,
            name=name,
            policy=policy,
            budget=budget,
            keep_warm=keep_warm,
            min_warm=min_warm,
            max_machines=max_machines,
            jobs_per_machine=jobs_per_machine,
            queue=queue,
            wait=wait,
            lifetime=lifetime,
            schedule=schedule,
            service=service,
            health=health,
            activity=activity,
            tags=tags,
            secrets=secrets,
        )
        with within(self._portal, pooling) as pool:
            yield Pool(pool, self._call, self._portal)

    def map(
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
    ) -> Generator[tuple[int, Result]]:
        """As `AsyncBroker.map`. `template`, if it is a function, is called in this thread."""
        made = [Job.of(template(given)) for given in inputs] if callable(template) else inputs
        results = self._broker.map(
            _as_it_is if callable(template) else template,
            made,
            requirements,
            name=name,
            machines=machines,
            jobs_per_machine=jobs_per_machine,
            retries=retries,
            policy=policy,
            budget=budget,
            lifetime=lifetime,
            tags=tags,
            secrets=secrets,
        )

        async def following() -> tuple[int, Result] | None:
            return await anext(results, None)

        try:
            while (done := self._call(following)) is not None:
                yield done
        finally:
            with suppress(BrokerClosed):
                self._call(results.aclose)

    def attach(self, name: str | None = None, *, on_output: OutputCallback | None = None) -> Result:
        """As `AsyncBroker.attach`."""
        return self._call(self._broker.attach, name, on_output=on_output)

    # ---- what is there --------------------------------------------------------------------

    def providers(self, *, balances: bool = False) -> list[ProviderStatus]:
        """As `AsyncBroker.providers`."""
        return self._call(self._broker.providers, balances=balances)

    def leases(self, *, open_only: bool = True) -> list[LeaseRow]:
        """As `AsyncBroker.leases`."""
        return self._call(self._broker.leases, open_only=open_only)

    def events(self, lease_id: str) -> list[LedgerEvent]:
        """As `AsyncBroker.events`."""
        return self._call(self._broker.events, lease_id)

    def costs(
        self,
        by: CostsBy = "day",
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Costs:
        """As `AsyncBroker.costs`."""
        return self._call(self._broker.costs, by, since=since, until=until)

    def explain(self, lease_id: str | None = None) -> DecisionRecord | None:
        """As `AsyncBroker.explain`."""
        return self._call(self._broker.explain, lease_id)

    # ---- giving up, and making sure -------------------------------------------------------

    def release(self, lease_id: str, *, reason: str = "asked for") -> ReleaseState:
        """As `AsyncBroker.release`."""
        return self._call(self._broker.release, lease_id, reason=reason)

    def wait_released(self, lease_id: str, *, timeout: float = 60.0) -> ReleaseState:
        """As `AsyncBroker.wait_released`."""
        return self._call(self._broker.wait_released, lease_id, timeout=timeout)

    def sweep(self) -> list[Swept]:
        """As `AsyncBroker.sweep`."""
        return self._call(self._broker.sweep)

    def strays(self) -> Search:
        """As `AsyncBroker.strays`."""
        return self._call(self._broker.strays)

    def adopt(self, provider: str, machine_id: str, *, unverified: bool = False) -> LeaseRow:
        """As `AsyncBroker.adopt`."""
        return self._call(self._broker.adopt, provider, machine_id, unverified=unverified)

    def verify(self) -> list[str]:
        """As `AsyncBroker.verify`."""
        return self._call(self._broker.verify)


# `help` shows for a broker's methods what is said of the other's: no argument is described twice
# here. The other classes are not loaded yet.
for _name, _member in vars(Broker).items():
    _doc = getattr(_member, "__doc__", None) or ""
    if _doc.startswith("As `AsyncBroker."):
        _member.__doc__ = f"{_doc}\n\n{cleandoc(getattr(AsyncBroker, _name).__doc__ or '')}"


#: Seconds that a program which exits with an open broker waits for proof, and for as much again at
#: the end: what is not proven by then is on record.
_AT_EXIT = 3.0


@atexit.register
def _close_at_exit() -> None:
    """Give up what is still held. It helps; nothing relies on it."""
    for broker in tuple(_open_brokers):
        broker.close(_AT_EXIT)
