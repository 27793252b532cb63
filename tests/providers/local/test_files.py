"""Files in and out of a job's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpubroker import ErrorKind, JobState, ProviderError

if TYPE_CHECKING:
    from tests.providers.local.conftest import House

pytestmark = pytest.mark.anyio


async def test_bytes_files_and_folders_are_placed(house: House) -> None:
    """Each under its own name, with its content and whether it may be executed."""
    provider = house.provider()
    machine = await house.rent(provider)
    tool = house.root / "tool.sh"
    tool.write_text("#!/bin/sh\ncat data/a.txt data/deep/b.bin folder/*\n")
    tool.chmod(0o755)
    folder = house.root / "given"
    folder.mkdir()
    (folder / "one").write_text("1")
    (folder / "two").symlink_to(folder / "one")
    files = {"run.sh": tool, "data/a.txt": b"A", "data/deep/b.bin": b"\0\xff", "folder": folder}

    ran = await house.run(provider, machine, ["./run.sh"], files=files)

    assert ran.stdout == b"A\0\xff11"


async def test_file_that_does_not_exist_is_the_callers_mistake(house: House) -> None:
    """The error names the file; nothing was started."""
    provider = house.provider()
    machine = await house.rent(provider)

    with pytest.raises(ProviderError, match=r"'input' cannot be placed") as caught:
        await house.run(provider, machine, "touch /started", files={"input": Path("/no/such")})

    assert caught.value.kind is ErrorKind.BAD_REQUEST


async def test_outputs_come_back_by_name_pattern_and_folder(house: House) -> None:
    """Each file once, under its name in the job's folder; what matches nothing is missing."""
    provider = house.provider()
    machine = await house.rent(provider)
    script = """
        mkdir -p logs/deep results/sub empty .hidden
        echo 1 > a.png; echo 2 > b.png; echo 3 > logs/x.log; echo 4 > logs/deep/y.log
        echo 5 > results/r; echo 6 > results/sub/s; echo 7 > 'odd [1].txt'; echo 8 > top.log
    """
    wanted = ["*.png", "a.png", "**/*.log", "results", "odd*", "*.gif", "empty", "no/such"]

    ran = await house.run(provider, machine, script, outputs=wanted)

    assert {name: file.path.read_text() for name, file in ran.files.items()} == {
        "a.png": "1\n",
        "b.png": "2\n",
        "logs/x.log": "3\n",
        "logs/deep/y.log": "4\n",
        "results/r": "5\n",
        "results/sub/s": "6\n",
        "odd [1].txt": "7\n",
        "top.log": "8\n",
    }
    assert ran.missing == ["*.gif", "empty", "no/such"]


async def test_only_regular_files_inside_the_folder_come_back(house: House) -> None:
    """No link leads out, no FIFO blocks; a link to another output is as good as the output."""
    provider = house.provider()
    machine = await house.rent(provider)
    (house.root / "secret").write_text("no")
    script = f"""
        ln -s {house.root}/secret leak; ln -s {house.root} away; ln -s loop loop
        mkfifo pipe; echo yes > real; ln -s real latest
    """

    ran = await house.run(provider, machine, script, outputs=["*", "away/secret", "**"])

    assert {name: file.path.read_text() for name, file in ran.files.items()} == {
        "real": "yes\n",
        "latest": "yes\n",
    }
    assert ran.missing == ["away/secret"]


async def test_large_file_survives_the_round_trip(house: House) -> None:
    """More than one piece of copying, both ways."""
    provider = house.provider()
    machine = await house.rent(provider)
    given = house.root / "given"
    with given.open("wb") as file:
        file.truncate(70_000_001)
        file.write(b"begin")

    ran = await house.run(provider, machine, "cp in out", files={"in": given}, outputs="out")

    assert ran.files["out"].size == 70_000_001
    assert ran.files["out"].path.read_bytes()[:5] == b"begin"


async def test_outputs_of_a_job_that_failed_come_back_too(house: House) -> None:
    """What there is is brought back, however the job ended."""
    provider = house.provider()
    machine = await house.rent(provider)

    failed = await house.run(provider, machine, "echo partial > log; exit 1", outputs="log")
    late = await house.run(provider, machine, "echo x > log; sleep 9", timeout=0.1, outputs="log")
    never = await house.run(provider, machine, ["no-such-program"], outputs="log")

    assert failed.files["log"].size == 8
    assert (late.outcome.state, list(late.files)) == (JobState.TIMED_OUT, ["log"])
    assert never.missing == ["log"]


async def test_output_whose_name_is_no_text_is_refused_plainly(house: House) -> None:
    """A name that no record could hold is an error of its own, not a crash."""
    provider = house.provider()
    machine = await house.rent(provider)

    with pytest.raises(ProviderError, match="impossible name"):
        await house.run(provider, machine, r"touch $(printf '\377').png", outputs="*.png")
