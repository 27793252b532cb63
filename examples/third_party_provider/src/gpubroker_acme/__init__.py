"""Acme as a provider of gpubroker.

Machines are containers that are reached over SSH. A machine bears its mark as its label, which is
part of the create; its log, which only the account can read, shows its SSH host keys. Acme itself
ends a machine at the moment that its create names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gpubroker import (
    AccountSettings,
    Channel,
    CreateUnknown,
    Emit,
    ErrorKind,
    Job,
    JobIO,
    Machine,
    MachineState,
    Money,
    Offer,
    Order,
    Outcome,
    Price,
    ProviderError,
    ProviderFacts,
    Requirements,
    Route,
    Scope,
    gpu_name,
    hookimpl,
)
from gpubroker.rest import (
    Pace,
    Reply,
    RequestFailed,
    RestClient,
    RestProvider,
    Row,
    create_unanswered,
    options,
    rows,
    said,
    unreachable,
)
from gpubroker.transport import announcement, run_job

if TYPE_CHECKING:
    import httpx

_API: Final = "https://api.acme.example"
_IMAGE: Final = "acme/cuda:12"
#: Settings; and those that an emulator on this machine may be given: less would lose Acme's machines.
_OWN: Final = ("image",)
_TIMES: Final = ("visibility_horizon", "absence_interval", "poll_interval")
_ORDINARY: Final = Pace("ordinary", interval=0.1)
_DESTROY: Final = Pace("destroy", urgent=True)

#: Their words for what a machine does. One that is not here is taken for booting.
_STATES: Final = {
    "starting": MachineState.BOOTING,
    "up": MachineState.RUNNING,
    "failed": MachineState.BROKEN,
    "stopped": MachineState.STOPPED,
    "deleting": MachineState.STOPPED,
    "deleted": MachineState.GONE,
}

#: What a refusal means: its kind, and what it condemns. Any other status is a passing fault.
_REFUSALS: Final = {
    400: (ErrorKind.BAD_REQUEST, Scope.PROVIDER),
    401: (ErrorKind.AUTH, Scope.ACCOUNT),
    402: (ErrorKind.CREDIT, Scope.ACCOUNT),
    403: (ErrorKind.AUTH, Scope.ACCOUNT),
    409: (ErrorKind.CAPACITY, Scope.OFFER),
    422: (ErrorKind.BAD_REQUEST, Scope.PROVIDER),
    429: (ErrorKind.RATE_LIMIT, Scope.ACCOUNT),
}


def create(settings: AccountSettings, emit: Emit) -> AcmeProvider:
    """The provider, for the broker: the entry point ``acme`` names this function."""
    return AcmeProvider(settings, emit)


class AcmeProvider(RestProvider):
    """One account at Acme.

    Args:
        transport: an httpx transport to use instead of the network.
    """

    contract = 1

    def __init__(
        self,
        settings: AccountSettings,
        emit: Emit,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        given = settings.options
        url, emulated = options.address(settings.url, _API)
        options.check_names(settings.name, given, _OWN, emulated=emulated, emulator_only=_TIMES)
        self.facts = ProviderFacts(
            paid=True,
            ssh=True,
            ports=True,
            mark_limit=64,
            # Their list is never older than five seconds; keep twice of that.
            visibility_horizon=_seconds(given, "visibility_horizon", 10),
            absence_interval=_seconds(given, "absence_interval", 5),
            poll_interval=_seconds(given, "poll_interval", 2),
        )
        self._image = given.get("image") or _IMAGE
        client = RestClient(url, key=settings.key, even=not emulated, transport=transport)
        super().__init__(client, emit, key=settings.key, key_name="GPUBROKER_ACME_KEY")

    # The hooks, in the order in which the broker calls them

    @hookimpl
    async def quote(self, requirements: Requirements) -> list[Offer]:
        """Everything that Acme has; the broker sorts out what does not fit."""
        body = await self._read("/v1/offers", {})
        # Disks are whole gigabytes there: what is ordered is what is priced.
        disk_gb = math.ceil(requirements.disk_gb)
        made = [_offer(row, disk_gb) for row in _table(body, "offers")]
        return [offer for offer in made if offer is not None]

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Machine:
        """One create, sent once, with the mark in it."""
        self.need_key()
        body = {
            "type": offer.id,
            "label": order.mark,
            "image": order.image or self._image,
            "disk_gb": math.ceil(order.disk),
            "ports": list(order.ports),
            "env": dict(order.env),
            "ssh_key": order.public_key,
            "start_script": announcement(order.nonce) if order.nonce else "",
            "most_usd_per_hour": str(order.price_ceiling.amount),
            "end_at": math.ceil(order.deadline),
        }
        try:
            reply = await self.client.request("POST", "/v1/machines", json=body, pace=_ORDINARY)
        except RequestFailed as error:
            raise create_unanswered(error) from None
        # Whatever the answer is: if it names a machine, that may bill.
        made = rows.identifier(reply.json_object() or {}, "id")
        if reply.ok and made is not None:
            return Machine(id=made, state=MachineState.BOOTING, mark=order.mark)
        failure = self._failure(reply, f"renting {offer.id}", made)
        if reply.ok or failure.kind is ErrorKind.TRANSIENT:
            raise CreateUnknown(str(failure), machine_id=made)
        raise failure

    @hookimpl
    async def inventory(self) -> list[Machine]:
        """Every machine, from all pages, or an error."""
        found: list[Machine] = []
        more: bool | None = True
        total: int | None = None
        while more:
            after = found[-1].id if found else "0"
            body = await self._read("/v1/machines", {"after": after})
            page = [_machine(row) for row in _table(body, "machines")]
            more, total = rows.flag(body, "more"), rows.whole(body, "total")
            if more is None or (more and not page):
                raise _senseless("it does not say whether there are more machines")
            found += page
        if len(found) != total:
            raise _senseless(f"{len(found)} machines, and it says that there are {total}")
        return found

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO, channel: Channel | None) -> Outcome:
        """Over SSH: the broker has connected already."""
        if channel is None:
            raise ProviderError(
                f"there is no way to {machine.id}", kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST
            )
        return await run_job(channel, job, io)

    @hookimpl
    async def release(self, machine: Machine) -> None:
        """Delete it; what is gone already is success."""
        await self._ask("DELETE", _path(machine), {}, _DESTROY, also=404)

    @hookimpl
    async def logs(self, machine: Machine) -> str:
        """What it printed; nothing while it is new."""
        reply = await self._ask("GET", f"{_path(machine)}/log", {}, _ORDINARY, also=404)
        return reply.body.decode(errors="replace") if reply.ok else ""

    @hookimpl
    async def balance(self) -> Money:
        """The credit that is left."""
        credit = rows.decimal(await self._read("/v1/account", {}), "credit_usd")
        if credit is None:
            raise _senseless("it does not say what credit is left")
        return Money(credit)

    # Requests

    async def _ask(
        self, method: str, path: str, query: Row, pace: Pace, *, also: int | None = None
    ) -> Reply:
        """One request that is no create; every status but a success, and `also`, is an error."""
        self.need_key()
        try:
            reply = await self.client.request(method, path, params=query, pace=pace)
        except RequestFailed as error:
            raise unreachable(error) from None
        if reply.ok or reply.status == also:
            return reply
        raise self._failure(reply, f"{method} {path}")

    async def _read(self, path: str, query: Row) -> Row:
        body = (await self._ask("GET", path, query, _ORDINARY)).json_object()
        if body is None:
            raise _senseless(f"{path} has no JSON object")
        return body

    def _failure(self, reply: Reply, doing: str, machine_id: str | None = None) -> ProviderError:
        kind, scope = _REFUSALS.get(reply.status, (ErrorKind.TRANSIENT, Scope.PROVIDER))
        words = self.client.without_key(said(reply, ("error",)))
        return ProviderError(
            f"{doing}: HTTP {reply.status} {words}",
            kind=kind,
            scope=scope,
            retry_after=reply.retry_after(),
            machine_id=machine_id,
        )


def _seconds(given: Mapping[str, str], name: str, usual: float) -> float:
    return float(options.number(given, name, usual, 0, 600))


# Their rows in our words


def _offer(row: Row, disk_gb: int) -> Offer | None:
    """An offer; ``None`` where what it would cost is not said."""
    name, count = rows.text(row, "type"), rows.whole(row, "gpus")
    per_gpu, per_gb = rows.decimal(row, "usd_per_gpu_hour"), rows.decimal(row, "usd_per_gb_hour")
    if not name or not count or per_gpu is None or per_gb is None:
        return None
    return Offer(
        id=name,
        price=Price(machine=Money(per_gpu) * count, disk=Money(per_gb) * disk_gb),
        gpu=gpu_name(rows.text(row, "gpu")),
        count=count,
        vram=rows.number(row, "vram_gb"),
        disk=rows.number(row, "disk_gb"),
        region=rows.text(row, "country") or None,
        open_ports=rows.whole(row, "ports"),
    )


def _machine(row: Row) -> Machine:
    """A machine of the list, as well as it can be understood; it must have an id."""
    number, hourly = rows.identifier(row, "id"), rows.decimal(row, "usd_per_hour")
    if number is None:
        raise _senseless("a machine without an id")
    host, port = rows.host(row, "ssh_host"), rows.port(row, "ssh_port")
    return Machine(
        id=number,
        state=_STATES.get(rows.text(row, "state"), MachineState.BOOTING),
        mark=rows.text(row, "label") or None,
        hourly=None if hourly is None else Money(hourly),
        progress=rows.text(row, "state"),
        routes=() if host is None or port is None else (Route(host, port),),
    )


def _table(body: Row, name: str) -> list[Row]:
    """A list of objects, all of them understood, or an error."""
    found = rows.entries(body.get(name))
    made: list[Any] = [rows.table(one) for one in found or ()]
    if found is None or None in made:
        raise _senseless(f"it has no list of {name}")
    return made


def _path(machine: Machine) -> str:
    """Where a machine is; only the vendor's own ids get into a path."""
    if not (machine.id.isascii() and machine.id.isdecimal() and len(machine.id) < 20):
        raise ProviderError(f"{machine.id!r} is no id", kind=ErrorKind.BAD_REQUEST)
    return f"/v1/machines/{machine.id}"


def _senseless(problem: str) -> ProviderError:
    return ProviderError(
        f"the answer makes no sense: {problem}", kind=ErrorKind.TRANSIENT, scope=Scope.PROVIDER
    )
