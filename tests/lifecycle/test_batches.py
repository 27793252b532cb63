"""A batch: every input's job is done, once, and what is finished stays finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from gpubroker import Event, EventKind, InvalidValue, Job, NoOfferFits, Requirements, Result
from gpubroker.testing import ScriptedCloud

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


def writes(folder: Path) -> Callable[[str], Job]:
    """A template whose jobs bring a file back."""
    return lambda name: Job(["make", name], outputs="out.txt", output_dir=folder / name)


async def test_every_input_gets_its_result_from_few_machines(
    cloud: ScriptedCloud, broker_on: MakeBroker, events: list[Event]
) -> None:
    """As they complete; no more machines than allowed, and none is kept when all is done."""
    cloud.job_takes(50, times=1)
    cloud.job_takes(20, times=9)
    results: dict[int, Result] = {}

    async with broker_on(cloud) as broker:
        async for index, result in broker.map("make {} {n}", "abcde", A_4090, machines=2):
            results[index] = result
        cloud.assert_nothing_running()

        assert await broker.verify() == []
    assert sorted(results) == [0, 1, 2, 3, 4]
    assert list(results) != [0, 1, 2, 3, 4]
    assert sorted(run.job.argv[2] for run in cloud.runs) == [
        f"make {c} {n}" for n, c in enumerate("abcde")
    ]
    assert len(cloud.creates) == 2
    assert [e.text for e in events if e.kind is EventKind.BATCH][-1] == "5 of 5 done"


async def test_a_failed_job_is_started_again_elsewhere(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """As often as allowed; then it is a result like another."""
    cloud.job_takes(10, times=9)
    cloud.job_exits(3, times=3)

    async with broker_on(cloud) as broker:
        results = [
            result async for _, result in broker.map("make {}", "ab", A_4090, machines=2, retries=1)
        ]

    codes = sorted(result.exit_code or 0 for result in results)
    assert codes == [0, 3]
    assert len(cloud.runs) == 4


async def test_a_batch_goes_on_where_it_was_left(
    cloud: ScriptedCloud, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Finished items are given again, not done again, unless their outputs are gone or changed."""
    cloud.job_writes({"out.txt": b"whole"}, times=99)
    cloud.job_takes(10, times=99)
    ledger, template = tmp_path / "ledger.db", writes(tmp_path)
    async with broker_on(cloud, ledger=ledger) as broker:
        results = broker.map(template, "abcd", A_4090, name="seven")
        async for index, _ in results:
            if index == 2:
                break
        await results.aclose()
        await anyio.sleep(60)
        cloud.assert_nothing_running()
    (tmp_path / "a" / "out.txt").write_bytes(b"other")
    before = len(cloud.runs)

    async with broker_on(cloud, ledger=ledger, seed=2) as broker:
        again = {i: r async for i, r in broker.map(template, "abcd", A_4090, name="seven")}
        after = len(cloud.runs)
        other = {i: r async for i, r in broker.map(template, "abcd", A_4090, name="seven")}

    done_again = [run.job.argv[1] for run in cloud.runs[before:]]
    assert sorted(again) == sorted(other) == [0, 1, 2, 3]
    assert "a" in done_again
    assert not {"b", "c"} & set(done_again)
    assert len(cloud.runs) == after
    assert (tmp_path / "a" / "out.txt").read_bytes() == b"whole"
    assert again[1].files["out.txt"].path == tmp_path / "b" / "out.txt"


async def test_without_machines_a_batch_ends_with_the_reason(
    cloud: ScriptedCloud, broker_on: MakeBroker
) -> None:
    """The loop raises it; nothing is left."""
    async with broker_on(cloud) as broker:
        with pytest.raises(NoOfferFits):
            async for _ in broker.map("make {}", "abc", Requirements(gpu="H100")):
                pass
        with pytest.raises(InvalidValue, match="neither"):
            async for _ in broker.map("make", "abc"):
                pass


async def test_leaving_the_loop_ends_what_runs(cloud: ScriptedCloud, broker_on: MakeBroker) -> None:
    """Also by an error, and also where nobody closes the iterator."""
    cloud.job_takes(1000, times=9)

    async with broker_on(cloud) as broker:
        with anyio.move_on_after(100):
            async for _ in broker.map("make {}", "abc", A_4090):
                pass
        await anyio.sleep(60)
        cloud.assert_nothing_running()
        assert await broker.leases() == []
