"""Connections that break anywhere: nothing is lost, nothing comes twice, nothing runs twice."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import pytest

from gpubroker.model.jobs import Job
from gpubroker.model.results import JobState
from gpubroker.transport import run_job
from gpubroker.transport.work import download, patient, upload

from .conftest import Ran, on_output
from .machines import Cut, on_asyncio, on_trio

if TYPE_CHECKING:
    from .conftest import Desk, MakeMachine
    from .machines import LocalChannel

pytestmark = pytest.mark.anyio

NOISE = random.Random(1).randbytes(400_000)
#: A small file, an odd one, and one that counts as large here.
FILES = {"a/b": b"small", "odd\nname": b"odd", "large": NOISE, "last": b"z" * 3000}
COPY = 'echo >> "$HOME/runs"; mkdir o; cp -R a large last "odd\nname" o'


def at_once(*_: object, **__: object) -> float:
    return 0.0


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, give up waiting early, and count files as large that are not."""
    monkeypatch.setattr(patient, "delay", at_once)
    monkeypatch.setattr(upload, "LARGE", 100_000)
    monkeypatch.setattr(download, "LARGE", 100_000)


async def each(
    cuts: Iterable[Sequence[Cut]], make_machine: MakeMachine, desk: Desk, job: Job
) -> list[tuple[Sequence[Cut], Ran, LocalChannel]]:
    """Run a job on one machine after the other, each with connections that break in its own way."""
    ran: list[tuple[Sequence[Cut], Ran, LocalChannel]] = []
    limiter = anyio.CapacityLimiter(3)

    async def one(these: Sequence[Cut]) -> None:
        async with limiter:
            machine = make_machine()
            machine.cut(*these)
            io, receiver = desk.io()
            outcome = await run_job(machine, job, io)
            files = receiver.commit()
            done = Ran(outcome, io.kept("stdout"), io.kept("stderr"), files, io.missing)
            ran.append((these, done, machine))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for these in cuts:
                tasks.start_soon(one, these)
    return ran


class TestWhileItRuns:
    JOB = Job('echo >> "$HOME/runs"; printf "one\\ntwo"; echo oops >&2; sleep 0.05; echo; exit 3')

    @on_trio
    async def test_a_start_whose_answer_is_lost_is_not_made_twice(
        self, desk: Desk, make_machine: MakeMachine
    ) -> None:
        """Wherever the way there breaks, and whether the script survives it or not."""
        size = len(self.JOB.argv[2]) + 20
        cuts = [[Cut(sent=n, kill=n % 2 == 0)] * 3 for n in (*range(6), *range(6, size + 4, 9))]

        ran = await each(cuts, make_machine, desk, self.JOB)

        for these, one, machine in ran:
            assert (machine.home / "runs").read_text() == "\n", these
            assert (one.outcome.exit_code, one.stdout, one.stderr) == (3, b"one\ntwo\n", b"oops\n")

    @on_asyncio
    async def test_output_is_whole_wherever_the_way_back_breaks(
        self, desk: Desk, make_machine: MakeMachine
    ) -> None:
        """Three times in a row."""
        places = (*range(12), *range(12, 60, 6), 100, 220, 240, 260)
        cuts = [[Cut(received=n, kill=n % 2 == 0)] * 3 for n in places]

        ran = await each(cuts, make_machine, desk, self.JOB)

        for these, one, machine in ran:
            assert (machine.home / "runs").read_text() == "\n", these
            assert (one.outcome.exit_code, one.stdout, one.stderr) == (3, b"one\ntwo\n", b"oops\n")

    @on_trio
    async def test_megabytes_of_output_over_many_connections(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """Exact to the byte, however often the connection breaks."""
        noise = desk.root / "noise"
        noise.write_bytes(NOISE)
        seen = {"stdout": b"", "stderr": b""}

        def note(stream: str, data: bytes) -> None:
            seen[stream] += data

        machine.cut(*[Cut(received=n) for n in range(5000, 60_000, 3777)])
        script = f"for i in 1 2 3; do cat {noise}; cat {noise} >&2; done"
        ran = await desk.run(machine, script, io={"on_output": note})

        assert ran.outcome.exit_code == 0
        assert seen == {"stdout": NOISE * 3, "stderr": NOISE * 3}
        assert len(machine.calls) > 10

    @on_trio
    async def test_a_silent_connection_counts_as_broken(
        self, desk: Desk, machine: LocalChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody says that it is; after a while without a sign a new one is made."""
        monkeypatch.setattr(patient, "SILENCE", 0.6)
        machine.cut(Cut(sent=3, hang=True), Cut(received=4, hang=True))

        ran = await desk.run(machine, "echo one; sleep 1; echo two")

        assert ran.stdout == b"one\ntwo\n"
        assert len(machine.calls) == 3

    @on_asyncio
    async def test_a_quiet_job_is_no_silent_connection(
        self, desk: Desk, machine: LocalChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The machine says now and then that it is there."""
        monkeypatch.setattr(patient, "SILENCE", 1.5)

        ran = await desk.run(machine, "sleep 1.9")

        assert ran.outcome.exit_code == 0
        assert len(machine.calls) == 1

    async def test_a_job_is_cancelled_though_the_connection_is_broken(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """As soon as there is a way again; where there is none it takes no longer than 5 seconds."""
        began = anyio.Event()
        io, _ = desk.io(on_output=on_output(began.set))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_job, machine, Job("echo on; sleep 600"), io)
            await began.wait()
            machine.cut(Cut(sent=0), Cut(received=0))
            tasks.cancel_scope.cancel()

        again, _ = desk.io(job_id="job-1")
        outcome = await run_job(machine, Job("true"), again)
        assert outcome.state is JobState.CANCELLED


class TestFilesOnTheirWayThere:
    JOB = Job(f"{COPY}; cd o; cat a/b large last od* | sha256sum", files=FILES)
    WHOLE = hashlib.sha256(b"small" + NOISE + b"z" * 3000 + b"odd").hexdigest().encode() + b"  -\n"

    @on_asyncio
    async def test_they_arrive_wherever_the_way_breaks(
        self, desk: Desk, make_machine: MakeMachine
    ) -> None:
        """The first three connections, at every stage; old writers do not get in the way."""
        places = (0, 1, 511, 512, 513, 3000, 6000, 90_000, 399_000)
        cuts = [
            *([Cut(), Cut(sent=n, kill=n % 2 == 0), Cut(sent=n)] for n in places),
            *([Cut(), Cut(), Cut(sent=n), Cut(sent=n), Cut(sent=n + 9)] for n in places),
        ]

        ran = await each(cuts, make_machine, desk, self.JOB)

        for these, one, machine in ran:
            assert (one.outcome.exit_code, one.stdout) == (0, self.WHOLE), these
            assert (machine.home / "runs").read_text() == "\n", these

    async def test_a_large_file_goes_on_where_it_was(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """What is there already is not sent again."""
        machine.cut(Cut(), Cut(), Cut(sent=200_000), Cut(sent=150_000))

        ran = await desk.run(machine, "sha256sum < large", files={"large": NOISE})

        assert ran.stdout.startswith(hashlib.sha256(NOISE).hexdigest().encode())
        assert [sent for sent, _ in machine.moved[2:5]][:2] == [200_000, 150_000]
        assert machine.moved[4][0] < 80_000

    @on_asyncio
    async def test_a_large_file_that_arrived_otherwise_is_sent_anew(
        self, desk: Desk, machine: LocalChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What went on where it was is compared with what is here."""
        machine.cut(Cut(), Cut(), Cut(sent=200_000))

        def spoil(*_: object, **__: object) -> float:
            with (machine.home / ".gpubroker/jobs/job-1/new/large").open("r+b") as file:
                file.write(b"spoilt")
            return 0.0

        monkeypatch.setattr(patient, "delay", spoil)
        ran = await desk.run(machine, "sha256sum < large", files={"large": NOISE})

        assert ran.stdout.startswith(hashlib.sha256(NOISE).hexdigest().encode())
        assert ("job-1", "400000", "anew") in machine.calls


class TestFilesOnTheirWayBack:
    JOB: Final = Job(COPY, files=FILES, outputs="o")
    WANTED: Final = {f"o/{name}": data for name, data in FILES.items()}

    @on_trio
    async def test_they_arrive_wherever_the_way_breaks(
        self, desk: Desk, make_machine: MakeMachine
    ) -> None:
        """The first connections after the job, at every stage."""
        before = [Cut()] * 4  # prepare, unpack, append, attach
        places = (0, 1, 7, 8, 519, 520, 600, 90_000, 300_000, 403_000)
        cuts = [
            *([*before, Cut(received=n, kill=n % 2 == 0), Cut(received=n)] for n in places[:7]),
            *([*before, Cut(), *[Cut(received=n)] * 4] for n in places),
        ]

        ran = await each(cuts, make_machine, desk, self.JOB)

        for these, one, machine in ran:
            assert one.contents() == self.WANTED, these
            assert one.missing == []
            assert (machine.home / "runs").read_text() == "\n", these

    async def test_a_large_file_goes_on_where_it_was(
        self, desk: Desk, machine: LocalChannel
    ) -> None:
        """What is here already is not sent again."""
        noise = desk.root / "noise"
        noise.write_bytes(NOISE)
        machine.cut(Cut(), Cut(), *[Cut(received=250_000)] * 2)

        ran = await desk.run(machine, f"cp {noise} o", outputs="o")

        assert ran.contents() == {"o": NOISE}
        assert max(back for _, back in machine.moved[4:]) < 200_000

    @on_asyncio
    async def test_a_silent_connection_counts_as_broken(
        self, desk: Desk, machine: LocalChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also while files move."""
        monkeypatch.setattr(patient, "SILENCE", 0.5)
        machine.cut(
            *(Cut(), Cut(sent=900, hang=True), Cut(), Cut(sent=200_000, hang=True), Cut(), Cut()),
            *(Cut(received=3, hang=True), Cut(), *[Cut(received=9000, hang=True)] * 2),
        )

        ran = await desk.run(machine, COPY, files=FILES, outputs="o")

        assert ran.contents() == self.WANTED

    async def test_a_machine_that_was_made_anew_meanwhile_has_lost_them(
        self, desk: Desk, machine: LocalChannel, tmp_path: Path
    ) -> None:
        """Nothing is waited for that cannot come."""

        def anew() -> None:
            machine.home.rename(tmp_path / "before")
            machine.home.mkdir()

        io, _ = desk.io(on_output=on_output(anew))

        with anyio.fail_after(20):
            outcome = await run_job(machine, Job("echo 1", outputs="a"), io)

        assert outcome.state is JobState.LOST
