from __future__ import annotations

import os
import signal
import sqlite3

import pytest

from gpubroker import LeaseRow, LeaseState

from .program import PATIENCE, Program, line_with


def the_lease(program: Program) -> LeaseRow:
    (lease,) = program.leases()
    return lease


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGINT, b"interrupted"),
        (signal.SIGTERM, b"asked to terminate"),
        (signal.SIGHUP, b"the terminal was closed"),
    ],
)
def test_a_signal_gives_the_machine_up(program: Program, number: int, said: bytes) -> None:
    """One signal releases, says so, and waits for the proof; nothing runs on."""
    process = program.start_job()

    process.send_signal(number)
    _, messages = process.communicate(timeout=PATIENCE)

    assert process.returncode == 128 + number
    assert said + b": releasing the machine; press Ctrl-C again" in messages
    assert b"released and proven gone" in messages.splitlines()[-1]
    assert program.alive() == {}
    assert the_lease(program).state is LeaseState.RELEASED


def test_an_interrupted_run_says_so_in_json(program: Program) -> None:
    """Programs see which leases there were, and that they are gone."""
    process = program.start("run", "--json", "--", "sh", "-c", "echo started >&2; sleep 60")
    assert line_with(process.stderr, b"running ")
    assert line_with(process.stderr, b"started")

    process.send_signal(signal.SIGINT)
    answer, _ = process.communicate(timeout=PATIENCE)

    lease = the_lease(program).id
    assert answer.decode().strip() == (
        '{"error": {"type": "Stopped", "message": "interrupted",'
        f' "leases": {{"{lease}": "proven"}}}}}}'
    )


def test_a_second_interrupt_leaves_at_once_and_reap_goes_on(program: Program) -> None:
    """The release request is on record before anybody can leave; reap carries it out."""
    process = program.start_job()
    (runner,) = (pid for pid, job in program.alive().items() if not job)
    os.kill(runner, signal.SIGSTOP)  # now its release takes a while

    process.send_signal(signal.SIGINT)
    assert line_with(process.stderr, b"press Ctrl-C again")
    process.send_signal(signal.SIGINT)
    code = process.wait(PATIENCE)

    assert code == 130
    assert the_lease(program).release_requested_at is not None
    assert the_lease(program).state is LeaseState.RELEASING
    os.kill(runner, signal.SIGCONT)
    reaped = program("reap")
    assert reaped.returncode == 0, reaped.stderr
    assert the_lease(program).state is LeaseState.RELEASED
    assert program.alive() == {}


def test_reap_ends_what_a_killed_run_left_behind(program: Program) -> None:
    """kill -9 leaves the machine running; a fresh process finds it, ends it, and proves it."""
    process = program.start_job()

    process.kill()
    process.wait(PATIENCE)
    assert program.alive() != {}
    shown = program("ps").stdout.decode()
    reaped = program("reap")

    assert the_lease(program).id in shown
    assert "dead" in shown
    assert reaped.returncode == 0, reaped.stderr
    assert f"owner dead  {the_lease(program).id}" in reaped.stdout.decode()
    assert b"released and proven gone" in reaped.stdout
    assert program.alive() == {}
    assert the_lease(program).state is LeaseState.RELEASED
    assert program("verify").stdout == b"1 lease, no violation\n"


@pytest.mark.deep
def test_reap_looks_twice_before_it_calls_an_owner_missing(program: Program) -> None:
    """An owner on another host that is only silent gets a second look, and then is reaped."""
    process = program.start_job()
    process.kill()
    process.wait(PATIENCE)
    with sqlite3.connect(program.ledger) as sql:
        sql.execute("UPDATE owners SET host = 'elsewhere', expires_at = 0")
    sql.close()

    reaped = program("reap")

    assert b"looking again in 20 s" in reaped.stderr
    assert b"owner missing" in reaped.stdout
    assert the_lease(program).state is LeaseState.RELEASED
    assert program.alive() == {}


def test_reap_fails_where_a_provider_does_not_answer(program: Program) -> None:
    """A sweep that could not be made concludes nothing, and does not pass for a good one."""
    reaped = program("reap", VAST_API_KEY="k" * 24, GPUBROKER_VAST_URL="http://127.0.0.1:9")

    assert reaped.returncode == 125, reaped.stdout
    assert b"swept local: nothing to do" in reaped.stdout


def test_reap_goes_on_until_it_is_interrupted(program: Program) -> None:
    """`--loop` sweeps, waits, and leaves in order."""
    process = program.start("reap", "--loop")
    assert line_with(process.stdout, b"swept local: nothing to do")

    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE) == 143


def test_release_takes_a_running_job_its_machine(program: Program) -> None:
    """Another process may release any lease of the ledger; the run is told and fails."""
    process = program.start_job()

    released = program("release", the_lease(program).id)
    process.communicate(timeout=PATIENCE)

    assert released.returncode == 0
    assert b"proven gone" in released.stdout
    assert process.returncode == 125
    assert program.alive() == {}
    assert the_lease(program).state is LeaseState.RELEASED


def test_a_release_that_is_not_proven_in_time_fails(program: Program) -> None:
    """Whoever asked is told that it may still cost money; the request stays on record."""
    program.start_job()
    (runner,) = (pid for pid, job in program.alive().items() if not job)
    os.kill(runner, signal.SIGSTOP)

    released = program("release", "--all", "--proof-wait", "0.2s")

    assert released.returncode == 125
    assert b"NOT proven gone after 0.2 s" in released.stdout
    assert the_lease(program).release_requested_at is not None


def test_release_all_finds_what_only_the_account_knows(program: Program) -> None:
    """A machine with our mark that the ledger forgot is listed, and released once agreed to."""
    process = program.start_job()
    process.kill()
    process.wait(PATIENCE)
    with sqlite3.connect(program.ledger) as sql:
        for table in ("jobs", "events", "leases"):
            sql.execute(f"DELETE FROM {table}")
    sql.close()

    asked = program("release", "--all", "--account")
    left = program.alive()
    agreed = program("release", "--all", "--account", "--yes")

    assert asked.returncode == 125
    assert b"1 machine carries this ledger's mark" in asked.stderr
    assert b"add --yes" in asked.stderr
    assert left != {}
    assert agreed.returncode == 0, agreed.stderr
    assert b"proven gone" in agreed.stdout
    assert program.alive() == {}
