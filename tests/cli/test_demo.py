"""`gpubroker demo`: a job that survives two vendors, and books that agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpubroker import Money
from gpubroker.cli.demo import Books, Entry
from gpubroker.model.money import ZERO
from gpubroker.transport.ssh import missing_client

from .program import Program

#: Seconds that a slow computer may take for it.
DEMO_PATIENCE = 120.0


def entry(provider: str, billed: str | None, booked: str) -> Entry:
    """One machine in the books."""
    return Entry(
        provider=provider,
        machine="m1",
        counted=Money(booked),
        billed=None if billed is None else Money(billed),
        booked=Money(booked),
    )


class TestBooks:
    def test_a_machine_that_nobody_bills_costs_nothing(self) -> None:
        """Where nobody bills, the books agree if the ledger says nothing either."""
        books = Books(entries=(entry("local", None, "0"), entry("acme", "0.2", "0.2")), left=())

        assert books.well
        assert books.page().closing == ["machines left: none; spent: $0.20, both agree"]

    @pytest.mark.parametrize("booked", ["0.1999", "0"])
    def test_the_least_difference_is_one(self, booked: str) -> None:
        """To the last digit, and what the ledger does not know of too."""
        books = Books(entries=(entry("acme", "0.2", booked),), left=())

        assert not books.well
        assert "do NOT agree" in books.page().closing[0]

    def test_a_machine_that_is_left_is_named(self) -> None:
        """However well the sums agree."""
        books = Books(entries=(), left=("acme m1",))

        assert not books.well
        assert books.agree
        assert books.page().closing == [f"machines left: acme m1; spent: {ZERO}, both agree"]


def test_whoever_wants_the_emulators_is_told_what_they_need(program: Program) -> None:
    """Without an SSH client there is no demonstration, and one sentence that says why."""
    done = program("demo", PATH="")

    assert done.returncode == 125
    assert b"install OpenSSH's client" in done.stderr


@pytest.mark.deep
@pytest.mark.skipif(missing_client() is not None, reason="this system has no SSH client")
def test_the_job_survives_and_the_books_agree(program: Program) -> None:
    """Sold out, dead, done here; nothing of the user's is read or written, be it broken or not."""
    pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")
    settings = program.work / "gpubroker.toml"
    settings.write_text("this is no TOML")
    env = {"VAST_API_KEY": "k" * 32, "GPUBROKER_BUDGET_DAY": "no number"}

    process = program.start("demo", "--json", **env)
    out, err = process.communicate(timeout=DEMO_PATIENCE)

    assert process.returncode == 0, err.decode()
    said = json.loads(out)
    tried = [(each["provider"], each["state"]) for each in said["record"]["attempts"]]
    assert [*dict.fromkeys(tried)] == [("vast", "failed"), ("runpod", "lost"), ("local", "won")]
    assert said["result"]["exit_code"] == 0
    assert said["result"]["release"] == "proven"
    assert [(each["provider"], each["agree"]) for each in said["books"]] == [
        ("local", True),
        ("runpod", True),
    ]
    assert said["agree"]
    assert said["machines_left"] == []
    steps = [line for line in err.decode().splitlines() if line.startswith("painting")]
    assert steps.count("painting: step 1 of 8") == 2
    assert steps.count("painting: step 8 of 8") == 1
    assert left_in(program.home) == [settings]


def left_in(home: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in home.rglob("*") if path.is_file()]
