"""Jobs of this machine whose `gpubroker run` was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpubroker import LeaseState
from gpubroker.cli.render import LeaseLine, leases_page
from gpubroker.model.money import ZERO

from .program import PATIENCE, Program, line_with


def killed_run(program: Program) -> Path:
    """Kill a run over its job; returns the file that the job waits for."""
    go = program.home / "go"
    script = f"echo begun; until [ -e {go} ]; do sleep 0.05; done; echo whole >out.txt; exit 3"
    words = ("--on-owner-death", "adopt", "--out", "out.txt", "--out-dir", "results")
    process = program.start("run", *words, "--", "sh", "-c", script)
    assert line_with(process.stdout, b"begun")
    process.kill()
    process.wait(PATIENCE)
    return go


def test_whoever_attaches_sees_how_it_ended(program: Program) -> None:
    """As at the end of a run: what came back, what it cost, and that the machine is gone."""
    killed_run(program).touch()

    said = program("attach").stderr.decode().splitlines()

    assert said[-2].startswith("gpubroker: brought back ")
    assert said[-1].startswith("gpubroker: ")
    assert said[-1].endswith("$0.00; released and proven gone")


@pytest.mark.parametrize("command", ["attach", "reap"])
def test_a_job_of_this_machine_is_gone_on_with(program: Program, command: str) -> None:
    """The local provider's runner outlives its broker, and whoever comes next delivers its job."""
    killed_run(program).touch()

    done = program(command)

    (lease,) = program.leases()
    assert done.returncode == (3 if command == "attach" else 0), done.stderr
    assert (program.work / "results/out.txt").read_text() == "whole\n"
    assert lease.state is LeaseState.RELEASED
    assert program.alive() == {}
    assert program("verify").stdout == b"1 lease, no violation\n"


def test_ps_warns_when_nobody_looks_after_open_leases(program: Program) -> None:
    """A machine that may bill while no reaper runs is said to be one."""
    killed_run(program)
    (lease,) = program.leases()
    line = LeaseLine(lease=lease, cost=ZERO, alive=False)

    seen = leases_page([line], {"local": 1000.0}, 1100.0, open_only=True).closing
    neglected = leases_page([line], {"local": 1000.0}, 1000.0 + 600, open_only=True).closing
    never = leases_page([line], {}, 2000.0, open_only=True).closing

    assert [text for text in seen if "WARNING" in text] == []
    assert "WARNING: nobody has looked after the machines at local for 10 min" in neglected[-1]
    assert "WARNING: nobody has looked after the machines at local" in never[-1]
