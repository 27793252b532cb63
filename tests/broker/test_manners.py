"""Programs that leave in every way there is, without closing anything: real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpubroker import Broker, LeaseState

from .conftest import Start

pytestmark = pytest.mark.usefixtures("own_settings")

BACKENDS = ["asyncio", "trio"]
#: Seconds that a program may take with all that it imports; what it may not do is to wait a minute.
PATIENCE = 50

CANCELLED = """
import asyncio, os, anyio
from gpubroker import AsyncBroker
async def main():
    async with AsyncBroker() as broker:
        call = asyncio.ensure_future(broker.run("touch {begun}; sleep 1000"))
        while not os.path.exists({begun!r}):
            await asyncio.sleep(0.02)
        {cancel}
        print(call.cancelled())
asyncio.run(main())
"""
#: Each leaves `call` behind cancelled.
STYLES = {
    "twice at once": """
        call.cancel(); call.cancel()
        await asyncio.wait([call])""",
    "twice, one after the other": """
        call.cancel(); await asyncio.sleep(0); await asyncio.sleep(0); call.cancel()
        await asyncio.wait([call])""",
    "wait_for, then cancel": """
        waiting = asyncio.ensure_future(asyncio.wait_for(call, 0.05))
        await asyncio.sleep(0.1); waiting.cancel()
        await asyncio.wait([waiting]); await asyncio.wait([call])""",
    "cancel, then wait_for": """
        waiting = asyncio.ensure_future(asyncio.wait_for(call, 0.1))
        await asyncio.sleep(0.02); waiting.cancel()
        await asyncio.wait([waiting]); await asyncio.wait([call])""",
    "a time-out in a time-out": """
        try:
            async with asyncio.timeout(0.05):
                async with asyncio.timeout(0.05):
                    await call
        except TimeoutError:
            pass""",
}


@pytest.mark.parametrize("style", STYLES)
def test_native_cancellation_gives_the_machine_up(start: Start, tmp_path: Path, style: str) -> None:
    """However often and through whatever asyncio cancels, the release is asked for and proven."""
    begun = str(tmp_path / "begun")
    program = start(CANCELLED.format(begun=begun, cancel=STYLES[style].strip()))

    out, err = program.communicate(timeout=PATIENCE)

    assert (out, err) == ("True\n", "")
    assert_released()


LEFT_OPEN = """
import anyio, os
from gpubroker import AsyncBroker
async def main():
    broker = AsyncBroker(close_wait=3600)
    await broker.__aenter__()
    holding = broker.lease()
    lease = await holding.__aenter__()
    print(lease.id, flush=True)
    {leave}
anyio.run(main, backend={backend!r})
"""


@pytest.mark.parametrize(
    "leave", ["pass", "raise SystemExit(0)", "os._exit(0)", "raise ValueError"]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_that_leaves_an_open_broker_ends(start: Start, backend: str, leave: str) -> None:
    """It does not hang; what it held is on record, and the next sweep ends it."""
    program = start(LEFT_OPEN.format(backend=backend, leave=leave))

    out, _ = program.communicate(timeout=PATIENCE)
    with Broker() as broker:
        broker.wait_released(out.strip(), timeout=PATIENCE)

    assert_released()


CANNOT_RELEASE = """
import math, {leaving}
from gpubroker import Broker, Plugin, Requirements
from gpubroker.testing import ScriptedCloud, offer
cloud = ScriptedCloud(offers=[offer("RTX 4090", "0.40")])
cloud.release_fails(until=math.inf)
plugin = Plugin("scripted", cloud.factory, "test", given=True)
broker = Broker(plugins=[plugin], budget="5", release_wait=3600, close_wait=3600)
holding = broker.lease(Requirements(gpu="RTX 4090"))
lease = holding.__enter__()
print(lease.id, flush=True)
{leave}
"""


@pytest.mark.deep
@pytest.mark.parametrize("leave", ["", "sys.exit(0)", "raise ValueError", "os._exit(0)"])
def test_a_machine_that_cannot_be_released_keeps_no_program_from_exiting(
    start: Start, leave: str
) -> None:
    """Exiting helps with the release for seconds, and leaves the rest on record."""
    program = start(CANNOT_RELEASE.format(leaving="os, sys", leave=leave))

    out, _ = program.communicate(timeout=PATIENCE)
    with Broker(sweep=False) as broker:
        (row,) = broker.leases()

    assert row.id == out.strip()
    assert leave == "os._exit(0)" or row.release_requested_at is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_child_of_a_fork_is_refused_and_ends_nothing(start: Start, backend: str) -> None:
    """An open asynchronous broker is its process's own; the parent's lease outlives the child."""
    program = start(
        f"""
        import os, anyio
        from gpubroker import AsyncBroker, BrokerClosed
        async def main():
            async with AsyncBroker(sweep=False) as broker, broker.lease() as lease:
                if (child := os.fork()) == 0:
                    try:
                        await broker.leases()
                    except BrokerClosed as error:
                        print(error, flush=True)
                    lease.release()
                    os._exit(0)
                os.waitpid(child, 0)
                print((await lease.run("echo parent")).text, end="")
        anyio.run(main, backend={backend!r})
        """
    )

    out, err = program.communicate(timeout=PATIENCE)

    assert out.splitlines() == [
        "this broker belongs to the process before the fork; open a new one",
        "parent",
    ], err
    assert_released()


def assert_released() -> None:
    """Everything that was ever rented is proven gone, and the ledger keeps its rules."""
    with Broker(sweep=False) as broker:
        assert {row.state for row in broker.leases(open_only=False)} == {LeaseState.RELEASED}
        assert broker.verify() == []
