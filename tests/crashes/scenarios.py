"""What brokers do when they are killed: from one happy job to a reaper's own work."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from httpx._transports import default
from tests.crashes.vendors import Address, afflict

import gpubroker_runpod
import gpubroker_vast
from gpubroker import (
    AccountSettings,
    AcquireError,
    AsyncBroker,
    Budget,
    Event,
    EventKind,
    Job,
    LeaseState,
    Money,
    Plugin,
    Policy,
    Requirements,
    Retry,
    Settings,
    fixed,
)
from gpubroker.lifecycle import owner
from gpubroker.lifecycle.reaping import reap as reap_module
from gpubroker.lifecycle.releasing import release
from gpubroker.model.places import Place as LedgerPlace
from gpubroker.policy.transitions import HELD
from gpubroker_runpod import provider
from gpubroker_runpod.emulator import RunPodEmulator
from gpubroker_runpod.log_work import LogSource, LogWork
from gpubroker_vast.emulator import VastEmulator

A_4090: Final = Requirements(gpu="RTX 4090", count=1)
INPUT: Final = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(2000))
BUDGET: Final = Money(5)
#: Seconds that a reaper may take, while the vendors answer, until nothing is left.
BOUND: Final = 20.0
_HORIZON: Final = 0.15
_NO_CERTIFICATES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one trial happens.

    Attributes:
        folder: empty at its beginning. ledger: a file, or a database.
        addresses: of the vendors. seed: of the victim.
    """

    folder: Path
    ledger: LedgerPlace
    addresses: Mapping[str, Address]
    seed: int

    @property
    def output(self) -> Path:
        """The file that jobs bring back: whole, or not there."""
        return self.folder / "back" / "out"

    def broker(
        self,
        vendors: tuple[str, ...],
        *,
        seed: int | None = None,
        sweep: bool = True,
        on_event: Callable[[Event], None] | None = None,
    ) -> AsyncBroker:
        """A broker that rents from these vendors and has no patience."""
        names = ("vast", "runpod")
        quick = {
            "poll_interval": "0.02",
            "absence_interval": "0.02",
            "visibility_horizon": str(_HORIZON),
        }
        options: dict[str, dict[str, str]] = {"local": {"enabled": "false"}}
        for name in names:
            address = self.addresses[name]
            options[name] = {**address.options, **quick, "url": address.url}
            options[name]["enabled"] = "true" if name in vendors else "false"
        options["runpod"]["way"] = "log"
        settings = Settings(
            ledger=self.ledger,
            budget=Budget(job=BUDGET),
            providers=options,
            keys={name: self.addresses[name].key for name in names},
        )
        return AsyncBroker(
            settings=settings,
            plugins=_PLUGINS,
            on_event=on_event,
            seed=seed,
            close_wait=BOUND,
            sweep=sweep,
        )


def _quick(
    create: Callable[..., Any], settings: AccountSettings, emit: Callable[[str, str], None]
) -> Any:
    plugin = create(settings, emit)
    plugin.facts = replace(plugin.facts, late_create_watch=2 * _HORIZON)
    return plugin


_PLUGINS: Final = [
    Plugin("vast", partial(_quick, gpubroker_vast.create), "crashes"),
    Plugin("runpod", partial(_quick, gpubroker_runpod.create), "crashes"),
]


def hurry() -> None:
    """Have this process wait for nothing that only real vendors need time for."""

    def soon(*_: object, **__: object) -> float:
        return 0.05

    def no_certificates(**_: object) -> ssl.SSLContext:
        return _NO_CERTIFICATES

    def log(source: LogSource, **_: object) -> LogWork:
        return LogWork(source, idle=1.0, settled=0.02, pause=0.02)

    # Certificates take a fifth of a second to be read, and no vendor here shows one.
    stand_ins: tuple[tuple[Any, str, Any], ...] = (
        (default, "create_ssl_context", no_certificates),
        (release, "delay", soon),
        # A process that stands still is there all the while.
        (owner, "SILENCE", 0.0),
        (reap_module, "LOOK_AGAIN_FOR_OWNERS", 0.05),
        (provider, "LogWork", log),
    )
    for place, name, value in stand_ins:
        setattr(place, name, value)


async def reap(place: Place, *, seed: int | None = None) -> None:
    """A reaper: it sweeps until nothing is open, or its time is over."""
    async with AsyncExitStack() as stack:
        broker = place.broker(("vast", "runpod"), sweep=False, seed=seed)
        await stack.enter_async_context(broker)
        with anyio.move_on_after(BOUND):
            while True:
                await broker.sweep()
                if not await broker.leases():
                    return
                await anyio.sleep(0.03)


Play = Callable[[Place], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One story.

    Attributes:
        prepare: sets the vendors up for it.
        play: what the victim does. It raises where it does not end as it should.
        first: what happened before, at this point of it a broker was killed.
        cost: about how long it takes, as a multiple of the cheapest.
    """

    name: str
    play: Play
    prepare: Callable[[VastEmulator, RunPodEmulator], None]
    first: tuple[Play, str] | None = None
    cost: int = 1


# ---- how vendors behave -----------------------------------------------------------------------


def calm(vast: VastEmulator, runpod: RunPodEmulator) -> None:
    """Everything goes well."""


def no_boot(vast: VastEmulator, runpod: RunPodEmulator) -> None:
    """The first machine of one vendor does not boot."""
    vast.next_instance("boot-failure", times=None)


def lost_reply(vast: VastEmulator, runpod: RunPodEmulator) -> None:
    """The answer to the first create is lost, and its machine runs."""
    runpod.faults.add("create", "drop", when="after")


def errs_but_bills(vast: VastEmulator, runpod: RunPodEmulator) -> None:
    """The first create is refused, and its machine bills all the same."""
    vast.faults.add("create", "stopped-contract")


def no_destroy(vast: VastEmulator, runpod: RunPodEmulator) -> None:
    """The first two destroys fail."""
    runpod.faults.add("delete", "server-error")
    runpod.faults.add("delete", "drop", nth=2)


# ---- what victims do --------------------------------------------------------------------------


async def _files(place: Place) -> None:
    job = Job(
        "cat in > out; echo ok",
        files={"in": INPUT},
        outputs="out",
        output_dir=place.output.parent,
        timeout=60,
    )
    async with place.broker(("vast",), seed=place.seed) as broker:
        result = await broker.run(job, A_4090)
    assert result.ok, result
    assert place.output.read_bytes() == INPUT


async def _log(place: Place, vendors: tuple[str, ...] = ("runpod",), attempts: int = 1) -> None:
    async with place.broker(vendors, seed=place.seed) as broker:
        result = await broker.run(Job("echo ok", timeout=60), A_4090)
    assert result.text == "ok\n", result
    assert len(result.record.attempts) == attempts, result.record.attempts


async def _refused(place: Place) -> None:
    policy = Policy(retry=Retry(max_attempts=1))
    async with place.broker(("vast",), seed=place.seed) as broker:
        try:
            await broker.run(Job("echo ok", timeout=60), A_4090, policy=policy)
        except AcquireError:
            return
    raise AssertionError("that create was refused")


async def _preempted(place: Place) -> None:
    flag = place.folder / "flag"
    script = 'if [ -e "$FLAG" ]; then echo ok; else : > "$FLAG"; sleep 60; fi'
    job = Job(script, env={"FLAG": str(flag)}, timeout=60, retries=1)
    seen: list[EventKind] = []
    async with (
        place.broker(
            ("runpod",), seed=place.seed, on_event=lambda event: seen.append(event.kind)
        ) as broker,
        anyio.create_task_group() as tasks,
    ):

        async def lose_it() -> None:
            # A pod begins its job by itself, before anybody has heard of its cards.
            while EventKind.RUNNING not in seen or not flag.exists():
                await anyio.sleep(0.01)
            afflict(place.addresses["runpod"], "pod", "dies")
            while True:
                await broker.sweep()
                await anyio.sleep(0.05)

        tasks.start_soon(lose_it)
        result = await broker.run(job, A_4090)
        assert result.text == "ok\n", result
        tasks.cancel_scope.cancel()


async def _several(place: Place) -> None:
    async with place.broker(("vast",), seed=place.seed) as broker:
        async with broker.lease(A_4090) as lease:
            first = await lease.run(Job(["echo", "1"], timeout=60))
            second = await lease.run(
                Job("printf 2 > out", outputs="out", output_dir=place.folder / "two", timeout=60)
            )
    assert first.ok
    assert second.ok
    assert (place.folder / "two" / "out").read_text() == "2"


async def _pools(place: Place) -> None:
    """One leaves its machine idle, another one takes it; at last nobody uses it."""
    shared: dict[str, Any] = {"name": "trial", "keep_warm": fixed(1)}
    job = Job("cat in > out", files={"in": INPUT}, outputs="out", output_dir=place.output.parent)
    async with (
        place.broker(("vast",), seed=place.seed) as one,
        place.broker(("vast",), seed=place.seed + 1) as two,
        one.pool(A_4090, **shared) as first,
        two.pool(A_4090, **shared) as second,
    ):
        results = [await first.run(["echo", "1"]), await second.run(job)]
        with anyio.fail_after(BOUND):
            while any(row.state in HELD for row in await one.leases()):
                await anyio.sleep(0.02)
    assert all(result.ok for result in results), results
    assert len({result.lease_id for result in results}) == 1, results
    assert place.output.read_bytes() == INPUT


async def _reap(place: Place) -> None:
    await reap(place, seed=place.seed)
    async with place.broker((), sweep=False) as broker:
        assert await broker.leases() == []


async def _start_up(place: Place) -> None:
    seen: list[Event] = []
    async with place.broker(("runpod",), seed=place.seed, on_event=seen.append) as broker:
        result = await broker.run(Job("echo ok", timeout=60), A_4090)
        with anyio.fail_after(BOUND):
            while any(row.state is not LeaseState.LATE_WATCH for row in await broker.leases()):
                await anyio.sleep(0.02)
    assert result.text == "ok\n", result
    assert any(event.kind is EventKind.FOUND for event in seen)


SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="files-over-ssh", play=_files, prepare=calm, cost=3),
        Scenario(name="work-by-log", play=_log, prepare=calm),
        Scenario(
            name="failover",
            play=partial(_log, vendors=("vast", "runpod"), attempts=2),
            prepare=no_boot,
            cost=2,
        ),
        Scenario(name="lost-reply", play=_log, prepare=lost_reply),
        Scenario(name="errs-but-bills", play=_refused, prepare=errs_but_bills),
        Scenario(name="destroy-fails", play=_log, prepare=no_destroy),
        Scenario(name="preempted", play=_preempted, prepare=calm, cost=2),
        Scenario(name="several-jobs", play=_several, prepare=calm, cost=3),
        Scenario(name="pools", play=_pools, prepare=calm, cost=4),
        Scenario(
            name="reaper",
            play=_reap,
            prepare=calm,
            first=(_log, "POST /v2/pods: before its answer is read"),
        ),
        Scenario(
            name="start-up",
            play=_start_up,
            prepare=calm,
            first=(_log, "ledger move: before its commit"),
            cost=2,
        ),
    )
}
