"""Files on their way back from a machine, whatever it sends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

from anyio import to_thread

from gpubroker.errors import ChannelLost, ProviderError
from gpubroker.transport.blocks import background
from gpubroker.transport.job_io import JobIO
from gpubroker.transport.receive import ReceivedFile, components
from gpubroker.transport.work.digests import digests
from gpubroker.transport.work.later import Later
from gpubroker.transport.work.lines import as_line
from gpubroker.transport.work.patient import PatientChannel, broken
from gpubroker.transport.work.pieces import PIECE, pump
from gpubroker.transport.work.selection import places, selected
from gpubroker.transport.work.unpack import TarReader

#: Bytes from which on a file goes on where a connection broke, and does not begin again.
LARGE: Final = 64 * 1024**2
#: Most bytes of names that a machine may list.
_NAMES: Final = 64 * 1024**2
_MOST: Final = 2**62
_TRIES: Final = 3


class Download:
    """The outputs of one job, on their way here.

    Args:
        place: ``"work"`` for the job's own folder, or ``"home"``.
    """

    def __init__(self, channel: PatientChannel, place: str, io: JobIO) -> None:
        self._channel = channel
        self._place = place
        self._io = io
        self._done = 0
        self._total: int | None = None
        #: Large files that a connection cut off.
        self._begun: dict[str, ReceivedFile] = {}

    async def bring(self, patterns: Sequence[str]) -> None:
        """Bring back every file that a pattern asks for, and report patterns that ask for none.

        Files come as one tar stream. What a broken connection cut off comes again, and large
        files go on where they were. Every file is compared with what the machine says it has, and
        is fetched once more where that differs: something that the job left may still write to it.

        Raises:
            ProviderError: the machine sends something else than it has. All other files are here.
            FolderGone: there is no folder of the job.
            OSError: files cannot be written here.
        """
        try:
            await self._bring(patterns)
        finally:
            for file in self._begun.values():
                file.close(whole=False)

    async def _bring(self, patterns: Sequence[str]) -> None:
        files, links = await self._listed(patterns)
        names, missing = selected(patterns, [*files, *links])
        for pattern in missing:
            self._io.report_missing(pattern)
        packed = [name for name in names if name in files and _fits_a_list(name)]
        alone = [name for name in names if name not in set(packed)]
        alone += await self._many(packed) if packed else []
        # One that cannot be had must not cost the others.
        problem: ProviderError | None = None
        for name in alone:
            try:
                await self._one(name)
            except ProviderError as error:
                problem = problem or error
        await to_thread.run_sync(self._io.sync)
        if problem is not None:
            raise problem

    async def _listed(self, patterns: Sequence[str]) -> tuple[set[str], list[str]]:
        """The regular files that may be asked for, and the links to such files."""
        stdin = b"".join(map(as_line, places(patterns)))
        answer = await self._channel.ask("list", self._place, stdin=stdin, limit=_NAMES)
        return _read_list(answer)

    def _count(self, size: int) -> None:
        # Headers count too, and what came more than once; shown is no more than there is.
        self._done += size
        shown = self._done if self._total is None else min(self._done, self._total)
        self._io.progress("download", shown, self._total)

    # ----------------------------------------------------------------------------------------
    # Many files as one stream
    # ----------------------------------------------------------------------------------------

    async def _many(self, names: Sequence[str]) -> list[str]:
        """Fetch files; returns those that are not here after all, or not as the machine has them."""
        waiting, got = dict.fromkeys(names), dict[str, str]()
        async with background() as tasks:
            # At the same time, since it keeps the machine busy and not the line.
            theirs = Later[dict[str, str]]()
            tasks.start_soon(theirs.work, partial(digests, self._channel, self._place, names))
            for _ in range(_TRIES):
                if await self._channel.persist(partial(self._stream, waiting, got)):
                    break
            said = await theirs.result()
        differing = [name for name, ours in got.items() if said.get(name, ours) != ours]
        for name in differing:
            self._io.reject(name)
        return [*differing, *waiting, *self._begun]

    async def _stream(self, waiting: dict[str, None], got: dict[str, str]) -> bool:
        """Take one stream of what is `waiting`; returns whether it came to its end."""
        if not waiting:
            return True
        taking = _Taking(self._io, waiting, got)
        try:
            async with self._channel.talk("pack", self._place) as conversation:
                await conversation.send("".join(f"./{name}\n" for name in waiting).encode())
                await conversation.sent()
                total = await conversation.number(_MOST)
                self._total = self._total or total or None

                async def take(data: bytes) -> None:
                    await to_thread.run_sync(taking.reader.feed, data)
                    self._count(len(data))

                await pump(partial(conversation.block, PIECE), take)
                await conversation.end()
        except ChannelLost:
            if taking.file is not None and taking.file.size >= LARGE:
                del waiting[taking.name]
                self._begun[taking.name], taking.file = taking.file, None
            raise
        finally:
            if taking.file is not None:
                taking.file.close(whole=False)
        return taking.reader.ended

    # ----------------------------------------------------------------------------------------
    # One file
    # ----------------------------------------------------------------------------------------

    async def _one(self, name: str) -> None:
        """Fetch one file, and once more if it is not what the machine says it has.

        Raises:
            ProviderError: it does not come as it is.
        """
        ours = await self._fetch(name)
        if ours is None or await self._said(name) in {None, ours}:
            return
        self._io.reject(name)
        ours = await self._fetch(name)
        said = await self._said(name)
        # One that changes all the time is as good as can be had as it was at some moment.
        if ours is not None and said not in {None, ours} and said == await self._said(name):
            self._io.reject(name)
            raise broken(f"the output {name[:80]!r} does not arrive as the machine has it")

    async def _said(self, name: str) -> str | None:
        """The SHA-256 of a file, by the machine's word; ``None`` where it cannot tell."""
        return (await digests(self._channel, self._place, [name])).get(name)

    async def _fetch(self, name: str) -> str | None:
        """Fetch one file; returns its SHA-256, or ``None`` if it is not there or not readable."""
        file = self._begun.pop(name, None)
        try:
            for _ in range(_TRIES):
                file = file or self._io.receive(name)
                state = await self._channel.persist(partial(self._part, name, file))
                if state == "absent":
                    return None
                whole, ended = state == "whole", file
                file = None
                await to_thread.run_sync(partial(ended.close, whole=whole))
                if whole:
                    return ended.sha256
        finally:
            if file is not None:
                file.close(whole=False)
        raise broken(f"the output {name[:80]!r} always ends too early")

    async def _part(self, name: str, file: ReceivedFile) -> Literal["whole", "short", "absent"]:
        """Fetch what is missing of a file."""
        async with self._channel.talk("send", self._place, str(file.size)) as conversation:
            await conversation.send(as_line(name))
            await conversation.sent()
            answer = await conversation.line()
            if answer == b"-":
                return "absent"
            if not answer.isdigit() or int(answer) > _MOST:
                raise broken(f"the machine says that an output has {answer[:20]!r} bytes")
            size = int(answer)
            left = max(0, size - file.size)

            async def more() -> bytes:
                nonlocal left  # what the file may grow by meanwhile is left out
                data = await conversation.block(min(PIECE, left))
                left -= len(data)
                return data

            async def take(data: bytes) -> None:
                await to_thread.run_sync(file.write, data)
                self._count(len(data))

            await pump(more, take)
            if file.size == size:
                return "whole"
            await conversation.end()
            return "short"


class _Taking:
    """Writes the files of one stream; only those that are waited for, each once.

    Attributes:
        name, file: the one that is being written.
    """

    def __init__(self, io: JobIO, waiting: dict[str, None], got: dict[str, str]) -> None:
        self.name = ""
        self.file: ReceivedFile | None = None
        self.reader = TarReader(self._begin, self._end)
        self._io = io
        self._waiting = waiting
        self._got = got

    def _begin(self, name: str, _size: int) -> ReceivedFile:
        name = name.removeprefix("./")
        if name not in self._waiting:
            raise broken(f"the machine sent a file that was not asked for: {name[:80]!r}")
        self.name, self.file = name, self._io.receive(name)
        return self.file

    def _end(self) -> None:
        assert self.file is not None
        file, self.file = self.file, None
        file.close(whole=True)
        del self._waiting[self.name]
        self._got[self.name] = file.sha256


def _fits_a_list(name: str) -> bool:
    """Whether a file can be asked for by a line, and be received under its name."""
    try:
        components(name)
    except ProviderError:
        return False
    return "\n" not in name


def _read_list(answer: bytes) -> tuple[set[str], list[str]]:
    *records, last, rest = [b"", *answer.split(b"\0")]
    if last != b"E" or rest:
        raise broken("the machine's list of files has no end")
    names: dict[bytes, list[str]] = {b"F": [], b"L": []}
    for record in records[1:]:
        kind, name = record[:1], record[1:]
        if kind not in names or not name.startswith(b"./"):
            raise broken(f"the machine's list of files holds {record[:80]!r}")
        names[kind].append(name[2:].decode("utf-8", "surrogateescape"))
    return set(names[b"F"]), names[b"L"]
