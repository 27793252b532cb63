"""Files in and out of a job's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpubroker.errors import ErrorKind, ProviderError
from gpubroker.model.jobs import Job
from gpubroker.model.results import JobState
from gpubroker.transport import run_job
from gpubroker.transport.work import download, upload

from .machines import each_shell, on_asyncio

if TYPE_CHECKING:
    from .conftest import Desk
    from .machines import LocalChannel

pytestmark = pytest.mark.anyio

#: Names that files may have, though some tools trip over them.
ODD = ["-rf", "a b", "*", "new\nline", "$HOME", "'\"", " lead", "ünï 日本 Á", "x" * 200, "~", "[a]"]


class TestThere:
    @each_shell
    async def test_bytes_files_and_folders_are_placed(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Each under its own name, with its content and whether it may be executed."""
        tool = desk.root / "tool.sh"
        tool.write_text("#!/bin/sh\ncat data/a.txt data/deep/b.bin folder/*; ls folder/empty\n")
        tool.chmod(0o755)
        folder = desk.root / "given"
        (folder / "empty").mkdir(parents=True)
        (folder / "one").write_text("1")
        (folder / "two").symlink_to(folder / "one")
        (folder / "broken").symlink_to("nowhere")
        os.mkfifo(folder / "pipe")
        files = {"run.sh": tool, "data/a.txt": b"A", "data/deep/b.bin": b"\0\xff", "folder": folder}

        ran = await desk.run(any_machine, ["./run.sh"], files=files)

        assert (ran.outcome.exit_code, ran.stdout) == (0, b"A\0\xff11")

    @each_shell
    async def test_odd_names_and_sizes_survive_both_ways(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Whatever a file may be called, and around the sizes of blocks and of pieces."""
        sizes = [0, 1, 511, 512, 513, 10_239, 10_240, 524_287, 524_288, 524_289, 1_100_000]
        files = {f"in/{name}": os.urandom(size) for name, size in zip(ODD, sizes, strict=True)}
        files["/".join(["in", *["deep" * 20] * 4, "long"])] = b"long"

        ran = await desk.run(any_machine, ["mv", "in", "out"], files=files, outputs="out")

        assert ran.contents() == {f"out{name[2:]}": data for name, data in files.items()}

    @on_asyncio
    async def test_thousands_of_small_files_go_both_ways(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """In a handful of exchanges."""
        folder = desk.root / "given"
        for number in range(700):
            path = folder / f"{number % 7}" / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % number * 100)

        ran = await desk.run(machine, "mv in out", files={"in": folder}, outputs="out")

        assert len(ran.files) == 700
        assert ran.contents()["out/1/603"] == b"603" * 100
        assert len(machine.calls) == 6

    @pytest.mark.parametrize(
        ("files", "problem"),
        [
            ({"input": Path("/no/such")}, r"'input' cannot be placed: No such file"),
            ({"input": Path("/dev/null")}, r"'input' cannot be placed"),
            ({"a": b"", "a/b": b""}, r"'a/b' cannot be placed: 'a' is a file"),
            ({"\ud800": b""}, r"cannot be placed: not a name"),
        ],
    )
    async def test_what_cannot_be_placed_is_the_callers_mistake(
        self, desk: Desk, machine: LocalChannel, files: Any, problem: str
    ) -> None:
        """The error names the file, before anything is sent."""
        with pytest.raises(ProviderError, match=problem) as refused:
            await desk.run(machine, "true", files=files)

        assert refused.value.kind is ErrorKind.BAD_REQUEST
        assert machine.calls == []

    async def test_a_folder_that_leads_back_to_itself_is_refused(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """Instead of being copied without end."""
        folder = desk.root / "given"
        folder.mkdir()
        (folder / "loop").symlink_to(folder)

        with pytest.raises(ProviderError, match="leads back to itself"):
            await desk.run(machine, "true", files={"in": folder})

    async def test_a_file_that_is_cut_while_it_is_sent_is_an_error(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """The machine never gets half a file for a whole one, and the job does not start."""
        given = desk.root / "given"
        given.write_bytes(b"x" * 5_000_000)

        def cut(_way: str, _done: int, _total: int | None) -> None:
            os.truncate(given, 1000)

        io = {"on_progress": cut}

        with pytest.raises(ProviderError, match="'in' cannot be placed: it was cut") as refused:
            await desk.run(machine, 'touch "$HOME/ran"', files={"in": given}, io=io)

        assert refused.value.kind is ErrorKind.BAD_REQUEST
        assert not (machine.home / "ran").exists()

    async def test_more_than_fits_is_refused_before_it_is_sent(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """With both numbers."""
        given = desk.root / "given"
        with given.open("wb") as file:
            file.truncate(2**43)

        with pytest.raises(ProviderError, match=r"need 8796\.\d\d GB.* has \d+\.\d\d GB") as no:
            await desk.run(machine, "true", files={"in": given})

        assert no.value.kind is ErrorKind.BAD_REQUEST
        assert len(machine.calls) == 1


class TestBack:
    @each_shell
    async def test_outputs_come_back_by_name_pattern_and_folder(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """Each file once, under its name in the job's folder; what matches nothing is missing."""
        script = """
            mkdir -p logs/deep results/sub empty .hidden
            echo 1 > a.png; echo 2 > b.png; echo 3 > logs/x.log; echo 4 > logs/deep/y.log
            echo 5 > results/r; echo 6 > results/sub/s; echo 7 > 'odd [1].txt'; echo 8 > top.log
            echo 9 > .hidden/.dot; echo 10 > .hidden/..dots
        """
        wanted = [
            "*.png",
            "a.png",
            "**/*.log",
            "results",
            "odd*",
            "*.gif",
            "empty",
            "no/such",
            ".h*",
        ]

        ran = await desk.run(any_machine, script, outputs=wanted)

        assert ran.contents() == {
            "a.png": b"1\n",
            "b.png": b"2\n",
            "logs/x.log": b"3\n",
            "logs/deep/y.log": b"4\n",
            "results/r": b"5\n",
            "results/sub/s": b"6\n",
            "odd [1].txt": b"7\n",
            "top.log": b"8\n",
            ".hidden/.dot": b"9\n",
            ".hidden/..dots": b"10\n",
        }
        assert ran.missing == ["*.gif", "empty", "no/such"]

    @each_shell
    async def test_only_regular_files_inside_the_folder_come_back(
        self, desk: Desk, any_machine: LocalChannel
    ) -> None:
        """No link leads out, no FIFO blocks; a link to another output is as good as the output."""
        (desk.root / "secret").write_text("no")
        script = f"""
            ln -s {desk.root}/secret leak; ln -s {desk.root} away; ln -s loop loop
            mkfifo pipe; echo yes > real; ln -s real latest; ln real hard
        """

        ran = await desk.run(any_machine, script, outputs=["*", "away/secret", "**"])

        assert ran.contents() == {"real": b"yes\n", "latest": b"yes\n", "hard": b"yes\n"}
        assert ran.missing == ["away/secret"]

    async def test_outputs_of_a_job_that_failed_come_back_too(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """What there is is brought back, however the job ended."""
        failed = await desk.run(machine, "echo partial > log; exit 1", outputs="log")
        never = await desk.run(machine, ["no-such-program"], outputs="log")

        assert failed.contents() == {"log": b"partial\n"}
        assert (never.outcome.state, never.missing) == (JobState.NOT_STARTED, ["log"])

    async def test_a_name_that_is_no_text_costs_no_other_output(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """It is an error of its own, and everything else is here."""
        io, receiver = desk.io()
        script = r"touch $(printf '\377').png 'back\slash.png'; echo 1 > good.png"

        with pytest.raises(ProviderError, match="impossible name"):
            await run_job(machine, Job(script, outputs="*.png"), io)

        assert list(receiver.commit()) == ["good.png"]

    @on_asyncio
    async def test_a_file_that_changes_all_the_time_comes_as_it_was_at_some_moment(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """Something that the job left writes to it; that must not cost the result."""
        script = "(while :; do date +%N >> log; done) & echo 1 > a; sleep 0.1"

        ran = await desk.run(machine, script, outputs=["log", "a"])

        assert set(ran.files) == {"log", "a"}
        assert ran.files["log"].size == ran.files["log"].path.stat().st_size > 0

    async def test_progress_is_shown_both_ways(
        self, desk: Desk, machine: LocalChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bytes so far, never fewer than before, and bytes in all."""
        monkeypatch.setattr(upload, "LARGE", 1_000_000)
        monkeypatch.setattr(download, "LARGE", 1_000_000)
        told: list[tuple[str, int, int | None]] = []
        files = {"a": b"1" * 3_000_000, "b": b"2" * 700_000}

        def note(way: str, done: int, total: int | None) -> None:
            told.append((way, done, total))

        io = {"on_progress": note}
        await desk.run(machine, "true", files=files, outputs=["a", "b"], io=io)

        for way in ("upload", "download"):
            done = [so_far for direction, so_far, _ in told if direction == way]
            assert done == sorted(done)
            assert len(done) > 3
            assert done[-1] == 3_700_000
        assert {total for _, _, total in told} == {3_700_000}

    async def test_a_full_disk_here_is_not_the_machines_fault(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """The error is this side's own."""
        io, receiver = desk.io()
        receiver.__init__(receiver.destination, token="t", room=2**60)  # type: ignore[misc]

        with pytest.raises(OSError, match="no space left"):
            await run_job(machine, Job("echo 1 > a", outputs="a"), io)

        assert io.local_error is not None
