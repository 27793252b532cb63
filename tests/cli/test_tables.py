from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

import gpubroker
from gpubroker import DecisionRecord, Result
from gpubroker.model.codec import from_json

from .program import Program

CARDS = {"GPUBROKER_LOCAL_SIMULATE": "1x RTX 4090, 2x A100 80GB PCIe"}


def columns(table: str, title: str) -> list[list[str]]:
    """The rows below the line that begins with `title`, split into cells."""
    lines = table.splitlines()
    start = next(n for n, line in enumerate(lines) if line.lstrip().startswith(title))
    return [[cell.strip() for cell in line.split("  ") if cell] for line in lines[start + 1 :]]


def test_offers_names_the_winner_and_ranks_the_rest(program: Program) -> None:
    """One sentence, and one row per offer that fits."""
    shown = program("offers", "--vram", "24", **CARDS)

    heading, *_ = shown.stdout.decode().splitlines()
    rows = columns(shown.stdout.decode(), "rank")
    assert shown.returncode == 0
    assert "from local at $0.00/h would be rented, first of 2 by cheapest" in heading
    assert [row[:4] for row in rows] == [
        ["1", "A100 80GB PCIe (simulated)", "local", "$0.00"],
        ["2", "RTX 4090 (simulated)", "local", "$0.00"],
    ]


def test_offers_tells_why_not_on_demand(program: Program) -> None:
    """What does not fit is counted, and with --all shown with the reason."""
    short = program("offers", "--vram", "40", **CARDS).stdout.decode()
    full = program("offers", "--vram", "40", "--all", **CARDS).stdout.decode()

    assert "1 more does not fit; --all shows why" in short
    assert "vram: wanted 40.. GB, offered 24 GB" in full


def test_offers_fails_where_nothing_fits(program: Program) -> None:
    """Scripts see it by the exit code, people by the reasons."""
    shown = program("offers", "--gpu", "H200", **CARDS)

    assert shown.returncode == 125
    assert b"nothing fits" in shown.stdout
    assert b"gpu: wanted H200" in shown.stdout


def test_ps_shows_open_leases_and_the_last_sweep(program: Program) -> None:
    """Who holds what, since when, at what price, until when."""
    process = program.start_job()
    (lease,) = program.leases()

    shown = program("ps").stdout.decode()
    process.terminate()
    process.wait()
    after = program("ps").stdout.decode()
    history = program("ps", "--all").stdout.decode()

    (row,) = (line for line in shown.splitlines() if lease.id in line)
    assert "busy" in row
    assert "$0.00" in row
    assert "alive" in row
    assert "in 59 min" in row
    assert "last complete sweep: local " in shown
    assert after.startswith("no open lease\n")
    assert f"{lease.id}  released" in history


def test_ps_of_nothing_makes_no_ledger(program: Program) -> None:
    """Looking leaves no trace."""
    shown = program("ps")

    assert shown.stdout == b"no open lease\nlast complete sweep: never\n"
    assert not program.ledger.exists()


def test_explain_tells_why_a_machine_was_chosen(program: Program) -> None:
    """Wanted, offers with scores, those that do not fit, attempts, and the outcome."""
    program("run", "--vram", "40", "--", "true", **CARDS)
    (lease,) = program.leases()

    newest = program("explain").stdout.decode()
    named = program("explain", lease.id).stdout.decode()

    assert newest == named
    assert "wanted: count=1 vram=40.." in newest
    assert "outcome: A100 80GB PCIe (simulated) from local at $0.00/h" in newest
    assert "vram: wanted 40.. GB, offered 24 GB" in newest
    assert columns(newest, "try")[0][:5] == [
        "1",
        "A100 80GB PCIe (simulated)",
        "local",
        "$0.00",
        "won",
    ]


def test_explain_tells_why_there_was_no_machine(program: Program) -> None:
    """A request that got nothing is explained as well."""
    program("run", "--gpu", "H200", "--", "true", **CARDS)

    shown = program("explain").stdout.decode()

    assert "outcome: none of 2 offers fits" in shown


def test_an_unknown_lease_is_named(program: Program) -> None:
    """A slip is answered with the lease that was probably meant."""
    program("run", "--", "true")
    (lease,) = program.leases()

    for command in ("explain", "release"):
        ended = program(command, f"{lease.id}x")
        assert ended.returncode == 2
        assert f"'{lease.id}x': unknown lease".encode() in ended.stderr


def test_providers_shows_standings_and_sources_without_secrets(program: Program) -> None:
    """Who takes part, and which setting came from where; a key shows its end at the most."""
    key = "secret-key-of-40-characters-abcdefghijkl"

    shown = program("providers", VAST_API_KEY=key).stdout.decode()
    broken = program("providers", GPUBROKER_LOCAL_SIMULATE="99x nothing").stdout.decode()

    assert columns(shown, "provider ")[0][:3] == ["local", "on", "free"]
    assert f"ledger                          {program.ledger}" in shown
    assert "GPUBROKER_LOCAL_DIRECTORY" in shown
    assert "…ijkl" in shown
    assert key not in shown
    assert columns(broken, "provider ")[0][:2] == ["local", "broken"]


def test_verify_counts_leases_and_finds_violations(program: Program) -> None:
    """A ledger that was tampered with is told from a sound one by the exit code."""
    program("run", "--", "true")
    sound = program("verify")
    with sqlite3.connect(program.ledger) as sql:
        sql.execute("UPDATE leases SET state = 'busy'")
    sql.close()
    tampered = program("verify")

    assert (sound.returncode, sound.stdout) == (0, b"1 lease, no violation\n")
    assert tampered.returncode == 1
    assert b"is busy, but its events lead to released" in tampered.stdout


@pytest.fixture
def program_after_a_run(program: Program) -> Program:
    """A ledger with one lease, released."""
    program("run", "--", "true")
    return program


def test_every_command_speaks_json(program_after_a_run: Program) -> None:
    """With --json stdout is one object, errors included."""
    expected: dict[tuple[str, ...], set[str]] = {
        ("offers",): {"verdicts", "wanted", "problems"},
        ("ps", "--all"): {"leases", "swept"},
        ("explain",): {"verdicts", "attempts", "why"},
        ("providers",): {"providers", "settings"},
        ("verify",): {"leases", "violations"},
        ("reap",): {"sweeps", "releases"},
        ("release", "--all"): {"leases"},
        ("release",): {"error"},
        ("explain", "nothing"): {"error"},
    }

    answers = {words: program_after_a_run.json(*words, "--json") for words in expected}

    missing = {words: keys - set(answers[words]) for words, keys in expected.items()}
    assert not any(missing.values()), missing


def test_json_reads_back_as_the_library_s_own_values(program_after_a_run: Program) -> None:
    """A record is a record, a result a result: the same text as `to_json` writes."""
    record = program_after_a_run("explain", "--json").stdout.decode()
    result = program_after_a_run("run", "-q", "--json", "--", "true").stdout.decode()

    assert from_json(DecisionRecord, record).winner is not None
    assert from_json(Result, result).ok


def test_the_ledger_may_be_named_on_the_command_line(program: Program) -> None:
    """`--ledger` goes before the environment."""
    other = program.home / "other.db"

    program("--ledger", str(other), "run", "--", "true")

    assert other.exists()
    assert not program.ledger.exists()


def test_the_version_is_the_library_s(program: Program) -> None:
    """`--version` loads nothing else."""
    assert program("--version").stdout.decode() == f"gpubroker {gpubroker.__version__}\n"


def test_help_loads_nothing_of_the_library(program: Program) -> None:
    """`--help` costs what typer costs: no event loop, no database, no provider is imported."""
    script = (
        "import sys; from gpubroker.cli.app import app;"
        "print([m for m in sys.modules if m.startswith('gpubroker') and '.cli' not in m])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    assert loaded.stdout == b"['gpubroker']\n"
    assert b"Commands" in program("--help").stdout
