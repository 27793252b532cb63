"""What became of a job."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gpubroker.errors import JobFailed
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.leases import ReleaseState
from gpubroker.model.money import ZERO, Money

if TYPE_CHECKING:
    from typing import Self


class JobState(enum.StrEnum):
    """How a job ended."""

    EXITED = "exited"  #: it ran to its end; the exit code says the rest
    TIMED_OUT = "timed out"  #: it was ended because its time was up
    CANCELLED = "cancelled"  #: it was ended because the caller left or the lease was released
    NOT_STARTED = "not started"  #: the command could not be started, or set-up failed
    LOST = "lost"  #: the machine went away under it; nobody knows how it ended


class HostIdentity(enum.StrEnum):
    """How it was made sure that a machine reached over SSH is the one that was rented."""

    PINNED = "pinned"  #: its host keys came through the vendor's authenticated log
    FIRST_USE = "first use"  #: the key it showed first was believed; it knew the lease's nonce


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a provider's ``run`` hook reports.

    Attributes:
        state: how the job ended.
        exit_code: read from the machine; ``None`` unless `state` is ``exited``. A job ended by a
            signal exits with 128 plus the signal's number, as in a shell.
        message: why it did not start or was lost, for people.
        dropped: bytes of output beyond the limit, counted and dropped on the machine.
    """

    state: JobState
    exit_code: int | None = None
    message: str = ""
    dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """One file brought back: where it is now, its size in bytes and its SHA-256 (hex)."""

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went, in seconds.

    Attributes:
        acquire: from the call to a usable machine, set-up not included.
        setup: set-up of the machine, where this job was the first on it.
        run: the job itself, files in and out included.
        release: from the release request to its acknowledgement.
    """

    acquire: float = 0.0
    setup: float = 0.0
    run: float = 0.0
    release: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a job, what it cost, and how the machine was given back.

    Attributes:
        state: how the job ended; `exit_code` is ``None`` unless it exited.
        stdout: the last part (1 MiB at most) of standard output. stderr: likewise.
        dropped: bytes of output beyond the job's limit that were not kept anywhere.
        files: the outputs that were brought back, by their name in the job's folder.
        missing: outputs that were wanted and did not exist.
        provider: who rented the machine out. machine: what it was. lease_id: the lease.
        cost: USD that this job has cost. From `run`: all that its lease has until the destroy was
            acknowledged. On a lease that is held: what it has cost since the end of the job before,
            boot and set-up included for the first. What a vendor bills later is in the ledger.
        host_identity: how the machine's identity was made sure of; ``None`` where it was not
            reached over SSH.
        release: how far giving the machine back had come when the result was returned.
        record: why this machine was chosen, and what else was tried.
    """

    state: JobState
    exit_code: int | None
    provider: str
    machine: str
    lease_id: str
    job_id: str
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    dropped: int = 0
    message: str = ""
    files: Mapping[str, OutputFile] = field(default_factory=dict[str, OutputFile])
    missing: tuple[str, ...] = ()
    cost: Money = ZERO
    timings: Timings = Timings()
    host_identity: HostIdentity | None = None
    release: ReleaseState = ReleaseState.HELD
    record: DecisionRecord = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the job exited with 0 and every wanted output came back."""
        return self.state is JobState.EXITED and self.exit_code == 0 and not self.missing

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are no UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def failure(self) -> str:
        """Why the result is not `ok`, in a few words; empty if it is."""
        if self.state is not JobState.EXITED:
            return f"{self.state}: {self.message}" if self.message else str(self.state)
        if self.exit_code:
            return f"exit code {self.exit_code}"
        return f"missing output: {', '.join(self.missing)}" if self.missing else ""

    def check(self) -> Self:
        """The result itself if it is `ok`.

        Raises:
            JobFailed: carrying the result, if it is not.
        """
        if not self.ok:
            raise JobFailed(self.failure, self)
        return self
