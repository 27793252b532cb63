"""Fixtures: both event loops in virtual time, a scripted cloud, and brokers that rent from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpubroker import AsyncBroker, Event, Plugin
from gpubroker.testing import ScriptedCloud, VirtualWallClock, offer, virtual_backend


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each event loop, in virtual time."""
    return virtual_backend(request.param)


@pytest.fixture
def now() -> VirtualWallClock:
    """Wall time that moves with the event loop."""
    return VirtualWallClock()


@pytest.fixture
def cloud(now: VirtualWallClock) -> ScriptedCloud:
    """Rents out a 4090 at 36 cents per hour, a second one at 40, and an A100 at 1.20."""
    return ScriptedCloud(
        now=now,
        offers=[
            offer("RTX 4090", "0.36", id="cheap", host="h1"),
            offer("RTX 4090", "0.40", id="dear", host="h2"),
            offer("A100 80GB SXM", "1.20", id="big", vram=80, compute_capability=8.0, host="h3"),
        ],
    )


@pytest.fixture
def events() -> list[Event]:
    """Everything that the brokers of this test reported."""
    return []


MakeBroker = Callable[..., AsyncBroker]


@pytest.fixture
def broker_on(now: VirtualWallClock, events: list[Event]) -> MakeBroker:
    """Makes a broker on scripted clouds, with a budget of 5 USD per job unless told otherwise."""

    def make(*clouds: ScriptedCloud, **options: Any) -> AsyncBroker:
        plugins = [Plugin(c.name, c.factory, "scripted", given=True) for c in clouds]
        defaults: dict[str, Any] = {
            "ledger": ":memory:",
            "budget": "5",
            "plugins": plugins,
            "on_event": events.append,
            "now": now,
            "seed": 1,
        }
        return AsyncBroker(**{**defaults, **options})

    return make
