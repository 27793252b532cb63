"""The state machine: the broker passes it, and what is planted wrong does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from gpubroker import (
    AccountSettings,
    AsyncBroker,
    CreateUnknown,
    Emit,
    Machine,
    Offer,
    Order,
    Plugin,
    hookimpl,
)
from gpubroker.testing import ScriptedPlugin
from gpubroker.testing.state_machine import BrokerStateMachine

#: The same every time, and no shrinking: what is wanted is that it is found.
FEW = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class Twice(ScriptedPlugin):
    """Sends a create again when its answer was lost."""

    @hookimpl
    async def provision(self, offer: Offer, order: Order) -> Machine:
        try:
            return await super().provision(offer, order)
        except CreateUnknown:
            return await super().provision(offer, order)


class Deaf(ScriptedPlugin):
    """Says that a machine is destroyed, and destroys nothing."""

    @hookimpl
    async def release(self, machine: Machine) -> None:
        del machine

    @hookimpl
    async def inventory(self) -> Sequence[Machine]:
        return []


class Greedy(ScriptedPlugin):
    """Cleans up what it does not know."""

    @hookimpl
    async def release(self, machine: Machine) -> None:
        for other in await super().inventory():
            await super().release(other)


def reaching(kind: type[ScriptedPlugin]) -> type[BrokerStateMachine]:
    """The machine with a provider of this kind."""

    class Planted(BrokerStateMachine):
        def plugin(self) -> Plugin:
            def factory(settings: AccountSettings, emit: Emit) -> ScriptedPlugin:
                plugin = self.cloud.factory(settings, emit)
                plugin.__class__ = kind
                return plugin

            return Plugin(self.cloud.name, factory, "planted", given=True)

    return Planted


class Lossy(reaching(Twice)):  # type: ignore[misc]
    """A vendor whose first answer is lost on the way."""

    def start(self) -> None:
        super().start()
        self.cloud.next_create_loses_reply()


class Limitless(BrokerStateMachine):
    """An app that forgets to hand its limits on, and rents for long."""

    def open_broker(self, **options: Any) -> AsyncBroker:
        options["budget"] = "1000"
        return AsyncBroker(**options)

    def start(self) -> None:
        super().start()
        self.cloud.price_rises_to("600")


class Sloppy(BrokerStateMachine):
    """An app whose brokers do not look for what was left behind, on ledgers that are thrown away."""

    def open_broker(self, **options: Any) -> AsyncBroker:
        options |= {"sweep": False, "ledger": ":memory:"}
        return AsyncBroker(**options)


@pytest.mark.parametrize("examples", [6, pytest.param(200, marks=pytest.mark.deep)])
def test_the_broker_keeps_its_promises(examples: int) -> None:
    """Whatever happens in whatever order, nothing leaks, and nothing is sent or destroyed wrongly."""
    run_state_machine_as_test(BrokerStateMachine, settings=settings(FEW, max_examples=examples))


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        # The second machine may be told of as well, and later.
        (Lossy, "was sent again|still bills for"),
        (reaching(Deaf), "still bills for"),
        (reaching(Greedy), "asked to destroy"),
        (Limitless, "was billed"),
        (Sloppy, "still bills for"),
    ],
    ids=["a create sent twice", "a deaf release", "friendly fire", "no limit", "no sweep"],
)
def test_what_is_planted_is_found(planted: type[BrokerStateMachine], said: str) -> None:
    """Wrong providers and wrong apps break the promise that they are wrong about."""
    with pytest.raises(AssertionError, match=said):
        run_state_machine_as_test(planted, settings=settings(FEW, max_examples=200))
