"""What a provider's ``run`` hook reports a running job through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Literal

from gpubroker.model.jobs import Purpose
from gpubroker.transport.receive import ReceivedFile, Receiver

Stream = Literal["stdout", "stderr"]
Direction = Literal["upload", "download"]
OutputCallback = Callable[[Stream, bytes], Awaitable[None] | None]
ProgressCallback = Callable[[Direction, int, int | None], None]
"""Called while files move: which way, bytes so far, and bytes in all where that is known."""

#: Bytes of each stream that a result keeps in memory: the last ones.
KEPT = 1024 * 1024


class JobIO:
    """One running job's way back to the caller: live output, and files.

    Attributes:
        job_id: names this run of the job. A machine starts it at most once.
        env: the complete environment that was asked for, secrets included.
        purpose: a ``"job"`` of the caller's, ``"setup"`` of the machine, a ``"probe"`` of what was
            delivered, or a ``"service"``, beside which jobs run.
        begun: another process, which is gone, has started the job: it is followed from its first
            byte of output on, and never started.
    """

    def __init__(
        self,
        *,
        job_id: str,
        env: Mapping[str, str],
        receiver: Receiver,
        purpose: Purpose = "job",
        on_output: OutputCallback | None = None,
        on_progress: ProgressCallback | None = None,
        begun: bool = False,
        taken_over: Callable[[], bool] = lambda: False,
        running: Collection[str] = (),
    ) -> None:
        self.job_id = job_id
        self.begun = begun
        self.env = env
        self.purpose: Purpose = purpose
        self.missing: list[str] = []
        self.callback_error: Exception | None = None
        self._receiver = receiver
        self._on_output = on_output
        self._on_progress = on_progress
        self._taken_over = taken_over
        self._running = running
        self._kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    @property
    def in_home(self) -> bool:
        """Run in the machine's home folder, which all its jobs share, and not in one of its own."""
        return self.purpose == "setup"

    @property
    def beside(self) -> str:
        """Ids of the other jobs under way on the machine, with blanks between them.

        One of them may have ended there while its outputs are still to be brought back.
        """
        return " ".join(sorted(set(self._running) - {self.job_id}))

    @property
    def leave_running(self) -> bool:
        """Being cancelled must not end the job: it is somebody else's now, or will be."""
        return self.begun or self._taken_over()

    async def output(self, stream: Stream, data: bytes) -> None:
        """Hand on a piece of output as it appears."""
        kept = self._kept[stream]
        kept += data
        if len(kept) > 2 * KEPT:
            del kept[:-KEPT]
        if self._on_output is None:
            return
        try:
            waiting = self._on_output(stream, data)
            if waiting is not None:
                await waiting
        except Exception as error:  # noqa: BLE001 - the caller's fault must not end the job
            self.callback_error, self._on_output = error, None

    def progress(self, direction: Direction, done: int, total: int | None) -> None:
        """Say how far the files of the job have come, in bytes.

        Args:
            total: bytes in all; ``None`` where nobody can tell.
        """
        if self._on_progress is None:
            return
        try:
            self._on_progress(direction, done, total)
        except Exception as error:  # noqa: BLE001 - the caller's fault must not end the job
            self.callback_error, self._on_progress = error, None

    def kept(self, stream: Stream) -> bytes:
        """The last part of a stream, `KEPT` bytes at most."""
        return bytes(self._kept[stream][-KEPT:])

    def receive(self, name: str) -> ReceivedFile:
        """A place to write one output to, as a context manager.

        Args:
            name: its name relative to the job's folder, as the machine gave it: not trusted.

        Raises:
            ProviderError: the name could leave the destination, or the caps are exceeded; the
                machine is then taken as hostile (`HOST_BROKEN`).
        """
        return self._receiver.receive(name)

    def reject(self, name: str) -> None:
        """Throw away an output that came whole but is not what the machine has."""
        self._receiver.reject(name)

    def sync(self) -> None:
        """Have everything received so far on the disk. May take long: best in a worker thread.

        Without it this is done when the outputs are put into place.
        """
        self._receiver.sync()

    @property
    def local_error(self) -> OSError | None:
        """What went wrong here, and not on the machine, while an output was written."""
        return self._receiver.local_error

    def report_missing(self, pattern: str) -> None:
        """Say that a wanted output does not exist."""
        self.missing.append(pattern)
