"""How the parts of the emulator are put together, and the way of a request through them."""

from __future__ import annotations

import random
import time
from typing import Any, Final

from gpubroker.testing.emulation import (
    Answer,
    Books,
    Call,
    ControlApi,
    DailyQuota,
    Dispatcher,
    FaultRule,
    FaultSchedule,
    Setup,
    Thresholds,
    flake,
)
from gpubroker_vast.emulator.account_api import AccountApi
from gpubroker_vast.emulator.answers import refused
from gpubroker_vast.emulator.api_faults import ApiFaults
from gpubroker_vast.emulator.clockwork import clockwork
from gpubroker_vast.emulator.control_api import OffersControlApi
from gpubroker_vast.emulator.create_api import CreateApi
from gpubroker_vast.emulator.gatekeeper import Gatekeeper
from gpubroker_vast.emulator.instance_faults import INSTANCE_FAULTS
from gpubroker_vast.emulator.instances_api import InstancesApi
from gpubroker_vast.emulator.limits import THRESHOLDS
from gpubroker_vast.emulator.lives import Lives
from gpubroker_vast.emulator.market import Market
from gpubroker_vast.emulator.offers_api import OffersApi
from gpubroker_vast.emulator.output_api import OutputApi
from gpubroker_vast.emulator.scenarios import Behaviour
from gpubroker_vast.emulator.ssh_api import SshApi
from gpubroker_vast.emulator.world import World

#: What happens to requests in a scenario that has `Behaviour.flakiness`.
_FLAKES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("drop", {}),
    ("drop", {"when": "after"}),
    ("status", {"status": 502}),
    ("status", {"status": 503, "when": "after"}),
    ("rate-limited", {"style": "plain"}),
    ("rate-limited", {"retry_after": 1}),
    ("garbage", {}),
    ("html", {}),
)


class VastAssembly:
    """One emulator's world, and what answers calls to it. Made in its event loop."""

    def __init__(self, setup: Setup[Behaviour]) -> None:
        self.world = world = _world(setup)
        instances, create = InstancesApi(world), CreateApi(world)
        endpoints = (
            *OffersApi(world).endpoints(),
            *create.endpoints(),
            *OutputApi(world).endpoints(),
            *AccountApi(world).endpoints(),
            *SshApi(world).endpoints(),
            *instances.endpoints(),
        )
        faults = ApiFaults(world, instances, create).by_name()
        self.faults = FaultSchedule({endpoint.name for endpoint in endpoints}, tuple(faults))
        control = ControlApi(world, self.faults, "instance")
        self.dispatcher = control.dispatcher = Dispatcher(
            (*endpoints, *control.endpoints(), *OffersControlApi(world).endpoints()),
            gate=Gatekeeper(world, control).refuse,
            pick=self._pick,
            faults=faults,
            otherwise=_otherwise,
            invalid=refused(400, "invalid_args", "Invalid json body"),
            hidden=("api_key", "image_login"),
        )
        world.tasks.soon(clockwork(world))

    async def answer(self, call: Call) -> Answer:
        """Answer one call."""
        return await self.dispatcher.answer(call)

    def _pick(self, call: Call) -> FaultRule | None:
        """The fault that was planned for a call, or one by chance."""
        if call.endpoint.startswith("_"):
            return None
        rule = self.faults.take(call.endpoint, call.parameters)
        world = self.world
        flaky = 0.0 if call.endpoint == "result" else world.behaviour.flakiness
        return rule or flake(call, flaky, world.chance, _FLAKES)


def _world(setup: Setup[Behaviour]) -> World:
    behaviour = setup.behaviour
    market = Market.make(
        setup.seed,
        behaviour.offers,
        time.time(),
        drift=behaviour.drift,
        busy=behaviour.busy,
        step=behaviour.step,
    )
    books = Books()
    lives = Lives(
        setup.ground, market, books, lambda: world.behaviour, system_sshd=setup.system_sshd
    )
    world = World(
        url=setup.url,
        key=setup.key,
        behaviour=behaviour,
        market=market,
        books=books,
        lives=lives,
        chance=random.Random(f"chance {setup.seed}"),  # noqa: S311 - to be had again
        limits=Thresholds(THRESHOLDS, behaviour.limits),
        quota=DailyQuota(behaviour.daily_rows),
        machine_faults=FaultSchedule(("instance",), tuple(INSTANCE_FAULTS)),
    )
    return world


def _otherwise(call: Call) -> Answer:
    """No such path. Without its slash at the end a path is sent elsewhere."""
    if not call.path.endswith("/") and call.path.startswith("/api/"):
        # The body looks like an answer, of an account that has nothing.
        nothing: list[object] = []
        body = {"success": True, "instances": nothing, "total_instances": 0}
        return Answer.of(body, 301, Location=f"{call.path}/")
    return Answer.text("<html><body>Not Found</body></html>", 404, "text/html")
