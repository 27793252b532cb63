"""``gpubroker adopt``, with real processes as the machines of a lost ledger."""

from __future__ import annotations

import pytest

from .program import Program


@pytest.fixture
def lost(program: Program) -> Program:
    """A program that was killed during a job, and whose ledger is gone."""
    job = program.start_job()
    job.kill()
    job.wait()
    assert program.alive()
    for file in program.home.glob("ledger.db*"):
        if file.suffix != ".key":
            file.unlink()
    return program


def test_what_a_lost_ledger_left_running_is_found_and_ended(lost: Program) -> None:
    """Listed first, and ended only when told to; the new ledger holds the proof."""
    asked = lost("adopt")
    still = lost.alive()
    done = lost.json("adopt", "--yes", "--json")
    again = lost("adopt")

    assert asked.returncode == 125
    assert b"--yes" in asked.stderr
    assert b"ours" in asked.stdout
    assert still
    assert [stray["doubt"] for stray in done["found"]] == [""]
    assert list(done["leases"].values()) == ["proven"]
    assert lost.alive() == {}
    assert again.returncode == 0
    assert b"no machine carries a mark that is not in this ledger" in again.stdout
    assert lost("verify").returncode == 0


def test_a_sweep_says_where_to_look_each_time(lost: Program) -> None:
    """The new ledger warns at its first opening alone; the machine bills on until it is adopted."""
    first, second = lost("reap"), lost("reap")

    assert b"its mark key is not" in first.stderr
    assert b"another ledger's; if that is lost, see `gpubroker adopt`" in second.stdout


def test_without_the_key_each_machine_must_be_named(lost: Program) -> None:
    """`--yes` alone touches nothing that is not provably ours."""
    (lost.home / "ledger.db.key").unlink()

    (stray,) = lost.json("adopt", "--yes", "--json")["found"]
    still = lost.alive()
    named = lost.json("adopt", "--unverified", stray["machine"]["id"], "--json")
    wrong = lost("adopt", "--unverified", "nonsense")

    assert stray["doubt"] == "its mark was not made with this key"
    assert still
    assert list(named["leases"].values()) == ["proven"]
    assert lost.alive() == {}
    assert wrong.returncode == 2
