"""The same seed gives the same simulation, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gpubroker.testing.simulation import draw, simulate
from gpubroker.testing.virtual_time import BackendName

#: Schedules in which much goes wrong, crashes among it.
SEEDS = [
    seed
    for seed in range(40)
    if len(draw(seed).faults) > 5 and any(f.what == "crash" for _, f in draw(seed).faults)
][:3]

PROGRAM = """
from gpubroker.testing.simulation import simulate
for seed in {seeds}:
    print(simulate(seed, {backend!r}).digest)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_runs_in_one_process_write_the_same_log(backend: BackendName) -> None:
    """Nothing is left over from one to the next."""
    first, other, again = (simulate(seed, backend) for seed in (SEEDS[0], SEEDS[1], SEEDS[0]))

    assert first.log == again.log
    assert first.digest != other.digest


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_other_processes_write_the_same_log(backend: BackendName) -> None:
    """Neither the seed of text hashes, nor addresses in memory, nor the time of day matter."""
    here = [simulate(seed, backend).digest for seed in SEEDS]
    program = PROGRAM.format(seeds=SEEDS, backend=backend)
    for hash_seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )

        assert done.stdout.split() == here


def test_a_schedule_can_be_read() -> None:
    """It says who takes part, and each fault with its number, by which it is kept or left out."""
    schedule = draw(SEEDS[0])

    lines = schedule.described()

    assert any(line.startswith("process-1 on host-") for line in lines)
    for number, fault in schedule.faults:
        assert f"#{number}: {fault}" in lines
    assert schedule.with_faults([1]).faults == schedule.faults[1:2]
