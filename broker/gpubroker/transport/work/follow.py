"""One job on a machine: started once, followed to its end over connections that may break."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

import anyio

from gpubroker.model.jobs import Job
from gpubroker.model.results import JobState, Outcome
from gpubroker.transport.job_io import JobIO, Stream
from gpubroker.transport.said import said
from gpubroker.transport.work.frames import Frames
from gpubroker.transport.work.lines import job_lines
from gpubroker.transport.work.patient import PatientChannel, broken

#: Seconds that ending a job may take when its caller leaves.
_CANCELLING: Final = 5.0

NO_TAR: Final = "the image has no tar, which files are moved with"
NO_TRACE: Final = "the machine has no trace of the job any more: it was made anew, or replaced"
_ENDING: Final = re.compile(
    rb"(exited|timed-out|cancelled|not-started) (-|\d{1,3}) \d{1,18} \d{1,18} (\d{1,18}) *\n(.*)",
    re.DOTALL,
)
_STATES: Final = {
    b"exited": JobState.EXITED,
    b"timed-out": JobState.TIMED_OUT,
    b"cancelled": JobState.CANCELLED,
    b"not-started": JobState.NOT_STARTED,
}


class RemoteJob:
    """A job, as it is on the machine.

    Args:
        has_files: its files were uploaded before.
    """

    def __init__(self, channel: PatientChannel, job: Job, io: JobIO, *, has_files: bool) -> None:
        self._channel = channel
        self._job = job
        self._io = io
        self._has_files = has_files
        self._started = io.begun
        self._seen: dict[Stream, int] = {"stdout": 0, "stderr": 0}

    async def outcome(self) -> Outcome:
        """Start it, hand on its output, and wait for its end.

        A connection that breaks is made anew, and goes on with the first byte that is not here.
        Being cancelled ends the job, if that is possible within five seconds, unless it is somebody
        else's.

        Raises:
            ProviderError: the machine does not do its part.
        """
        try:
            return await self._channel.persist(self._attend)
        except BaseException:
            if not self._io.leave_running:
                with anyio.move_on_after(_CANCELLING, shield=True):
                    await self._cancel()
            raise

    async def _cancel(self) -> None:
        with suppress(Exception):  # what is being raised matters more
            await self._channel.ask("cancel")

    async def _attend(self) -> Outcome:
        job, seen = self._job, self._seen
        timeout = "-" if job.timeout is None else f"{max(job.timeout, 0.001):.3f}"
        async with self._channel.talk(
            "attach",
            "started" if self._started else "new",
            str(seen["stdout"]),
            str(seen["stderr"]),
            str(job.output_limit),
            "home" if self._io.in_home else "work",
            timeout,
            "files" if self._has_files else "-",
            "tar" if self._has_files or job.outputs else "-",
            self._io.beside,
        ) as conversation:
            if not self._started:
                await conversation.send(job_lines(job.argv, self._io.env))
            await conversation.sent()
            frames = Frames()
            while data := await conversation.receive():
                for stream, piece in frames.feed(data):
                    await self._hand_on(stream, piece)
                self._started = self._started or "S" in frames.signs
            await conversation.end()
        return _outcome(frames)

    async def _hand_on(self, stream: Stream, piece: bytes) -> None:
        """Count first: what was handed on must never be asked for again."""
        self._seen[stream] += len(piece)
        if self._seen[stream] > self._job.output_limit:
            raise broken("the machine sent more output than it was asked for")
        await self._io.output(stream, piece)


def _outcome(frames: Frames) -> Outcome:
    if "T" in frames.signs:
        return Outcome(state=JobState.NOT_STARTED, message=NO_TAR)
    if "G" in frames.signs:
        return Outcome(state=JobState.LOST, message=NO_TRACE)
    if "D" in frames.signs:
        message = "what stood for the job on the machine was killed, or the machine was restarted"
        return Outcome(state=JobState.LOST, message=message)
    found = _ENDING.fullmatch(frames.ending)
    if found is None:
        raise broken(f"the machine does not say how the job ended: {said(frames.ending)!r}")
    state, code, dropped, why = found.groups()
    return Outcome(
        state=_STATES[state],
        exit_code=int(code) if state == b"exited" and code != b"-" else None,
        dropped=int(dropped),
        message=_shown(why) if state == b"not-started" else "",
    )


def _shown(message: bytes) -> str:
    """A sentence of ours in which there may be a name of the caller's."""
    text = message.decode("utf-8", "replace").strip()
    return "".join(letter if letter.isprintable() else " " for letter in text)[:300]
