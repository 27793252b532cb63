from __future__ import annotations

import signal
import subprocess
import sys

import httpx
import pytest

PROGRAM = (
    "from gpubroker.cli.emulate import emulate\n"
    "raise SystemExit(emulate('vast', port=0, seed=1, scenario='calm'))"
)

CLI = "from gpubroker.cli import main; main()"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_emulator_in_the_foreground_ends_when_it_is_told_to(number: signal.Signals) -> None:
    """It says where it is and how to get there, and leaves with success."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        first = program.stdout.readline()
        url, key = first.split(" at ")[1].split(", with the key ")
        answer = httpx.get(
            f"{url}/api/v1/instances/", headers={"Authorization": f"Bearer {key.strip()}"}
        )
        assert answer.json()["instances"] == []

        program.send_signal(number)
        rest = program.stdout.read()

        assert program.wait(10) == 0
    assert f'url = "{url}"' in rest
    assert "VAST_URL" in rest
    assert "[budget]" in rest


@pytest.mark.parametrize("port", ["-1", "65536", "99999"])
def test_a_port_that_there_is_not_is_refused_in_a_sentence(port: str) -> None:
    """Before anything is started."""
    done = subprocess.run(
        [sys.executable, "-c", CLI, "emulate", "vast", f"--port={port}"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "'--port'" in done.stderr
    assert "Traceback" not in done.stderr
