"""How the parts of the emulator are put together, and the way of a request through them."""

from __future__ import annotations

import asyncio
import random
import secrets
from decimal import Decimal
from typing import Any, Final

from gpubroker import InvalidValue, Money
from gpubroker.testing.emulation import (
    Answer,
    Books,
    Call,
    ControlApi,
    Dispatcher,
    Endpoint,
    FaultRule,
    FaultSchedule,
    RateWindows,
    Setup,
    flake,
)
from gpubroker_runpod.emulator.account_api import AccountApi
from gpubroker_runpod.emulator.answers import NO_PATH, problem
from gpubroker_runpod.emulator.api_faults import ApiFaults
from gpubroker_runpod.emulator.billing_api import BillingApi
from gpubroker_runpod.emulator.catalogue_api import CatalogueApi
from gpubroker_runpod.emulator.create_api import CreateApi
from gpubroker_runpod.emulator.gatekeeper import Gatekeeper
from gpubroker_runpod.emulator.lives import Lives
from gpubroker_runpod.emulator.logs_api import LogsApi
from gpubroker_runpod.emulator.market import Market
from gpubroker_runpod.emulator.pod_faults import POD_FAULTS
from gpubroker_runpod.emulator.pods_api import PodsApi
from gpubroker_runpod.emulator.scenarios import Behaviour
from gpubroker_runpod.emulator.world import World, windows

_TICK: Final = 0.2
#: What happens to requests in a scenario that has `Behaviour.flakiness`.
_FLAKES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("drop", {}),
    ("drop", {"when": "after"}),
    ("status", {"status": 502}),
    ("server-error", {"when": "after"}),
    ("rate-limited", {"retry_after": 1}),
    ("garbage", {}),
    ("html", {"status": 503}),
)


class RunPodAssembly:
    """One emulator's world, and what answers calls to it. Made in its event loop."""

    def __init__(self, setup: Setup[Behaviour]) -> None:
        self.world = world = _world(setup)
        pods, create, logs = PodsApi(world), CreateApi(world), LogsApi(world)
        self._endpoints: tuple[Endpoint, ...] = (
            *CatalogueApi(world).endpoints(),
            *create.endpoints(),
            *pods.endpoints(),
            *logs.endpoints(),
            *AccountApi(world).endpoints(),
            *BillingApi(world).endpoints(),
        )
        faults = ApiFaults(world, pods, create, logs).by_name()
        self.faults = FaultSchedule({one.name for one in self._endpoints}, tuple(faults))
        control = ControlApi(world, self.faults, "pod")
        self._gatekeeper = Gatekeeper(world, control)
        stock = Endpoint("_stock", "POST", "/_emulator/stock", self._set_stock)
        self.dispatcher = control.dispatcher = Dispatcher(
            (*self._endpoints, *control.endpoints(), stock),
            gate=self._gatekeeper.refuse,
            pick=self._pick,
            faults=faults,
            otherwise=self._otherwise,
            invalid=problem(400, "request body is not a JSON object"),
            dress=self._gatekeeper.dress,
        )
        world.tasks.soon(self._collect())

    async def answer(self, call: Call) -> Answer:
        """Answer one call."""
        refusal = self._gatekeeper.before(call)
        answer = await self.dispatcher.answer(call) if refusal is None else refusal
        return answer.but(headers={"x-request-id": secrets.token_hex(8), **answer.headers})

    def behave(self) -> None:
        """Act by the world's behaviour, where parts of it were changed."""
        self.world.limits.windows = windows(self.world.behaviour)

    def set_price(self, gpu: str, cloud: str, price: str) -> None:
        """Set the price of one card of a type, USD per hour.

        Raises:
            InvalidValue: there is no such type.
        """
        if (gpu, cloud) not in self.world.market.prices:
            raise InvalidValue("gpu", (gpu, cloud), "there is no such type of card")
        self.world.market.prices[gpu, cloud] = Decimal(price)

    def _pick(self, call: Call) -> FaultRule | None:
        """The fault that was planned for a call, or one by chance."""
        if call.endpoint.startswith("_"):
            return None
        rule = self.faults.take(call.endpoint, call.parameters)
        world = self.world
        flaky = world.behaviour.flakiness
        return rule or flake(call, flaky, world.chance, _FLAKES)

    def _otherwise(self, call: Call) -> Answer:
        """No such path, or no such method there."""
        methods = sorted({e.method for e in self._endpoints if e.pattern.fullmatch(call.path)})
        if not methods:
            return NO_PATH
        detail = "The requested method is not allowed for this path."
        return problem(405, detail, Allow=", ".join(methods))

    def _set_stock(self, call: Call) -> Answer:
        wanted = call.object()
        names = ("gpu", "cloud", "place")
        spots = set_stock(self.world, int(wanted.get("cards", 0)), *(wanted.get(n) for n in names))
        return Answer.of({"ok": True, "spots": spots})

    async def _collect(self) -> None:
        """Again and again: without credit, every pod is ended."""
        world = self.world
        while True:
            await asyncio.sleep(_TICK)
            if world.credit() <= Money():
                for pod in list(world.lives.pods.values()):
                    if pod.destroyed_at is None:
                        world.lives.destroy(pod)


def set_stock(
    world: World, cards: int, gpu: str | None, cloud: str | None, place: str | None
) -> int:
    """Set how many cards are free; ``None`` means every type, cloud or place.

    Returns:
        In how many places.
    """
    return world.market.set(
        lambda spot: (
            gpu in (None, spot.card) and cloud in (None, spot.cloud) and place in (None, spot.place)
        ),
        cards,
    )


def _world(setup: Setup[Behaviour]) -> World:
    behaviour = setup.behaviour
    market = Market.make(setup.seed, behaviour.scarcity)
    books = Books()
    lives = Lives(
        setup.ground, market, books, lambda: world.behaviour, system_sshd=setup.system_sshd
    )
    world = World(
        url=setup.url,
        key=setup.key,
        read_only=f"rpa_read_{secrets.token_hex(16)}",
        behaviour=behaviour,
        market=market,
        books=books,
        lives=lives,
        chance=random.Random(f"chance {setup.seed}"),  # noqa: S311 - to be had again
        machine_faults=FaultSchedule(("pod",), tuple(POD_FAULTS)),
        limits=RateWindows(windows(behaviour)),
    )
    return world
