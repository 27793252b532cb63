"""A job on a machine that is reached over a channel, from its files to its outputs."""

from __future__ import annotations

import re
from typing import Final

from anyio import to_thread

from gpubroker.model.jobs import Job
from gpubroker.model.results import JobState, Outcome
from gpubroker.transport.channel import Channel
from gpubroker.transport.job_io import JobIO
from gpubroker.transport.work.download import Download
from gpubroker.transport.work.follow import NO_TAR, NO_TRACE, RemoteJob
from gpubroker.transport.work.patient import FolderGone, PatientChannel, broken
from gpubroker.transport.work.placing import Entry, entries, refused
from gpubroker.transport.work.upload import Upload

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_READY: Final = re.compile(rb"(new|started) (yes|no) (-|\d{1,18})\n")


async def run_job(channel: Channel, job: Job, io: JobIO) -> Outcome:
    """Place a job's files, run it, hand on its output as it appears, and bring its outputs back.

    A connection that breaks is made anew, for as long as it takes: it says nothing about the job,
    which goes on meanwhile. The caller limits the time. The machine keeps to ``job.timeout`` by
    itself. Nothing is needed there but a POSIX ``sh`` with its usual tools and, where files move,
    ``tar``. Argument words, environment and names of files travel as data; the environment is
    never written to the machine's disk.

    Args:
        channel: the way to the machine.
        io: what comes back goes through here. ``io.job_id`` is started there once at the most,
            however often this is called with it; not at all where it has ``begun`` before.

    Returns:
        The outcome; `JobState.LOST` if the machine no longer knows the job.

    Raises:
        ProviderError: `BAD_REQUEST`: a file cannot be placed. `HOST_BROKEN`: the machine does
            something else than it should; what arrived whole by then is kept.
        OSError: outputs cannot be written here.
    """
    if not _ID.fullmatch(io.job_id):
        raise refused(f"job id {io.job_id!r} cannot be the name of a folder")
    new = job.files and not io.begun
    placed = await to_thread.run_sync(entries, job.files) if new else []
    patient = PatientChannel(channel, io.job_id)
    try:
        if placed and not await _place(patient, placed, io):
            return _without_tar(job, io)
        outcome = await RemoteJob(patient, job, io, has_files=bool(placed)).outcome()
        if outcome.message == NO_TAR:
            return _without_tar(job, io)
        if job.outputs and outcome.state is not JobState.LOST:
            await Download(patient, "home" if io.in_home else "work", io).bring(job.outputs)
    except FolderGone:
        return Outcome(state=JobState.LOST, message=NO_TRACE)
    return outcome


async def _place(patient: PatientChannel, placed: list[Entry], io: JobIO) -> bool:
    """Put a job's files into its folder, unless it was started before; ``False`` without a tar."""
    found = _READY.fullmatch(await patient.ask("prepare", io.beside))
    if found is None:
        raise broken("the machine does not say whether a job can be placed")
    state, tar, free = found.groups()
    if state == b"new":
        if tar == b"no":
            return False
        upload = Upload(patient, placed, io)
        upload.check_room(None if free == b"-" else int(free) * 1024)
        await upload.send()
    return True


def _without_tar(job: Job, io: JobIO) -> Outcome:
    for pattern in job.outputs:
        io.report_missing(pattern)
    return Outcome(state=JobState.NOT_STARTED, message=NO_TAR)
