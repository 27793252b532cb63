"""What tests do to the market over HTTP, besides what any emulator lets them do."""

from __future__ import annotations

from decimal import Decimal

from gpubroker.testing.emulation import Answer, Call, Endpoint
from gpubroker_vast.emulator.world import World


class OffersControlApi:
    """Endpoints under ``/_emulator/`` that change offers."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (Endpoint("_offer", "POST", "/_emulator/offers/{id}", self._offer),)

    def _offer(self, call: Call) -> Answer:
        wanted = call.object()
        number = int(call.parameters["id"])
        if number not in self._world.market.asks:
            return Answer.of({"error": "no such offer"}, 400)
        change_offer(self._world, number, wanted.get("price"), wanted.get("taken"))
        return Answer.of({"ok": True})


def change_offer(world: World, number: int, price: object, taken: object) -> None:
    """Set the price of an offer, or whether somebody else has it."""
    if price is not None:
        world.market.prices[number] = Decimal(str(price))
    if taken is not None:
        (world.market.taken.add if taken else world.market.taken.discard)(number)
