from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .program import PATIENCE, Program

#: Every byte there is, and line ends of all kinds.
BYTES = bytes(range(256)) + b"\r\n\x1b[31mred\x1b[0m\n"


def test_the_exit_code_of_the_command_passes_through(program: Program) -> None:
    """Whatever the command exits with, the program exits with."""
    ended = program("run", "--", "sh", "-c", "exit 7")

    assert ended.returncode == 7
    assert b"exit code 7" in ended.stderr


def test_a_run_tells_its_steps_and_ends_with_one_line(program: Program) -> None:
    """The last line names the machine, the time, the cost, and that it is proven gone."""
    ended = program("run", "--", "true")

    lines = ended.stderr.decode().splitlines()
    assert all(line.startswith("gpubroker: ") for line in lines)
    assert any("renting" in line and "from local at $0.00/h" in line for line in lines)
    assert "from local, " in lines[-1]
    assert "$0.00; released and proven gone" in lines[-1]
    assert "\x1b" not in ended.stderr.decode()


def test_output_passes_through_byte_by_byte_and_apart(program: Program) -> None:
    """Piped, stdout and stderr are the command's, byte for byte; quiet adds nothing to them."""
    (program.work / "out").write_bytes(BYTES)
    (program.work / "err").write_bytes(BYTES[::-1])
    files = ("--in", "out", "--in", "err")

    ended = program("run", "--quiet", *files, "--", "sh", "-c", "cat out; cat err >&2")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, BYTES, BYTES[::-1])


def test_words_of_the_command_are_passed_on_exactly(program: Program) -> None:
    """Nothing is split, expanded or taken for an option on the way."""
    words = ["", "two words", "$HOME", "--gpu", "a\nb", "'\"", "*"]

    ended = program("run", "-q", "printf", "%s|", *words)

    assert ended.stdout.decode() == "".join(f"{word}|" for word in words)


def test_files_go_in_and_come_out(program: Program) -> None:
    """Files are placed under their names there, and outputs land where they are wanted."""
    (program.work / "a.txt").write_text("A")
    (program.work / "tree").mkdir()
    (program.work / "tree" / "b").write_text("B")
    files = ("--in", "a.txt:there.txt", "--in", "tree", "--out", "*.out", "--out-dir", "got")

    ended = program("run", *files, "--", "sh", "-c", "cat there.txt tree/b > both.out")

    assert ended.returncode == 0, ended.stderr
    assert (program.work / "got" / "both.out").read_text() == "AB"
    assert b"brought back got/both.out (2 bytes)" in ended.stderr


def test_an_output_that_is_missing_fails_the_run(program: Program) -> None:
    """A command that succeeded without its output did not succeed: 125, and its name."""
    ended = program("run", "--out", "model.pt", "--", "true")

    assert ended.returncode == 125
    assert b"missing output: model.pt" in ended.stderr
    assert b"released and proven gone" in ended.stderr


def test_a_command_that_takes_too_long_is_ended(program: Program) -> None:
    """Out of time is 124, as with timeout(1)."""
    ended = program("run", "--timeout", "0.3s", "--", "sleep", "60")

    assert ended.returncode == 124
    assert b"timed out" in ended.stderr
    assert program.alive() == {}


def test_a_command_that_does_not_exist_is_named(program: Program) -> None:
    """It was never started: that is the broker's 125."""
    ended = program("run", "--", "no-such-command")

    assert ended.returncode == 125
    assert b"command not found: no-such-command" in ended.stderr


def test_environment_and_secrets_reach_the_command(program: Program) -> None:
    """Secrets come from the environment; their values are written down nowhere."""
    options = ("--env", "A=1=2", "--secret", "TOKEN")

    ended = program("run", *options, "--", "sh", "-c", 'echo "$A $TOKEN"', TOKEN="hush-hush")

    assert ended.stdout == b"1=2 hush-hush\n"
    assert b"hush-hush" not in ended.stderr
    kept = [path for path in program.home.rglob("*") if path.is_file()]
    assert all(b"hush-hush" not in path.read_bytes() for path in kept)


def test_a_set_up_that_fails_is_told_with_what_it_said(program: Program) -> None:
    """The command is not started, and the reason is the script's own words."""
    (program.work / "setup.sh").write_text("echo no disk >&2; exit 4")

    ended = program("run", "--setup", "@setup.sh", "--", "echo", "started")

    assert ended.returncode == 125
    assert ended.stdout == b""
    assert b"set-up failed (exit code 4): no disk" in ended.stderr
    assert b"released and proven gone" in ended.stderr


def test_a_machine_that_nobody_offers_is_not_rented(program: Program) -> None:
    """There is no such card here: 125, the reason, and where to read more."""
    ended = program("run", "--gpu", "H200", "--", "true", GPUBROKER_LOCAL_SIMULATE="1x RTX 4090")

    assert ended.returncode == 125
    assert b"gpu: wanted H200" in ended.stderr
    assert b"gpubroker explain" in ended.stderr
    assert program.leases() == []


def test_a_simulated_card_is_called_simulated(program: Program) -> None:
    """Nobody can take it for real hardware."""
    cards = {"GPUBROKER_LOCAL_SIMULATE": "1x RTX 4090"}

    ended = program("run", "--gpu", "4090", "--", "true", **cards)

    assert ended.returncode == 0
    assert b"RTX 4090 (simulated) from local" in ended.stderr


def test_json_is_the_result_alone_on_stdout(program: Program) -> None:
    """The command's output makes way to stderr; the object has everything about the run."""
    script = "echo hi; echo done > a.out"

    ended = program("run", "--json", "-q", "--out", "*.out", "--", "sh", "-c", script)

    result = json.loads(ended.stdout)
    assert ended.stderr == b"hi\n"
    assert (result["state"], result["exit_code"]) == ("exited", 0)
    assert result["release"] == "proven"
    assert result["files"]["a.out"]["size"] == 5
    assert result["record"]["attempts"][0]["state"] == "won"
    assert set(result["timings"]) == {"acquire", "setup", "run", "release"}
    assert result["lease_id"] == program.leases()[0].id


def test_json_of_a_failure_carries_the_record(program: Program) -> None:
    """Programs learn what was tried as well as people do."""
    ended = program("run", "--json", "--gpu", "H200", "--", "true")

    error = json.loads(ended.stdout)["error"]
    assert ended.returncode == 125
    assert error["type"] == "NoOfferFits"
    assert error["record"]["wanted"] == "gpu=H200 count=1"
    assert error["leases"] == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpu", "RTX 4099"), b"unknown GPU; did you mean 'RTX 4090'?"),
        (("--vram", "24QB"), b"vram = '24QB'"),
        (("--budget=-1",), b"budget = '-1': must not be negative"),
        (("--in", "nowhere"), b"in = 'nowhere': there is no such file"),
        (("--env", "A"), b"env = 'A': must be NAME=VALUE"),
        (("--no-such-option",), b"--no-such-option"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(
    program: Program, options: tuple[str, ...], said: bytes
) -> None:
    """Bad usage exits with 2 before anything is asked of anybody."""
    ended = program("run", *options, "--", "true")

    assert ended.returncode == 2
    assert said in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert not program.ledger.exists()


def test_a_reader_that_leaves_ends_the_job(program: Program) -> None:
    """As in any pipe: `run … | head -1` ends the command, and the machine is given up."""
    process = program.start("run", "--", "yes")
    assert process.stdout is not None

    process.stdout.read(1)
    process.stdout.close()

    assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
    assert [str(lease.state) for lease in program.leases()] == ["released"]
    assert program.alive() == {}


def test_no_ledger_no_machine(program: Program) -> None:
    """Where the record cannot be kept nothing is rented, and one line says why."""
    program.ledger.write_bytes(b"this is no database " * 100)

    ended = program("run", "--", "true")

    assert ended.returncode == 125
    assert ended.stderr.startswith(b"gpubroker: ")
    assert b"Traceback" not in ended.stderr


def test_the_command_line_says_which_extra_is_missing(tmp_path: Path) -> None:
    """Without typer there is one line that says what to install."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('no', name='typer')")
    script = "from gpubroker.cli import main; main()"

    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )

    assert ended.returncode == 125
    assert b"pip install 'gpubroker[cli]'" in ended.stderr
