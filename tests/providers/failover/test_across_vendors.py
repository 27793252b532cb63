"""When the cheaper vendor cannot, the other one does: at each moment at which it may turn out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from gpubroker import (
    AsyncBroker,
    AttemptState,
    ErrorKind,
    Event,
    EventKind,
    Job,
    Requirements,
    Result,
)
from gpubroker.transport.work import follow

from .conftest import MakeBroker, Vendors

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090", count=1)


def work(tmp_path: Path) -> Job:
    """A job that brings a file back, and so needs a way to its machine."""
    return Job("echo done > out; echo ok", outputs="out", output_dir=tmp_path, retries=1)


def check_done_elsewhere(vendors: Vendors, result: Result, tmp_path: Path) -> None:
    """The other vendor did it, the record says why, and nobody's books show anything running."""
    assert result.ok
    assert result.provider == vendors.dear
    assert (tmp_path / "out").read_text() == "done\n"
    last = result.record.attempts[-1]
    assert (last.provider, last.state) == (vendors.dear, AttemptState.WON)
    assert result.record.winner == last
    assert f"from {vendors.dear}" in result.record.why
    first = result.record.attempts[0]
    assert first.provider == vendors.cheap
    assert first.reason
    assert vendors.billing_now == ()


def told(action: Callable[[], None], kind: EventKind, vendor: str) -> Callable[[Event], None]:
    """Does something at the first event of a kind that is about a vendor."""
    done: list[Event] = []

    def on_event(event: Event) -> None:
        if event.kind is kind and event.provider == vendor and not done:
            done.append(event)
            action()

    return on_event


async def test_the_cheaper_one_does_it_where_it_can(
    vendors: Vendors, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """The others are not even asked for a machine."""
    async with broker_on() as broker:
        result = await broker.run(work(tmp_path), A_4090)

    assert result.ok
    assert result.provider == vendors.cheap
    assert len(result.record.attempts) == 1
    assert vendors.billing_now == ()


async def test_it_runs_out_between_quote_and_create(
    vendors: Vendors, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """What was offered a moment ago is refused, and not waited for."""
    on_event = told(lambda: vendors.run_out(vendors.cheap), EventKind.ATTEMPT, vendors.cheap)

    async with broker_on(on_event=on_event) as broker:
        result = await broker.run(work(tmp_path), A_4090)

    check_done_elsewhere(vendors, result, tmp_path)
    first = result.record.attempts[0]
    assert (first.state, first.kind) == (AttemptState.FAILED, ErrorKind.CAPACITY)


async def test_its_machine_does_not_come_up(
    vendors: Vendors, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """One that boots for ever is given up, and paid for no longer."""
    vendors.never_boots(vendors.cheap)

    async with broker_on({"boot_timeout": "1"}) as broker:
        result = await broker.run(work(tmp_path), A_4090)
        (lost, _) = sorted(await broker.leases(open_only=False), key=lambda row: row.created_at)
        await broker.wait_released(lost.id, timeout=15)

    check_done_elsewhere(vendors, result, tmp_path)
    first = result.record.attempts[0]
    assert (first.state, first.kind) == (AttemptState.FAILED, ErrorKind.HOST_BROKEN)
    assert "no progress" in first.reason


async def test_its_machine_is_lost_under_the_job(
    vendors: Vendors,
    broker_on: MakeBroker,
    tmp_path: Path,
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job is started again on the other one's, as its retries allow."""
    # That is how long the job would be told to end, on a machine that is not there.
    monkeypatch.setattr(follow, "_CANCELLING", 0.1)
    flag = tmp_path / "flag"
    script = 'if [ -e "$FLAG" ]; then echo done > out; else : > "$FLAG"; sleep 60; fi'
    job = Job(script, env={"FLAG": str(flag)}, outputs="out", output_dir=tmp_path, retries=1)
    results: list[Result] = []

    async with broker_on() as broker, anyio.create_task_group() as tasks:

        async def run() -> None:
            results.append(await broker.run(job, A_4090))
            tasks.cancel_scope.cancel()

        tasks.start_soon(run)
        with anyio.fail_after(30):
            while not flag.exists():
                await anyio.sleep(0.01)
        vendors.lose(vendors.cheap)
        tasks.start_soon(sweeping, broker)

    (result,) = results
    check_done_elsewhere(vendors, result, tmp_path)
    assert result.record.attempts[0].state is AttemptState.LOST
    assert any(e.kind is EventKind.RELEASING and e.provider == vendors.cheap for e in events)


async def test_its_api_refuses_the_form_of_the_request(
    vendors: Vendors, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """A vendor that has changed what it takes does not keep the other one from doing the job."""
    cloud = vendors.vast if vendors.cheap == "vast" else vendors.runpod
    cloud.faults.add("create", "status", times=None, status=422)

    async with broker_on() as broker:
        result = await broker.run(work(tmp_path), A_4090)

    check_done_elsewhere(vendors, result, tmp_path)


async def test_its_key_is_revoked(vendors: Vendors, broker_on: MakeBroker, tmp_path: Path) -> None:
    """The account may not rent any more: the other one's may."""
    cloud = vendors.vast if vendors.cheap == "vast" else vendors.runpod
    on_event = told(lambda: cloud.revoke_key(401), EventKind.ATTEMPT, vendors.cheap)

    async with broker_on(on_event=on_event) as broker:
        result = await broker.run(work(tmp_path), A_4090)

    check_done_elsewhere(vendors, result, tmp_path)
    assert result.record.attempts[0].kind is ErrorKind.AUTH


async def sweeping(broker: AsyncBroker) -> None:
    """Look for what is lost, more often than a broker does by itself."""
    while True:
        await broker.sweep()
        await anyio.sleep(0.1)
