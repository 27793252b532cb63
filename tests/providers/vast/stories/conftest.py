"""Fixtures: an emulated Vast.ai over real HTTP and SSH, and brokers that rent from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from gpubroker import AsyncBroker, Budget, Event, Money, Settings
from gpubroker.transport.ssh import missing_client
from gpubroker_vast.emulator import VastEmulator

if (problem := missing_client()) is not None:
    pytest.skip(problem, allow_module_level=True)


@pytest.fixture
def cloud() -> Iterator[VastEmulator]:
    """A calm cloud that boots at once, and whose bills are exact to the micro-dollar."""
    with VastEmulator(
        seed=1,
        ssh_server="built-in",
        scheduling=0.01,
        boot=0.05,
        stopping=0.01,
        vanishing=0.05,
        charge_digits=6,
    ) as emulator:
        yield emulator
        assert emulator.leaks == ()


@pytest.fixture
def events() -> list[Event]:
    """Everything that the brokers of this test reported."""
    return []


MakeBroker = Callable[..., AsyncBroker]


def settings_for(cloud: VastEmulator, ledger: Path, **options: str) -> Settings:
    """Settings that rent from `cloud` alone, 5 USD per job."""
    return Settings(
        ledger=ledger,
        budget=Budget(job=Money(5)),
        providers={
            "vast": {"url": cloud.url, **cloud.options, **options},
            "local": {"enabled": "false"},
        },
        keys={"vast": cloud.key},
    )


@pytest.fixture
def broker_on(tmp_path: Path, events: list[Event], cloud: VastEmulator) -> MakeBroker:
    """Makes brokers that rent from the emulated cloud and share one ledger.

    Keyword arguments are the broker's; `options` are the provider's settings.
    """

    def make(options: dict[str, str] | None = None, **arguments: Any) -> AsyncBroker:
        settings = settings_for(cloud, tmp_path / "ledger.db", **(options or {}))
        defaults: dict[str, Any] = {"on_event": events.append, "close_wait": 20.0}
        return AsyncBroker(settings=settings, **{**defaults, **arguments})

    return make
