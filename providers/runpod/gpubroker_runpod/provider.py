"""The hooks of the RunPod provider, in the order in which the broker calls them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio

from gpubroker import (
    Channel,
    Charge,
    CreateUnknown,
    Emit,
    ErrorKind,
    Job,
    JobIO,
    Machine,
    Money,
    Offer,
    Order,
    Outcome,
    ProviderError,
    ProviderFacts,
    Requirements,
    Scope,
    TrustTier,
    __version__,
    hookimpl,
)
from gpubroker.rest import RequestFailed, RestClient, RestProvider, create_unanswered, rows
from gpubroker.transport import run_job
from gpubroker_runpod import billing, catalogue, container, log_work, orders, pods
from gpubroker_runpod.api import RunPodApi
from gpubroker_runpod.boots import Boots
from gpubroker_runpod.failures import Refusals, path_is_gone, unreadable
from gpubroker_runpod.log_work import LogWork
from gpubroker_runpod.options import Options, WayChoice
from gpubroker_runpod.orders import Way
from gpubroker_runpod.vocabulary import Cloud

if TYPE_CHECKING:
    import httpx

_BALANCE: Final = "query { myself { clientBalance } }"


class RunPodProvider(RestProvider):
    """One account at RunPod. Enter it before the first hook.

    Args:
        transport: an httpx transport to use instead of the network.
    """

    def __init__(
        self, options: Options, emit: Emit, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.facts = ProviderFacts(
            paid=True,
            trust=TrustTier.VERIFIED,
            visibility_horizon=options.visibility_horizon,
            absence_readings=3,
            absence_interval=options.absence_interval,
            poll_interval=options.poll_interval,
            boot_timeout=options.boot_timeout,
            identity_timeout=options.identity_timeout,
            release_margin=options.release_margin,
            mark_limit=191,
            spot=False,
            ports=True,
            ssh=True,
            reattaches=True,
            charges_after=options.charges_after,
        )
        self._options = options
        client = RestClient(
            options.url,
            key=options.key,
            user_agent=f"gpubroker/{__version__}",
            even=options.pacing,
            transport=transport,
        )
        super().__init__(client, emit, key=options.key, key_name="RUNPOD_API_KEY")
        self._api = RunPodApi(client)
        self._refusals = Refusals()
        self._boots = Boots()
        self._log_work = LogWork(self._api, settled=0.3 if options.emulated else 1.5)

    @hookimpl
    async def quote(self, requirements: Requirements) -> list[Offer]:
        """What is in stock, by GPU type, cloud and country; the best stocked first."""
        self.need_key()
        wanted = catalogue.Wanted.of(
            requirements, self._options.clouds, try_ssh=self._options.way is WayChoice.SSH
        )
        found: list[tuple[int, Offer]] = []
        failures: list[ProviderError] = []

        async def ask(cloud: Cloud) -> None:
            try:
                found.extend(await self._offers(wanted, cloud))
            except ProviderError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            for cloud in wanted.clouds:
                tasks.start_soon(ask, cloud)
        if failures and len(failures) == len(wanted.clouds):
            raise failures[0]
        for failure in failures:
            self.emit("skipped", str(failure))
        # The order counts among offers that are equal otherwise.
        return [offer for _, offer in sorted(found, key=lambda entry: (entry[0], entry[1].id))]

    async def _offers(self, wanted: catalogue.Wanted, cloud: Cloud) -> list[tuple[int, Offer]]:
        answer = await self._api.gpus(catalogue.query(wanted, cloud))
        listed = rows.entries(answer.get("gpus"))
        if listed is None:
            raise unreadable("reading the catalogue", "the answer has no list of GPUs")
        return catalogue.offers(
            listed,
            wanted,
            cloud,
            now=time.time(),
            simulated=self._options.emulated,
            skip=self.skipped,
        )

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Machine:
        """Ask for one pod, once."""
        self.need_key()
        way, why, args = self._command(offer, order)
        body = orders.body_of(offer, order, self._options, way, args)
        self.emit("way", f"work reaches it {way.value}: {why}")
        self._boots.ordered(order.mark, offer.count)
        try:
            reply = await self._api.create(body)
        except RequestFailed as error:
            raise create_unanswered(error) from None
        machine = orders.made_by(reply, order, way)
        if machine is not None:
            self._refusals.accepted()
            if way is Way.LOG:
                self._log_work.ordered(machine.id, order.nonce, order.jobs)
            return machine
        meaning = self._refusals.meaning(reply)
        refusal = self._api.refusal(reply, f"renting {offer.id}", meaning)
        if refusal.kind is ErrorKind.CREATE_UNKNOWN:
            raise CreateUnknown(str(refusal))
        raise refusal

    def _command(self, offer: Offer, order: Order) -> tuple[Way, str, str]:
        """How work reaches the pod, why, and what its container is to run for that."""
        way, why = orders.way_of(offer, order, self._options.way)
        api, lifetime = self._options.url, order.deadline - time.time()
        if way is Way.LOG:
            try:
                args = container.jobs_command(
                    api=api, nonce=order.nonce, lifetime=lifetime, jobs=order.jobs
                )
            except ProviderError as error:
                if not offer.ssh:
                    # No fault of the request's: another offer may be reached over SSH.
                    raise ProviderError(
                        f"{offer.id} may not be reached over SSH, and {error}",
                        kind=ErrorKind.CAPACITY,
                        scope=Scope.OFFER,
                    ) from None
                way, why = Way.SSH, f"its jobs do not fit into a command: {error}"
            else:
                return way, why, args
        return way, why, container.ssh_command(api=api, nonce=order.nonce, lifetime=lifetime)

    @hookimpl
    async def inventory(self) -> list[Machine]:
        """Every pod of the account, or an error."""
        self.need_key()
        listing, now = await self._listing(), anyio.current_time()
        machines = [
            self._boots.judge(pods.machine_from(pod_id, row), row, now)
            for pod_id, row in listing.rows
        ]
        self._boots.keep([machine.id for machine in machines])
        for machine in machines:
            if self._boots.due(machine, now):
                self.start_soon(self._look, machine.id)
        return machines

    async def _listing(self) -> pods.Listing:
        listing = pods.Listing()
        cursor = listing.add(await self._api.pods(None))
        while cursor is not None:
            cursor = listing.add(await self._api.pods(cursor))
        return listing

    async def _look(self, pod_id: str) -> None:
        """See in the system's log how far a boot is; a later inventory tells what was seen."""
        try:
            log = await log_work.snapshot(self._api, pod_id, source="system")
        except ProviderError:
            return  # the next look is soon enough
        self._boots.saw(pod_id, log)

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO, channel: Channel | None) -> Outcome:
        """Run a job over SSH; or read what became of it, where the pod runs it by itself."""
        if channel is not None:
            self._boots.used(machine)
            return await run_job(channel, job, io)
        _check_id(machine.id)
        return await self._log_work.run(machine, job, io)

    @hookimpl
    async def release(self, machine: Machine) -> None:
        """Terminate it. One that is not there any more is no error."""
        self.need_key()
        _check_id(machine.id)
        reply = await self._api.terminate(machine.id)
        if not reply.ok and (reply.status != 404 or path_is_gone(reply)):
            raise self._api.failure(reply, f"terminating pod {machine.id}")
        self._log_work.forget(machine.id)

    @hookimpl
    async def logs(self, machine: Machine) -> str:
        """The last lines that its container printed."""
        self.need_key()
        _check_id(machine.id)
        return await self._log_work.log(machine.id)

    @hookimpl
    async def charges(self, since: float, until: float) -> list[Charge]:
        """What was billed for each pod, in the hours between two moments."""
        self.need_key()
        answer = await self._api.bills(*billing.hours(since, until))
        records = rows.entries(answer.get("records"))
        if records is None:
            raise unreadable("reading the bills", "the answer has no list of records")
        return billing.charges(records)

    @hookimpl
    async def balance(self) -> Money:
        """The credit that is left; no other API than the one to be retired tells it."""
        self.need_key()
        reply = await self._api.ask(_BALANCE)
        body = reply.json_object() or {}
        myself = rows.table((rows.table(body.get("data")) or {}).get("myself")) or {}
        credit = rows.decimal(myself, "clientBalance")
        if not reply.ok or body.get("errors") or credit is None:
            raise ProviderError(
                f"unknown: {self._api.failure(reply, 'reading the balance')}",
                kind=ErrorKind.TRANSIENT,
                scope=Scope.ACCOUNT,
            )
        return Money(credit)


def _check_id(pod_id: str) -> None:
    """Refuse what cannot stand in a path.

    Raises:
        ProviderError: it is no id of the vendor's.
    """
    if not pods.is_id(pod_id):
        raise ProviderError(
            f"{pod_id!r} is no pod's id", kind=ErrorKind.BAD_REQUEST, scope=Scope.PROVIDER
        )
