"""Fixtures: an emulated RunPod over real HTTP and SSH, and brokers that rent from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from tests.providers.runpod.documents import held_against_documents

from gpubroker import AsyncBroker, Budget, Event, Money, Settings
from gpubroker.lifecycle.releasing import release
from gpubroker.transport.ssh import missing_client
from gpubroker_runpod import provider
from gpubroker_runpod.emulator import RunPodEmulator
from gpubroker_runpod.log_work import LogSource, LogWork

from .watching import check_creates

if (problem := missing_client()) is not None:
    pytest.skip(problem, allow_module_level=True)


@pytest.fixture
def cloud() -> Iterator[RunPodEmulator]:
    """A calm cloud that boots at once; no create was sent twice in the end, and no secret lost.

    What is said to it and by it is as in the vendor's documents.
    """
    with (
        held_against_documents(),
        RunPodEmulator(
            seed=1,
            ssh_server="built-in",
            scheduling=0.01,
            boot=0.05,
            restart_pause=0.02,
            vanishing=0.05,
        ) as emulator,
    ):
        yield emulator
        check_creates(emulator)
        assert emulator.leaks == ()


@pytest.fixture(autouse=True)
def _quick_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a log that is silent for a moment to be at its end, and try again soon what fails."""

    def quick(source: LogSource, **_: object) -> LogWork:
        return LogWork(source, idle=1.0, settled=0.1, pause=0.05)

    monkeypatch.setattr(provider, "LogWork", quick)


@pytest.fixture
def _asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again at once where a release has failed."""

    def soon(*_: object, **__: object) -> float:
        return 0.05

    monkeypatch.setattr(release, "delay", soon)


@pytest.fixture
def events() -> list[Event]:
    """Everything that the brokers of this test reported."""
    return []


MakeBroker = Callable[..., AsyncBroker]


def settings_for(cloud: RunPodEmulator, ledger: Path, **options: str) -> Settings:
    """Settings that rent from `cloud` alone, 5 USD per job."""
    return Settings(
        ledger=ledger,
        budget=Budget(job=Money(5)),
        providers={
            "runpod": {"url": cloud.url, **cloud.options, **options},
            "local": {"enabled": "false"},
        },
        keys={"runpod": cloud.key},
    )


@pytest.fixture
def broker_on(tmp_path: Path, events: list[Event], cloud: RunPodEmulator) -> MakeBroker:
    """Makes brokers that rent from the emulated cloud and share one ledger.

    Keyword arguments are the broker's; `options` are the provider's settings.
    """

    def make(options: dict[str, str] | None = None, **arguments: Any) -> AsyncBroker:
        settings = settings_for(cloud, tmp_path / "ledger.db", **(options or {}))
        defaults: dict[str, Any] = {"on_event": events.append, "close_wait": 20.0}
        return AsyncBroker(settings=settings, **{**defaults, **arguments})

    return make
