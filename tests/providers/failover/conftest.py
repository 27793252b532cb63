"""Fixtures: both emulated vendors at once, and a broker that rents from whichever is cheaper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from tests.providers.runpod.documents import held_against_documents

from gpubroker import AsyncBroker, Budget, Event, Money, Settings
from gpubroker.transport.ssh import missing_client
from gpubroker_runpod.emulator import RunPodEmulator
from gpubroker_vast.emulator import VastEmulator

if (problem := missing_client()) is not None:
    pytest.skip(problem, allow_module_level=True)

TYPE: Final = "NVIDIA GeForce RTX 4090"


@dataclass(frozen=True)
class Vendors:
    """Two vendors that have RTX 4090 to rent: one machine each that is cheaper than all others.

    Attributes:
        cheap: name of the one that is cheaper. dear: of the other one.
    """

    vast: VastEmulator
    runpod: RunPodEmulator
    cheap: str
    dear: str

    def run_out(self, name: str) -> None:
        """From now on there is no such machine at this vendor, whatever it has offered."""
        if name == "runpod":
            self.runpod.set_stock(0, gpu=TYPE)
            return
        for row in self.vast.offers():
            if row["gpu_name"] == "RTX 4090":
                self.vast.change_offer(row["id"], taken=True)

    def never_boots(self, name: str) -> None:
        """From now on every machine of this vendor stops half-way through its boot."""
        if name == "runpod":
            self.runpod.next_pod("never-runs", times=None)
        else:
            self.vast.next_instance("stuck-loading", times=None)

    def lose(self, name: str) -> None:
        """The machine that runs at this vendor is gone, without notice."""
        if name == "runpod":
            (pod,) = self.runpod.machines()
            self.runpod.afflict(pod["id"], "dies")
        else:
            (instance,) = self.vast.instances()
            self.vast.afflict(instance["id"], "vanish")

    @property
    def billing_now(self) -> tuple[str, ...]:
        """What costs money at this moment, by both vendors' own books."""
        return (*self.vast.billing_now(), *self.runpod.billing_now())


@pytest.fixture(params=["vast", "runpod"])
def vendors(request: pytest.FixtureRequest) -> Iterator[Vendors]:
    """Both, each in turn the cheaper one."""
    cheap: str = request.param
    with (
        held_against_documents(),
        VastEmulator(
            seed=1,
            ssh_server="built-in",
            scheduling=0.01,
            boot=0.05,
            stopping=0.01,
            vanishing=0.05,
            charge_digits=6,
        ) as vast,
        RunPodEmulator(
            seed=1,
            ssh_server="built-in",
            scheduling=0.01,
            boot=0.05,
            vanishing=0.05,
        ) as runpod,
    ):
        rows = [row for row in vast.offers() if row["gpu_name"] == "RTX 4090"]
        rows.sort(key=lambda row: row["num_gpus"])
        vast.change_offer(rows[0]["id"], price="0.05" if cheap == "vast" else "0.10")
        place = places(runpod)[0]
        runpod.set_stock(0, gpu=TYPE)
        runpod.set_price(TYPE, "0.05" if cheap == "runpod" else "0.10")
        runpod.set_stock(4, gpu=TYPE, cloud="SECURE", place=place)
        yield Vendors(vast, runpod, cheap, "runpod" if cheap == "vast" else "vast")
        assert (*vast.leaks, *runpod.leaks) == ()


def places(runpod: RunPodEmulator) -> list[str]:
    """The data centers that have such cards."""
    answer = httpx.get(
        f"{runpod.url}/v2/catalog/gpus/{TYPE}",
        params={"include": "AVAILABILITY", "product": "POD"},
        headers={"Authorization": f"Bearer {runpod.key}", "User-Agent": "tests"},
        trust_env=False,
    )
    return [place["id"] for place in answer.raise_for_status().json()["dataCenters"]]


@pytest.fixture
def events() -> list[Event]:
    """Everything that the brokers of this test reported."""
    return []


MakeBroker = Callable[..., AsyncBroker]


@pytest.fixture
def broker_on(tmp_path: Path, events: list[Event], vendors: Vendors) -> MakeBroker:
    """Makes brokers that rent from both vendors; `options` are settings of both providers."""

    def make(options: dict[str, str] | None = None, **arguments: Any) -> AsyncBroker:
        quick = {"poll_interval": "0.05", "absence_interval": "0.05", **(options or {})}
        settings = Settings(
            ledger=tmp_path / "ledger.db",
            budget=Budget(job=Money(5)),
            providers={
                "vast": {"url": vendors.vast.url, **vendors.vast.options, **quick},
                "runpod": {"url": vendors.runpod.url, **vendors.runpod.options, **quick},
                "local": {"enabled": "false"},
            },
            keys={"vast": vendors.vast.key, "runpod": vendors.runpod.key},
        )
        defaults: dict[str, Any] = {"on_event": events.append, "close_wait": 20.0}
        return AsyncBroker(settings=settings, **{**defaults, **arguments})

    return make
