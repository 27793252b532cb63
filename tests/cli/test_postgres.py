"""A ledger in PostgreSQL, from the command line."""

from __future__ import annotations

from .program import Program

KEY = "0123456789abcdef" * 4


def test_every_command_works_on_it(program: Program, database: str) -> None:
    """As on a file; and its password is shown nowhere."""
    program.env["GPUBROKER_LEDGER"] = database.replace("postgres@", "postgres:geheim@")
    program.env["GPUBROKER_MARK_KEY"] = KEY

    ran = program("run", "--", "echo", "hello")
    (lease,) = program.json("ps", "--all", "--json")["leases"]
    explained = program.json("explain", lease["id"], "--json")
    released = program("release", lease["id"])
    reaped = program("reap", "--once")
    verified = program("verify")
    shown = program("providers")

    assert (ran.returncode, ran.stdout) == (0, b"hello\n"), ran.stderr
    assert lease["state"] == "released"
    assert explained["attempts"]
    assert (released.returncode, reaped.returncode) == (0, 0), reaped.stderr
    assert b"1 lease, no violation" in verified.stdout, verified.stderr
    assert b"postgres:\xe2\x80\xa6@127.0.0.1" in shown.stdout.replace(b"\n", b"")
    everything = (ran, released, reaped, verified, shown)
    assert not any(b"geheim" in done.stdout + done.stderr for done in everything)


def test_without_a_shared_key_it_says_how_to_make_one(program: Program, database: str) -> None:
    """A key of this host's own would make its machines strangers to all other hosts."""
    done = program("--ledger", database, "run", "--", "true")

    assert done.returncode == 2
    assert b"openssl rand -hex 32" in done.stderr
