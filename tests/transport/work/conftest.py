"""Fixtures: a machine that is a folder, with each kind of shell that is here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpubroker.model.jobs import Job
from gpubroker.model.results import Outcome, OutputFile
from gpubroker.transport import run_job
from gpubroker.transport.channel import Channel
from gpubroker.transport.job_io import JobIO, OutputCallback
from gpubroker.transport.receive import Receiver

from .machines import LocalChannel, shells


@dataclass(frozen=True)
class Ran:
    """What became of a job."""

    outcome: Outcome
    stdout: bytes
    stderr: bytes
    files: Mapping[str, OutputFile]
    missing: list[str]

    def contents(self) -> dict[str, bytes]:
        return {name: file.path.read_bytes() for name, file in self.files.items()}


def on_output(call: Callable[[], object]) -> OutputCallback:
    """Does something whenever a job says something."""

    def hear(_stream: str, _data: bytes) -> None:
        call()

    return hear


class Desk:
    """Where jobs are sent from: every job has an id and an output folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def io(self, **parts: Any) -> tuple[JobIO, Receiver]:
        self.count += 1
        receiver = Receiver(self.root / f"out-{self.count}", token="t", room=0)
        given: dict[str, Any] = {"job_id": f"job-{self.count}", "env": {}, **parts}
        return JobIO(receiver=receiver, **given), receiver

    async def run(
        self, channel: Channel, command: Any, *, io: Mapping[str, Any] | None = None, **parts: Any
    ) -> Ran:
        job_io, receiver = self.io(**(io or {}))
        outcome = await run_job(channel, Job(command, **parts), job_io)
        return Ran(
            outcome=outcome,
            stdout=job_io.kept("stdout"),
            stderr=job_io.kept("stderr"),
            files=receiver.commit(),
            missing=job_io.missing,
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Runs jobs."""
    return Desk(tmp_path)


@pytest.fixture(scope="session")
def known_shells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Each shell that is here, with its PATH."""
    return shells(tmp_path_factory.mktemp("shells"))


MakeMachine = Callable[..., LocalChannel]


@pytest.fixture
def make_machine(tmp_path: Path) -> Iterator[MakeMachine]:
    """Makes machines; what still runs on them is ended with the test."""
    homes: list[Path] = []

    def make(**options: Any) -> LocalChannel:
        home = tmp_path / f"home-{len(homes)}"
        home.mkdir()
        homes.append(home)
        return LocalChannel(home, **options)

    yield make
    for home in homes:
        for pid in processes_of(home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def machine(make_machine: MakeMachine) -> LocalChannel:
    """A machine with the usual shell."""
    return make_machine()


@pytest.fixture
def any_machine(
    request: pytest.FixtureRequest,
    known_shells: dict[str, tuple[str, str]],
    make_machine: MakeMachine,
) -> LocalChannel:
    """One machine with each shell."""
    if request.param not in known_shells:
        pytest.skip(f"there is no {request.param} here")
    shell, path = known_shells[request.param]
    return make_machine(shell=shell, path=path)


def processes_of(home: Path) -> list[int]:
    """Everything that runs on a machine."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"HOME={home}\0".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., str]:
    """Makes a PATH with all the usual programs but some."""

    def make(*names: str) -> str:
        folder = tmp_path / f"without-{'-'.join(names)}"
        folder.mkdir()
        for place in ("/usr/bin", "/bin"):
            for program in Path(place).iterdir():
                link = folder / program.name
                if program.name not in names and not link.is_symlink():
                    link.symlink_to(program)
        return str(folder)

    return make
