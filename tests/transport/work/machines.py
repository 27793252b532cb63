"""A machine that is a folder and real processes, and a channel to it that can be made to fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from gpubroker.errors import ChannelLost
from gpubroker.transport.ssh.local_socket import LocalSocket


@dataclass
class Cut:
    """Where a connection breaks: after so many bytes to the machine, or from it.

    Attributes:
        kill: the script dies with the connection, instead of going on as long as it likes.
        hang: nothing comes through any more, but nobody says so.
    """

    sent: int | None = None
    received: int | None = None
    kill: bool = False
    hang: bool = False


#: Shells and event loops have nothing to do with each other: each is tried, but not each pair.
each_shell = pytest.mark.parametrize(
    ("any_machine", "anyio_backend"),
    [("dash", "asyncio"), ("bash", "trio"), ("busybox", "asyncio")],
    indirect=True,
)

#: For what is all the machine's doing, and for what takes long: as much on one as on the other.
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
on_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)

NEVER = Cut()


class LocalChannel:
    """Runs scripts here, by a shell of choice, with a home folder of their own.

    Attributes:
        calls: the arguments of every script that was run, its text left out.
        moved: bytes to and from each of them.
    """

    def __init__(self, home: Path, *, shell: str = "sh", path: str | None = None) -> None:
        self.home = home
        self.calls: list[tuple[str, ...]] = []
        self.moved: list[list[int]] = []
        self.path = path or os.environ["PATH"]
        self._shell = shell
        self._cuts: Iterator[Cut] = iter(())

    def cut(self, *cuts: Cut) -> None:
        """The next connections break like this; those after them are good."""
        self._cuts = iter(cuts)

    def execute(self, script: str, *arguments: str) -> AbstractAsyncContextManager[LocalExecution]:
        return self._execute(script, *arguments)

    @asynccontextmanager
    async def _execute(self, script: str, *arguments: str) -> AsyncGenerator[LocalExecution]:
        cut = next(self._cuts, NEVER)
        self.calls.append(arguments)
        self.moved.append([0, 0])
        if cut.sent == 0:
            raise ChannelLost("refused")
        ends = [LocalSocket.pair() for _ in range(3)]
        try:
            process = await anyio.open_process(
                [self._shell, "-c", script, "sh", *arguments],
                env={"HOME": str(self.home), "PATH": self.path, "LANG": "C.UTF-8"},
                cwd=self.home,
                stdin=ends[0][1].fileno(),
                stdout=ends[1][1].fileno(),
                stderr=ends[2][1].fileno(),
                start_new_session=True,
            )
        except BaseException:
            for ours, _ in ends:
                ours.close()
            raise
        finally:
            for _, theirs in ends:
                theirs.close()
        execution = LocalExecution(process, [ours for ours, _ in ends], cut, self.moved[-1])
        try:
            yield execution
        finally:
            with anyio.CancelScope(shield=True):
                await execution.close()

    @asynccontextmanager
    async def forward(self, port: int) -> AsyncGenerator[int]:
        yield port


class LocalExecution:
    """A script that runs here."""

    def __init__(
        self, process: Process, streams: list[LocalSocket], cut: Cut, moved: list[int]
    ) -> None:
        self.process = process
        self.streams = streams
        self.cut = cut
        self.moved = moved
        self.broken = False
        self.stdin: ByteSendStream = _In(self, streams[0])
        self.stdout: ByteReceiveStream = _Out(self, streams[1])
        self._stderr = b""

    @property
    def stderr(self) -> bytes:
        return self._stderr[-4096:]

    async def wait(self) -> int:
        if self.broken:
            raise ChannelLost("cut")
        code = await self.process.wait()
        if code < 0:
            raise ChannelLost("killed")
        with anyio.move_on_after(0.1), suppress(anyio.EndOfStream):
            while True:
                self._stderr += await self.streams[2].receive()
        return code

    async def snap(self) -> None:
        """Break the connection."""
        if self.cut.hang:
            await anyio.sleep_forever()
        self.broken = True
        if self.cut.kill:
            self._kill()
        for stream in self.streams:
            stream.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End our side of it; the script is told by its streams, and then not asked any more."""
        for stream in self.streams:
            stream.close()
        with anyio.move_on_after(0.3):
            await self.process.wait()
        self._kill()
        await self.process.wait()


class _In(ByteSendStream):
    def __init__(self, execution: LocalExecution, stream: LocalSocket) -> None:
        self._execution = execution
        self._stream = stream

    async def send(self, item: bytes) -> None:
        execution, cut = self._execution, self._execution.cut
        if execution.broken:
            raise anyio.BrokenResourceError
        if cut.sent is not None and execution.moved[0] + len(item) >= cut.sent:
            with suppress(anyio.BrokenResourceError):
                await self._stream.send(item[: cut.sent - execution.moved[0]])
            execution.moved[0] = cut.sent
            await execution.snap()
            raise anyio.BrokenResourceError
        await self._stream.send(item)
        execution.moved[0] += len(item)

    async def aclose(self) -> None:
        if not self._execution.broken:
            await self._stream.send_eof()


class _Out(ByteReceiveStream):
    def __init__(self, execution: LocalExecution, stream: LocalSocket) -> None:
        self._execution = execution
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        execution, cut = self._execution, self._execution.cut
        if execution.broken:
            raise anyio.EndOfStream
        if cut.received is not None:
            left = cut.received - execution.moved[1]
            if left <= 0:
                await execution.snap()
                raise anyio.EndOfStream
            max_bytes = min(max_bytes, left)
        data = await self._stream.receive(max_bytes)
        execution.moved[1] += len(data)
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


def shells(root: Path) -> dict[str, tuple[str, str]]:
    """The kinds of shell that are here: name -> the shell, and the PATH for what it runs.

    Where there is a busybox, all its tools are used with its shell, ``tar`` above all.
    """
    found: dict[str, tuple[str, str]] = {}
    usual = os.environ["PATH"]
    for name in ("dash", "bash"):
        if where := shutil.which(name):
            folder = root / name
            folder.mkdir()
            (folder / "sh").symlink_to(where)
            found[name] = str(folder / "sh"), f"{folder}:{usual}"
    if where := shutil.which("busybox"):
        folder = root / "busybox"
        folder.mkdir()
        subprocess.run([where, "--install", "-s", str(folder)], check=True, capture_output=True)
        found["busybox"] = str(folder / "sh"), str(folder)
    return found
