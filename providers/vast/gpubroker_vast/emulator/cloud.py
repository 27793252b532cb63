"""The emulator itself: the handle that tests hold."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

from gpubroker.testing.emulation import EmulatedVendor, FaultRule, Setup
from gpubroker_vast.emulator.assembly import VastAssembly
from gpubroker_vast.emulator.control_api import change_offer
from gpubroker_vast.emulator.offer_rows import offer_row
from gpubroker_vast.emulator.scenarios import SCENARIOS, Behaviour
from gpubroker_vast.emulator.world import World


class VastEmulator(EmulatedVendor[VastAssembly, Behaviour]):
    """Vast.ai's API on loopback, with real machines behind it.

    ::

        with VastEmulator(seed=1) as cloud:
            ...  # talk to cloud.url with cloud.key

    The arguments are those of `gpubroker.testing.emulation.EmulatedVendor`; its switches are the
    parts of `Behaviour`.
    """

    name: ClassVar[str] = "vast"
    noun: ClassVar[str] = "instance"
    loss: ClassVar[str] = "vanish"
    scenarios: ClassVar[Mapping[str, str]] = {name: text for name, (text, _) in SCENARIOS.items()}
    behaviours: ClassVar[Mapping[str, Behaviour]] = {
        name: behaviour for name, (_, behaviour) in SCENARIOS.items()
    }

    def assemble(self, setup: Setup[Behaviour]) -> VastAssembly:
        """Make the inside."""
        return VastAssembly(setup)

    def switched(self) -> None:
        """Let limits and the market be as the behaviour says."""
        world, behaviour = self.world, self.behaviour
        world.limits.factor = behaviour.limits
        world.quota.limit = behaviour.daily_rows
        world.market.drift = behaviour.drift
        world.market.busy = behaviour.busy

    @property
    def options(self) -> Mapping[str, str]:
        """Settings of the provider that suit an emulator, which need not be spared."""
        behaviour = self.behaviour
        if behaviour.limits:
            return {}
        return {
            "pacing": "off",
            "poll_interval": "0.2",
            "absence_interval": "0.2",
            "visibility_horizon": str(behaviour.visibility * 2),
            "charges_after": str(behaviour.settling),
        }

    @property
    def hints(self) -> tuple[str, ...]:
        """How to point the vendor's own client here, as lines for people."""
        return (f"VAST_URL={self.url} VAST_API_KEY={self.key} vastai search offers",)

    @property
    def world(self) -> World:
        """Everything that the emulator knows. To be touched in its event loop alone."""
        return self.inside.world

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that was not destroyed, shown or not, as a row of the list."""
        return self.machines()

    def offers(self) -> list[dict[str, Any]]:
        """Every offer on demand, rented or not, as a row of a search."""

        def read() -> list[dict[str, Any]]:
            market = self.world.market
            return [
                offer_row(market, ask, time.time(), bid=False, disk=Decimal(8))
                for ask in market.asks.values()
            ]

        return self._server.call(read)

    def next_instance(
        self, fault: str, *, nth: int = 1, times: int | None = 1, **options: Any
    ) -> FaultRule:
        """Give a fault to the next instance that is made, or to the `nth` from now."""
        return self.next_machine(fault, nth=nth, times=times, **options)

    def sell_out(self) -> None:
        """From now on others have every machine, what was just offered too."""

        def take() -> None:
            self.world.market.taken.update(self.world.market.asks)

        self._server.call(take)

    def revoke_key(self, status: int = 404) -> None:
        """Refuse the account key: with 401, 403 or 404, each in the vendor's words."""
        super().revoke_key(status)

    def change_offer(
        self, offer: int | str, *, price: str | None = None, taken: bool | None = None
    ) -> None:
        """Set the hourly price of an offer's cards, or whether somebody else has it."""
        self._server.call(lambda: change_offer(self.world, int(offer), price, taken))
