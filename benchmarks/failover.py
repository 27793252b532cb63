"""From a provider's "no capacity" to the next create leaving."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from statistics import median
from typing import Literal

import anyio

from benchmarks.figures import Figure
from benchmarks.one_job import commit, durable_table
from gpubroker import (
    AccountSettings,
    AsyncBroker,
    Emit,
    ErrorKind,
    Machine,
    Offer,
    Order,
    Plugin,
    Policy,
    ProviderError,
    ProviderFacts,
    Requirements,
    Retry,
    hookimpl,
)
from gpubroker.testing import ScriptedCloud, ScriptedPlugin, offer

_OFFERS = 30


def failovers(rounds: int, home: Path) -> list[Figure]:
    """Offer after offer refuses; the ledger is a real file, as durable as ever."""
    figures: list[Figure] = []
    loops: tuple[Literal["asyncio", "trio"], ...] = ("asyncio", "trio")
    for loop in loops:
        between, one = anyio.run(_failovers, rounds, home / loop, backend=loop)
        figures.append(
            Figure(
                what=f"no capacity to the next create, {loop}",
                value=between,
                unit="ms",
                beside="two durable commits",
                other=2 * one,
                limit=2 * one + 2,
                note="the target is two durable commits and 2 ms",
            )
        )
    return figures


async def _failovers(rounds: int, home: Path) -> tuple[float, float]:
    home.mkdir()
    moments: list[tuple[str, float]] = []
    facts = ProviderFacts(
        paid=True, visibility_horizon=0, absence_readings=1, absence_interval=0, poll_interval=0.01
    )
    cloud = ScriptedCloud(
        facts=facts,
        offers=[offer("RTX 4090", f"0.{n}", id=f"o{n}") for n in range(10, 10 + _OFFERS)],
    )

    class Timed(ScriptedPlugin):
        @hookimpl
        async def provision(self, offer: Offer, order: Order) -> Machine:
            moments.append(("sent", time.perf_counter()))
            try:
                return await super().provision(offer, order)
            except ProviderError:
                moments.append(("refused", time.perf_counter()))
                raise

    def factory(settings: AccountSettings, emit: Emit) -> ScriptedPlugin:
        plugin = cloud.factory(settings, emit)
        plugin.__class__ = Timed
        return plugin

    plugin = Plugin("scripted", factory, "benchmark", given=True)
    policy = Policy(retry=Retry(max_attempts=_OFFERS))
    async with AsyncBroker(ledger=home / "ledger.db", budget="50", plugins=[plugin]) as broker:
        for _ in range(rounds):
            cloud.next_create_fails(ErrorKind.CAPACITY, times=_OFFERS - 1)
            await broker.run(["true"], Requirements(gpu="RTX 4090"), policy=policy)
    table = durable_table(home / "floor.db")
    commits: list[float] = []
    for number in range(200):
        began = time.perf_counter()
        commit(table, number)
        commits.append(time.perf_counter() - began)
    table.close()
    pairs = itertools.pairwise(moments)
    between = [then - was for (a, was), (b, then) in pairs if (a, b) == ("refused", "sent")]
    return median(between) * 1000, median(commits) * 1000
