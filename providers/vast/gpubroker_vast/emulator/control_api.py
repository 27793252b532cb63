"""What tests do to the emulator over HTTP: read its books, plan faults."""

from __future__ import annotations

import time
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from gpubroker.testing.emulation import Answer, Call, Dispatcher, Endpoint, FaultSchedule
from gpubroker_vast.emulator.contracts import contract_row
from gpubroker_vast.emulator.instance_faults import INSTANCE_FAULTS
from gpubroker_vast.emulator.world import World


class ControlApi:
    """Endpoints under ``/_emulator/``. They need the account key, even where it was revoked."""

    def __init__(self, world: World, faults: FaultSchedule) -> None:
        self._world = world
        self._faults = faults
        self.dispatcher: Dispatcher | None = None

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        return (
            Endpoint("_state", "GET", "/_emulator/state", self._state),
            Endpoint("_books", "GET", "/_emulator/books", self._books),
            Endpoint("_requests", "GET", "/_emulator/requests", self._requests),
            Endpoint("_faults", "GET", "/_emulator/faults", self._rules),
            Endpoint("_faults", "POST", "/_emulator/faults", self._add),
            Endpoint("_faults", "DELETE", "/_emulator/faults", self._clear),
            Endpoint("_instance", "POST", "/_emulator/instances/{id}", self._instance),
            Endpoint("_key", "POST", "/_emulator/key", self._key),
            Endpoint("_offer", "POST", "/_emulator/offers/{id}", self._offer),
        )

    def _state(self, call: Call) -> Answer:
        contracts = self._world.lives.contracts.values()
        rows = [contract_row(c, call.at) | {"destroyed_at": c.destroyed_at} for c in contracts]
        for row in rows:
            row.pop("jupyter_token")
        return Answer.of({"instances": rows, "leaks": self._world.leaks})

    def _books(self, call: Call) -> Answer:
        world = self._world
        charges = world.books.charges(call.at)
        return Answer.of(
            {
                "charges": {name: f"{amount.amount:f}" for name, amount in charges.items()},
                "billed": {name: f"{world.billed(name).amount:f}" for name in charges},
                "billing_now": world.books.billing_now(),
                "total": f"{world.books.total(call.at).amount:f}",
                "credit": f"{world.credit().amount:f}",
            }
        )

    def _requests(self, call: Call) -> Answer:  # noqa: ARG002
        assert self.dispatcher is not None
        return Answer.of({"requests": [asdict(one) for one in self.dispatcher.records]})

    def _rules(self, call: Call) -> Answer:  # noqa: ARG002
        rules = (*self._faults.rules, *self._world.instance_faults.rules)
        return Answer.of({"faults": [asdict(rule) for rule in rules]})

    def _add(self, call: Call) -> Answer:
        rule: dict[str, Any] = call.object()
        try:
            endpoint, fault = str(rule.pop("endpoint")), str(rule.pop("fault"))
            schedule = self._world.instance_faults if endpoint == "instance" else self._faults
            schedule.add(endpoint, fault, **rule)
        except (KeyError, TypeError, ValueError) as error:
            return Answer.of({"error": str(error)}, 400)
        return Answer.of({"ok": True})

    def _clear(self, call: Call) -> Answer:  # noqa: ARG002
        self._faults.clear()
        self._world.instance_faults.clear()
        return Answer.of({"ok": True})

    def _instance(self, call: Call) -> Answer:
        options = call.object()
        fault = INSTANCE_FAULTS.get(str(options.pop("fault", "")))
        word = call.parameters["id"]
        contract = self._world.lives.contracts.get(int(word)) if word.isdigit() else None
        if fault is None or contract is None:
            return Answer.of({"error": "no such instance, or no such fault"}, 400)
        fault(self._world, contract, options)
        return Answer.of({"ok": True})

    def _key(self, call: Call) -> Answer:
        revoked = call.object().get("revoked")
        self._world.revoked = None if revoked is None else int(revoked)
        return Answer.of({"ok": True})

    def _offer(self, call: Call) -> Answer:
        wanted = call.object()
        number = int(call.parameters["id"])
        if number not in self._world.market.asks:
            return Answer.of({"error": "no such offer"}, 400)
        change_offer(self._world, number, wanted.get("price"), wanted.get("taken"))
        return Answer.of({"ok": True, "at": time.time()})


def change_offer(world: World, number: int, price: object, taken: object) -> None:
    """Set the price of an offer, or whether somebody else has it."""
    if price is not None:
        world.market.prices[number] = Decimal(str(price))
    if taken is not None:
        (world.market.taken.add if taken else world.market.taken.discard)(number)
