"""What tests do to an emulator over HTTP: read its books, plan faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from gpubroker.model.money import Money
from gpubroker.testing.emulation.dispatch import Dispatcher
from gpubroker.testing.emulation.endpoints import Endpoint
from gpubroker.testing.emulation.exchange import Answer, Call
from gpubroker.testing.emulation.faults import FaultSchedule
from gpubroker.testing.emulation.metering import Books
from gpubroker.testing.emulation.tasks import LifeTasks


class EmulatedWorld(Protocol):
    """Everything that one emulator knows, as far as every emulator knows it.

    Attributes:
        behaviour: its switches.
        key: the account key. revoked: how a revoked key is refused: a status, or ``None``.
        books: what each machine really costs.
        leaks: what of a secret came where it must not.
        machine_faults: faults that the next machines get.
    """

    behaviour: Any
    key: str
    revoked: int | None
    books: Books
    leaks: list[str]
    machine_faults: FaultSchedule

    @property
    def tasks(self) -> LifeTasks:
        """What machines go through."""
        ...

    def credit(self) -> Money:
        """USD left in the account."""
        ...

    def billed(self, machine: str, /) -> Money:
        """What the vendor's own account of a machine comes to, once it has settled."""
        ...

    def machines(self, now: float, /) -> Sequence[dict[str, Any]]:
        """Every machine that there ever was, as a row of the vendor's list.

        With it ``destroyed_at`` in Unix seconds, and no secrets.
        """
        ...

    def afflict(self, machine: str, fault: str, options: dict[str, Any], /) -> None:
        """Let a fault happen to a machine.

        Raises:
            InvalidValue: there is no such machine or fault.
        """
        ...

    async def close(self) -> None:
        """End every machine."""
        ...


class ControlApi:
    """Endpoints under ``/_emulator/``. They need the account key, even where it was revoked.

    Args:
        noun: what a machine is called here: the endpoint of its faults, and a part of paths.
    """

    def __init__(self, world: EmulatedWorld, faults: FaultSchedule, noun: str) -> None:
        self._world = world
        self._faults = faults
        self._noun = noun
        self.dispatcher: Dispatcher | None = None

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them. Their names begin with an underscore, and no others do."""
        return (
            Endpoint("_state", "GET", "/_emulator/state", self._state),
            Endpoint("_books", "GET", "/_emulator/books", self._books),
            Endpoint("_requests", "GET", "/_emulator/requests", self._requests),
            Endpoint("_faults", "GET", "/_emulator/faults", self._rules),
            Endpoint("_faults", "POST", "/_emulator/faults", self._add),
            Endpoint("_faults", "DELETE", "/_emulator/faults", self._clear),
            Endpoint("_machine", "POST", f"/_emulator/{self._noun}s/{{id}}", self._machine),
            Endpoint("_key", "POST", "/_emulator/key", self._key),
        )

    def admits(self, call: Call) -> bool:
        """Whether a call to one of them has the key that it needs."""
        return call.bearer == self._world.key

    def _state(self, call: Call) -> Answer:
        rows = self._world.machines(call.at)
        return Answer.of({f"{self._noun}s": rows, "leaks": self._world.leaks})

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
        rules = (*self._faults.rules, *self._world.machine_faults.rules)
        return Answer.of({"faults": [asdict(rule) for rule in rules]})

    def _add(self, call: Call) -> Answer:
        rule: dict[str, Any] = call.object()
        try:
            endpoint, fault = str(rule.pop("endpoint")), str(rule.pop("fault"))
            schedule = self._world.machine_faults if endpoint == self._noun else self._faults
            schedule.add(endpoint, fault, **rule)
        except (KeyError, TypeError, ValueError) as error:
            return Answer.of({"error": str(error)}, 400)
        return Answer.of({"ok": True})

    def _clear(self, call: Call) -> Answer:  # noqa: ARG002
        self._faults.clear()
        self._world.machine_faults.clear()
        return Answer.of({"ok": True})

    def _machine(self, call: Call) -> Answer:
        options = call.object()
        try:
            self._world.afflict(call.parameters["id"], str(options.pop("fault", "")), options)
        except ValueError as error:
            return Answer.of({"error": str(error)}, 400)
        return Answer.of({"ok": True})

    def _key(self, call: Call) -> Answer:
        match call.object():
            case {"revoked": int() | None as revoked, **more} if not more:
                self._world.revoked = revoked
                return Answer.of({"ok": True})
            case _:
                return Answer.of({"error": 'wanted: {"revoked": a status, or null}'}, 400)
