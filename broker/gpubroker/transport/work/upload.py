"""Files on their way to a machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Final

from anyio import to_thread

from gpubroker.transport.job_io import JobIO
from gpubroker.transport.work.archive import archive, contents
from gpubroker.transport.work.digests import digests
from gpubroker.transport.work.lines import as_line
from gpubroker.transport.work.patient import PatientChannel, broken
from gpubroker.transport.work.pieces import pump, read_by_thread
from gpubroker.transport.work.placing import Entry, refused

#: Bytes from which on a file is sent by itself, and goes on where a connection broke.
LARGE: Final = 64 * 1024**2
#: Bytes of smaller files in one tar stream, which is what is sent again after a broken connection.
_BATCH: Final = 64 * 1024**2
#: Bytes that a file takes on the disk beyond its own, and that are left free.
_PER_FILE: Final = 4096
_ROOM: Final = 16 * 1024**2
_TRIES: Final = 3


class Upload:
    """The files of one job, on their way into its folder."""

    def __init__(self, channel: PatientChannel, entries: Sequence[Entry], io: JobIO) -> None:
        self._channel = channel
        self._entries = entries
        self._io = io
        self._total = sum(entry.size for entry in entries)
        self._done = 0

    def check_room(self, free: int | None) -> None:
        """Refuse what will not fit into `free` bytes, before any of it is sent.

        Raises:
            ProviderError: it does not fit.
        """
        needed = self._total + _PER_FILE * len(self._entries) + _ROOM
        if free is not None and needed > free:
            raise refused(
                f"the job's files need {needed / 1e9:.2f} GB on the machine's disk,"
                f" which has {free / 1e9:.2f} GB free"
            )

    async def send(self) -> None:
        """Send everything; what has arrived whole is not sent again when a connection breaks.

        Raises:
            ProviderError: the machine cannot take it, or a file is not what it was.
            FolderGone: there is no folder of the job.
        """
        self._progress(0)
        for batch in _batches(self._entries):
            await self._channel.persist(partial(self._batch, batch))
            self._done += sum(entry.size for entry in batch)
        for entry in self._entries:
            if entry.size >= LARGE:
                await self._large(entry)
                self._done += entry.size
        self._progress(0)

    def _progress(self, more: int) -> None:
        self._io.progress("upload", min(self._done + more, self._total), self._total)

    async def _batch(self, batch: Sequence[Entry]) -> None:
        size = sum(entry.size for entry in batch)
        sent = 0
        with closing(archive(batch)) as pieces:
            async with self._channel.talk("unpack") as conversation:

                async def send(piece: bytes) -> None:
                    nonlocal sent
                    await conversation.send(piece)
                    sent += len(piece)
                    self._progress(min(sent, size))

                await pump(read_by_thread(pieces), send)
                await conversation.sent()
                await conversation.end()

    async def _large(self, entry: Entry) -> None:
        how = "on"
        for _ in range(_TRIES):
            resumed = await self._channel.persist(partial(self._append, entry, how))
            if not resumed or await self._arrived(entry):
                return
            how = "anew"
        raise broken(f"{entry.name!r} does not arrive as it is, on the machine's disk")

    async def _append(self, entry: Entry, how: str) -> bool:
        """Send what is not there yet; returns whether something was."""
        async with self._channel.talk("append", str(entry.size), how) as conversation:
            await conversation.send(as_line(entry.name))
            sent = here = await conversation.number(entry.size)

            async def send(piece: bytes) -> None:
                nonlocal sent
                await conversation.send(piece)
                sent += len(piece)
                self._progress(sent)

            with closing(contents(entry, here)) as pieces:
                await pump(read_by_thread(pieces), send)
            await conversation.sent()
            await conversation.end()
        return here > 0

    async def _arrived(self, entry: Entry) -> bool:
        """Whether the machine has a file that was sent in parts as it is here."""
        theirs = (await digests(self._channel, "new", [entry.name])).get(entry.name)
        return theirs is None or theirs == await to_thread.run_sync(_digest, entry)


def _digest(entry: Entry) -> str:
    digest = hashlib.sha256()
    for data in contents(entry):
        digest.update(data)
    return digest.hexdigest()


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Entries in tar streams of a sensible size; large files without what is in them."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if entry.size >= LARGE:
            batch.append(replace(entry, source=b"", size=0, mode=entry.mode | 0o200))
            continue
        batch.append(entry)
        size += entry.size + 1024
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
