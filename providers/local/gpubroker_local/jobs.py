"""One job on a lease: handing it to the runner, following its output, reading how it ended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

import anyio
import anyio.lowlevel

from gpubroker import ErrorKind, JobIO, JobState, Outcome, ProviderError, Scope, Stream
from gpubroker_local.leases import LeaseFolder
from gpubroker_local.runner import SPEC_VERSION

_CHUNK: Final = 256 * 1024
#: Seconds after which to look even though nothing was said: a wake-up may have gone to another
#: process that follows the same job, and a dead runner says nothing.
_BACKSTOP: Final = 0.25


class JobFolder:
    """The files through which a broker and a lease's runner deal with one job."""

    def __init__(self, lease: LeaseFolder, job_id: str, *, in_home: bool) -> None:
        self.lease = lease
        self.path = lease.path / "jobs" / job_id
        self.in_home = in_home

    @property
    def folder(self) -> Path:
        """Where the job runs."""
        return self.lease.path / "home" if self.in_home else self.path / "folder"

    @property
    def was_submitted(self) -> bool:
        """Whether the runner has been given it, now or by another process."""
        return any((self.path / name).exists() for name in ("spec", "stdout", "status"))

    def make(self) -> None:
        """Make it anew; what an earlier try to place the same job left is thrown away."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(mode=0o700)
        (self.path / "folder").mkdir()
        os.mkfifo(self.path / "wake", 0o600)

    def submit(
        self, argv: Sequence[str], env: Mapping[str, str], *, timeout: float | None, limit: int
    ) -> None:
        """Have the runner start it. Words and environment travel as they are, between NULs."""
        head = [
            SPEC_VERSION,
            b"home" if self.in_home else b"folder",
            b"" if timeout is None else repr(timeout).encode(),
            b"%d" % limit,
            b"%d" % len(argv),
        ]
        words = [os.fsencode(word) for word in argv]
        pairs = [os.fsencode(f"{name}={value}") for name, value in env.items()]
        draft = self.path / "spec.new"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"\0".join([*head, *words, *pairs]))
        draft.rename(self.path / "spec")
        self.lease.poke()

    def cancel(self) -> None:
        """Have the runner end it. Waits for nothing, so that no cancellation can interrupt it."""
        try:
            (self.path / "cancel").touch()
        except OSError:
            return  # the lease is gone, and the job with it
        self.lease.poke()

    def outcome(self) -> Outcome | None:
        """How it ended, if it has."""
        try:
            text = (self.path / "status").read_text(errors="replace")
        except OSError:
            return None
        state, code, dropped, message = text.split("\n", 3)
        return Outcome(
            state=JobState(state),
            exit_code=int(code) if code else None,
            dropped=int(dropped),
            message=message.strip(),
        )

    async def follow(self, io: JobIO) -> Outcome:
        """Hand on the output as it appears, until the job has ended.

        Raises:
            ProviderError: the runner is gone; nobody knows how the job ended.
        """
        with self._news() as news, _Log(self, io, "stdout") as out, _Log(self, io, "stderr") as err:
            quiet = False
            while True:
                # In this order: what is read of an ended job, or of a dead runner's, is all of it.
                lost = quiet and self.lease.runner() is None
                outcome = self.outcome()
                await out.hand_on()
                await err.hand_on()
                if outcome is not None:
                    return outcome
                if lost:
                    raise self._lost()
                with anyio.move_on_after(_BACKSTOP) as patience:
                    await anyio.wait_readable(news)
                quiet = patience.cancelled_caught
                if not quiet:
                    with suppress(BlockingIOError):  # another process that follows it was faster
                        os.read(news, 4096)

    @contextmanager
    def _news(self) -> Generator[int]:
        # Opened for writing too: with no writer at all a FIFO would count as readable for ever.
        try:
            descriptor = os.open(self.path / "wake", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as problem:
            raise self._lost() from problem
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _lost(self) -> ProviderError:
        # Not the host's fault, which is this machine: it must not be ruled out for that.
        return ProviderError(
            f"lease {self.lease.id} was lost: its runner has ended",
            kind=ErrorKind.TRANSIENT,
            scope=Scope.OFFER,
        )

    def discard_earlier(self, under_way: Collection[str] = ()) -> None:
        """Delete the jobs of this lease that have ended: their outputs are with their callers.

        Args:
            under_way: ids of those whose outputs may be not.
        """
        for path in self.path.parent.iterdir():
            ended = (path / "status").exists()
            if path != self.path and path.name not in under_way and ended:
                shutil.rmtree(path, ignore_errors=True)


class _Log:
    """One of a job's logs, read as it grows."""

    def __init__(self, job: JobFolder, io: JobIO, stream: Stream) -> None:
        self._path = job.path / stream
        self._io = io
        self._stream: Stream = stream
        self._descriptor = -1

    async def hand_on(self) -> None:
        """Pass on everything that is there and was not passed on before."""
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return  # not started yet
        while data := os.read(self._descriptor, _CHUNK):
            await self._io.output(self._stream, data)
            await anyio.lowlevel.checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
