"""The main job: rent the cheapest machine that fits, run the job over SSH, and destroy it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpubroker import HostIdentity, Job, JobState, Requirements
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


async def test_a_job_runs_on_the_cheapest_machine_and_nothing_bills_on(
    cloud: VastEmulator, broker_on: MakeBroker, tmp_path: Path
) -> None:
    """Files in, output and files out, the machine destroyed, and its identity proven by its log."""
    job = Job(
        ["sh", "-c", 'cat in.txt; echo "$WORD" >&2; mkdir sub; cp in.txt "sub/out 1.txt"; exit 3'],
        files={"in.txt": b"hello\n"},
        outputs=["sub"],
        output_dir=tmp_path / "results",
        env={"WORD": 'it\'s "quoted"\n$HOME'},
        timeout=60,
    )
    async with broker_on() as broker:
        result = await broker.run(job, A_4090)
        await broker.wait_released(result.lease_id)

    cheapest = min(
        row["dph_total"]
        for row in cloud.offers()
        if row["gpu_name"] == "RTX 4090"
        and row["num_gpus"] == 1
        and row["verification"] == "verified"
    )
    assert [attempt.reason for attempt in result.record.attempts] == [""]
    assert (result.state, result.exit_code) == (JobState.EXITED, 3)
    assert result.stdout == b"hello\n"
    assert result.stderr == b'it\'s "quoted"\n$HOME\n'
    assert (tmp_path / "results/sub/out 1.txt").read_bytes() == b"hello\n"
    assert result.host_identity is HostIdentity.PINNED
    assert float(result.record.attempts[-1].hourly.amount) == pytest.approx(
        float(cheapest), rel=0.1
    )
    assert cloud.billing_now() == ()
    assert len([r for r in cloud.requests if r.method == "PUT" and "/asks/" in r.path]) == 1
