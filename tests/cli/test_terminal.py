from __future__ import annotations

import re

from .program import Program


def test_a_terminal_gets_no_escape_sequence_from_a_job(program: Program) -> None:
    """What a job prints cannot command the terminal, on either stream."""
    attack = r"\033]0;owned\007\033[31mred\033[0m\302\233\342\200\256\033c\b"
    script = f"printf '{attack}\\n'; printf '{attack}\\n' >&2"

    code, screen = program.on_terminal("run", "--quiet", "--", "sh", "-c", script)

    seen = "␛]0;owned␇red\ufffd\ufffd␛c␈\r\n"
    assert code == 0
    assert sorted(screen) == sorted(seen * 2)
    assert "\x1b" not in screen


def test_a_terminal_shows_the_step_the_time_and_the_cost(program: Program) -> None:
    """One line changes in place while it goes on; what stays is the output and the ending."""
    price = {"GPUBROKER_LOCAL_PRICE": "3600"}

    code, screen = program.on_terminal("run", "--", "sh", "-c", "echo out; sleep 0.5", **price)

    kept = [re.sub(r".*\r\x1b\[K", "", line) for line in screen.split("\r\n")]
    assert code == 0
    assert re.search(r"running echo out; sleep 0.5  \x1b\[2m ?0\.\d s  \$\d\.\d+\x1b\[0m", screen)
    assert kept[:2] == ["out", "gpubroker: exit code 0"]
    assert re.fullmatch(
        r"gpubroker: \d+ CPUs from local, \d\.\d s, \$[\d.]+; released and proven gone", kept[2]
    )
    assert kept[3:] == [""]


def test_no_color_is_respected(program: Program) -> None:
    """Where NO_COLOR is set there is nothing but plain text, in messages and in tables."""
    _, run = program.on_terminal("run", "--", "sleep", "0.3", NO_COLOR="1")
    _, offers = program.on_terminal("offers", NO_COLOR="1")

    assert re.findall(r"\x1b\[[\d;]*m", run) == []
    assert "\x1b" not in offers


def test_tables_are_drawn_on_a_terminal_only(program: Program) -> None:
    """A person gets rules and bold titles, a pipe gets plain aligned text."""
    _, drawn = program.on_terminal("offers")
    piped = program("offers").stdout.decode()

    assert "───" in drawn
    assert "───" not in piped
    assert "\x1b" not in piped
