"""The hooks of the Vast.ai provider, in the order in which the broker calls them."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import anyio

from gpubroker import (
    Channel,
    Charge,
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
    hookimpl,
)
from gpubroker.rest import RequestFailed, RestClient, RestProvider, create_unanswered, rows
from gpubroker.transport import run_job
from gpubroker_vast import billing, instances, onstart, orders, search
from gpubroker_vast.api import VastApi
from gpubroker_vast.destroying import Destroyer
from gpubroker_vast.failures import succeeded
from gpubroker_vast.options import ROWS, Options
from gpubroker_vast.vocabulary import ATTACHED

if TYPE_CHECKING:
    import httpx

_LOG_LINES: Final = 200
_LOG_PATIENCE: Final = 8.0
_LOG_PAUSE: Final = 0.5
#: Seconds between two attempts to let a key in, and how often: it may take minutes to be heard.
_KEY_PAUSE: Final = 5.0
_KEY_TRIES: Final = 60


class VastProvider(RestProvider):
    """One account at Vast.ai. Enter it before the first hook.

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
            absence_interval=options.absence_interval,
            poll_interval=options.poll_interval,
            boot_timeout=options.boot_timeout,
            identity_timeout=options.identity_timeout,
            release_margin=options.release_margin,
            mark_limit=256,
            spot=True,
            ports=True,
            ssh=True,
            reattaches=True,
            charges_after=options.charges_after,
        )
        self._options = options
        self._market = search.Market(options.limit, options.bid, simulated=options.emulated)
        client = RestClient(options.url, key=options.key, even=options.pacing, transport=transport)
        super().__init__(client, emit, key=options.key, key_name="VAST_API_KEY")
        self._api = VastApi(client)
        self._destroyer = Destroyer(self._api)
        self._hearsay = instances.Hearsay()

    @hookimpl
    async def quote(self, requirements: Requirements) -> list[Offer]:
        """The cheapest offers that fit, on demand, interruptible or both."""
        self.need_key()
        if requirements.trust is TrustTier.OWN:
            return []  # nobody's own machine is rented here
        bids = (False, True) if requirements.spot is None else (requirements.spot,)
        found: list[Offer] = []
        for bid in bids:
            found += await self._search(requirements, bid=bid)
        return found

    async def _search(self, wanted: Requirements, *, bid: bool) -> list[Offer]:
        """The pages of one search; a page that brings nothing new is the last one."""
        offers: dict[str, Offer] = {}
        above: Decimal | None = None
        for _ in range(self._options.pages):
            query = search.query(wanted, self._market, bid=bid, above=above)
            page = await self._api.search(query, search.COLUMNS)
            found = rows.entries(page.get("offers"))
            if found is None:
                raise ProviderError(
                    "searching offers: the answer has no list of them",
                    kind=ErrorKind.TRANSIENT,
                    scope=Scope.PROVIDER,
                )
            made = search.offers(
                found, wanted, self._market, bid=bid, now=time.time(), skip=self.skipped
            )
            fresh = [offer for offer in made if offer.id not in offers]
            offers.update({offer.id: offer for offer in fresh})
            totals = [rows.decimal(row, "dph_total") for row in map(rows.table, found) if row]
            highest = max((total for total in totals if total is not None), default=None)
            if len(found) < min(self._options.limit, ROWS) or not fresh or highest is None:
                break
            above = highest
        return list(offers.values())

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Machine:
        """Accept an offer; the machine's key is attached in the background."""
        self.need_key()
        ask = offer.extra.get("ask", offer.id.removesuffix(search.BID))
        if not _is_id(ask):
            raise _refused(f"{ask!r} is no offer's id")
        script = onstart.script(
            api=self._options.url,
            nonce=order.nonce,
            public_key=order.public_key,
            lifetime=order.deadline - time.time(),
        )
        body = orders.body_of(offer, order, self._options, script)
        try:
            reply = await self._api.create(ask, body)
        except RequestFailed as error:
            raise create_unanswered(error) from None
        machine = orders.machine_of(
            reply, offer, order, self._api.failure(reply, f"renting {offer.id}")
        )
        if order.public_key:
            self.start_soon(self._attach, machine.id, order.public_key)
        return machine

    async def _attach(self, machine_id: str, public_key: str) -> None:
        """Let the lease's key in through the API as well: the vendor rewrites what a script adds.

        Nothing waits for it and nothing fails with it: without it, the script's own key counts.
        """
        for _ in range(_KEY_TRIES):
            try:
                reply = await self._api.attach_key(machine_id, public_key)
            except ProviderError:
                reply = None
            if reply is not None:
                if succeeded(reply) is not None or ATTACHED in reply.body.decode(errors="replace"):
                    return
                problem = self._api.failure(reply, f"letting a key in at {machine_id}")
                if problem.kind in (ErrorKind.BAD_REQUEST, ErrorKind.AUTH):
                    self.emit("key not attached", str(problem))
                    return
            await anyio.sleep(_KEY_PAUSE)

    @hookimpl
    async def inventory(self) -> list[Machine]:
        """Every instance of the account, or an error."""
        self.need_key()
        listing = await self._listing()
        if listing.short:
            # One more machine may have been made between two pages; a lost row stays lost.
            listing = await self._listing()
            listing.check()
        doubted = self._hearsay.weigh(listing.rows)
        return [
            instances.machine_from(machine_id, row, doubted=machine_id in doubted)
            for machine_id, row in listing.rows
        ]

    async def _listing(self) -> instances.Listing:
        listing = instances.Listing()
        token = listing.add(await self._api.listing(None))
        while token is not None:
            token = listing.add(await self._api.listing(token))
        return listing

    @hookimpl
    async def run(self, machine: Machine, job: Job, io: JobIO, channel: Channel | None) -> Outcome:
        """Run a job over SSH."""
        if channel is None:
            raise ProviderError(
                f"there is no way to machine {machine.id}",
                kind=ErrorKind.HOST_BROKEN,
                scope=Scope.HOST,
            )
        return await run_job(channel, job, io)

    @hookimpl
    async def release(self, machine: Machine) -> None:
        """Destroy it; together with the others that are released at the same time."""
        self.need_key()
        if not _is_id(machine.id):
            raise _refused(f"{machine.id!r} is no instance's id")
        await self._destroyer.destroy(machine.id)

    @hookimpl
    async def logs(self, machine: Machine) -> str:
        """The last lines that it printed; nothing if they are not ready within seconds."""
        self.need_key()
        if not _is_id(machine.id):
            raise _refused(f"{machine.id!r} is no instance's id")
        answer = await self._api.request_logs(machine.id, _LOG_LINES)
        url = rows.text(answer, "result_url")
        if not url:
            return ""
        log = await self._api.fetch_log(url, patience=_LOG_PATIENCE, pause=_LOG_PAUSE)
        return log.decode(errors="replace")

    @hookimpl
    async def charges(self, since: float, until: float) -> list[Charge]:
        """What was billed for each instance, on the days between two moments."""
        self.need_key()
        bills, days = billing.Bills(), billing.days(since, until)
        token = bills.add(await self._api.charges(days, None))
        while token is not None:
            token = bills.add(await self._api.charges(days, token))
        return bills.charges()

    @hookimpl
    async def balance(self) -> Money:
        """The credit that is left."""
        self.need_key()
        credit = rows.decimal(await self._api.account(), "credit")
        if credit is None:
            raise ProviderError(
                "reading the balance: the answer does not say what credit is left",
                kind=ErrorKind.TRANSIENT,
                scope=Scope.ACCOUNT,
            )
        return Money(credit)


def _is_id(text: str) -> bool:
    """Whether it is an id of the vendor's, and so can stand in a path."""
    return text.isascii() and text.isdecimal() and len(text) <= 20


def _refused(problem: str) -> ProviderError:
    return ProviderError(problem, kind=ErrorKind.BAD_REQUEST, scope=Scope.PROVIDER)
