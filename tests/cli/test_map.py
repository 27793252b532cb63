"""``gpubroker map``: a command for each line of a file."""

from __future__ import annotations

import json

from .program import Program


def test_every_line_is_done_and_done_once(program: Program) -> None:
    """A second time under the same name nothing is done again; outputs lie where they belong."""
    (program.work / "names.txt").write_text("ann\nbob\n\n")
    script = "echo {} >> $COUNTED; echo hello {} > out.txt"
    words = ["--name", "greet", "--inputs", "names.txt", "--env", f"COUNTED={program.work}/counted"]
    words += ["--out", "out.txt", "--out-dir", "results/{}", "--json"]

    first = program("map", *words, "--", "sh", "-c", script)
    second = program("map", *words, "--", "sh", "-c", script)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "2 of 2 succeeded, $0.00; released and proven gone" in first.stderr.decode()
    assert "2 of 2 succeeded; nothing was rented" in second.stderr.decode()
    assert (program.work / "counted").read_text().split() == ["ann", "bob"]
    assert (program.work / "results/bob/out.txt").read_text() == "hello bob\n"
    shown = json.loads(second.stdout)
    assert [item["input"] for item in shown] == ["ann", "bob"]
    assert all(item["result"]["exit_code"] == 0 for item in shown)


def test_what_it_has_cost_is_told_at_the_end(program: Program) -> None:
    """Boot and idle time included: what the ledger has as spent."""
    (program.work / "in.txt").write_text("a\n")
    priced = {"GPUBROKER_LOCAL_PRICE": "36", "GPUBROKER_BUDGET_JOB": "100"}

    done = program("map", "--inputs", "in.txt", "--", "sh", "-c", "sleep 1; echo {}", **priced)

    (lease,) = program.leases()
    assert lease.spent.micros > 5000
    assert f"succeeded, {lease.spent}; released and proven gone".encode() in done.stderr


def test_inputs_may_be_json_and_failures_are_told(program: Program) -> None:
    """Texts as they are; an item that fails is named, and so is it in the exit code."""
    (program.work / "in.jsonl").write_text('"two words"\n{"a": 1}\n')

    words = ["--inputs", "in.jsonl", "--again", "0", "--", "sh", "-c", 'test "$1" = "$2"', "-"]
    ended = program("map", *words, "{}", "two words")
    broken = program("map", "--inputs", "nowhere", "--", "echo", "{}")

    lines = ended.stderr.decode()
    assert ended.returncode == 1
    assert "two words: done" in lines
    assert '{"a": 1}: exit code 1' in lines
    assert broken.returncode == 125
