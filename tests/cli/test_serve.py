"""``gpubroker serve``: a server here, for as long as somebody wants it."""

from __future__ import annotations

import json
import signal
import sys

import httpx
import pytest

from gpubroker import LeaseState

from .program import PATIENCE, Program, line_with

SERVER = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}")


def test_a_server_is_reached_until_ctrl_c(program: Program) -> None:
    """Its address is the only thing on standard output; then nothing of it is left."""
    (program.work / "hello.txt").write_text("hello from there")
    process = program.start("serve", "--in", "hello.txt", "--", *SERVER)
    url = line_with(process.stdout, b"http://").decode().strip()
    said = httpx.get(f"{url}/hello.txt", trust_env=False)

    process.send_signal(signal.SIGINT)
    output, messages = process.communicate(timeout=PATIENCE)

    (lease,) = program.leases()
    assert said.text == "hello from there"
    assert (process.returncode, output) == (130, b"")
    assert b"released and proven gone" in messages.splitlines()[-1]
    assert lease.state is LeaseState.RELEASED
    assert "interrupted" in lease.release_reason
    assert program.alive() == {}


def test_what_it_has_cost_is_told_at_the_end(program: Program) -> None:
    """Of a machine that is gone by then: what the ledger has as spent."""
    priced = {"GPUBROKER_LOCAL_PRICE": "36", "GPUBROKER_BUDGET_JOB": "100"}

    done = program("serve", "--", "sh", "-c", "sleep 1; exit 3", **priced)

    (lease,) = program.leases()
    assert lease.spent.micros > 5000
    assert f"released and proven gone, {lease.spent}".encode() in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sh", "-c", "echo no GPU found >&2; exit 3"), b"exited with code 3: no GPU found"),
        (("no-such-server",), b"could not be started"),
    ],
)
def test_a_server_that_fails_says_why(
    program: Program, words: tuple[str, ...], said: bytes
) -> None:
    """With its last words, and the machine is given up."""
    done = program("serve", "--", *words)

    assert done.returncode == 125
    assert said in done.stderr
    assert b"released and proven gone" in done.stderr.splitlines()[-1]
    assert done.stdout == b""


def test_programs_read_where_it_is(program: Program) -> None:
    """One JSON value, as soon as the server is ready."""
    process = program.start("serve", "--json", "--ready", "-", "--", *SERVER)
    told = json.loads(line_with(process.stdout, b"url"))

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)

    (lease,) = program.leases()
    assert (told["lease"], told["provider"]) == (lease.id, "local")
    assert told["url"].startswith("http://127.0.0.1:")
