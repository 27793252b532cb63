"""A channel that is tried again for as long as it takes, and what is said over it."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, TypeVar

import anyio

from gpubroker.errors import ChannelLost, ErrorKind, ProviderError, Scope
from gpubroker.policy.backoff import delay
from gpubroker.transport.channel import Channel, Execution
from gpubroker.transport.said import said
from gpubroker.transport.work.scripts import Name, script

T = TypeVar("T")

#: Seconds without a byte after which a connection counts as lost.
SILENCE: Final = 60.0
#: Seconds that a script gets to end once it was told everything: it may wait for a disk.
_ENDING: Final = 600.0
#: Seconds for which a try must have lasted not to count as one more failure in a row.
_HEALTHY: Final = 30.0
#: Exit code of scripts that do not find the folder of their job.
_GONE: Final = 44


class FolderGone(Exception):
    """The machine has no folder of the job any more: it was started anew, or replaced."""


def broken(message: str) -> ProviderError:
    """A machine that does not do what it must."""
    return ProviderError(message, kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)


class Conversation:
    """One script that runs on the machine, with an end to every wait."""

    def __init__(self, name: Name, execution: Execution) -> None:
        self._name = name
        self._execution = execution
        self._held = b""

    async def send(self, data: bytes) -> None:
        """Write to its standard input; what it does not want to read is not sent."""
        with _patience(SILENCE), suppress(anyio.BrokenResourceError):
            await self._execution.stdin.send(data)

    async def sent(self) -> None:
        """Say that this was all."""
        with _patience(SILENCE), suppress(anyio.BrokenResourceError):
            await self._execution.stdin.aclose()

    async def receive(self, size: int = 65536) -> bytes:
        """Some of what it says, `size` bytes at the most; nothing at the end."""
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        with _patience(SILENCE):
            try:
                return await self._execution.stdout.receive(size)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return b""

    async def block(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        parts: list[bytes] = []
        while size and (data := await self.receive(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    async def line(self, limit: int = 100) -> bytes:
        """The next line, without its end.

        Raises:
            ProviderError: it has more than `limit` bytes, or never ended.
        """
        text = b""
        while b"\n" not in text and len(text) <= limit:
            data = await self.receive()
            if not data:
                await self.end()
                raise broken(f"the machine broke off: {said(text)!r}")
            text += data
        line, ended, rest = text.partition(b"\n")
        if not ended or len(line) > limit:
            raise broken(f"the machine answered nonsense: {said(text)!r}")
        self._held = rest + self._held
        return line

    async def number(self, most: int) -> int:
        """The next line, as a number from 0 to `most`.

        Raises:
            ProviderError: it is not.
        """
        line = await self.line()
        if not (line.isdigit() and int(line) <= most):
            raise broken(f"the machine answered {said(line)!r} where a number up to {most} belongs")
        return int(line)

    async def end(self) -> None:
        """Wait for a good end.

        Raises:
            ProviderError: it failed. ChannelLost: nobody knows.
            FolderGone: there is no folder of the job.
        """
        with _patience(_ENDING):
            code = await self._execution.wait()
        if code == _GONE:
            raise FolderGone
        if code:
            why = said(self._execution.stderr) or "no reason given"
            raise broken(f"the machine's part in {self._name!r} failed (exit {code}): {why}")


@contextmanager
def _patience(seconds: float) -> Generator[None]:
    """A wait of so long; then the connection counts as lost."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise ChannelLost(f"the machine said nothing for {seconds:g} s") from None


class PatientChannel:
    """A machine, for one job.

    Args:
        job_id: the job's id, which is the name of its folder there.
        jitter: where the randomness of waiting times comes from.
    """

    def __init__(
        self, channel: Channel, job_id: str, *, jitter: random.Random | None = None
    ) -> None:
        self.job_id = job_id
        self._channel = channel
        self._jitter = jitter or random.Random()  # noqa: S311  not for secrets

    @asynccontextmanager
    async def talk(self, name: Name, *arguments: str) -> AsyncGenerator[Conversation]:
        """Run a script, whose first argument is the job's id."""
        async with self._channel.execute(script(name), self.job_id, *arguments) as execution:
            yield Conversation(name, execution)

    async def ask(
        self, name: Name, *arguments: str, stdin: bytes = b"", limit: int = 4096
    ) -> bytes:
        """Run a script that may be run again, until its answer is here.

        Raises:
            ProviderError: it failed, or the answer has more than `limit` bytes.
            FolderGone: there is no folder of the job.
        """

        async def once() -> bytes:
            async with self.talk(name, *arguments) as conversation:
                await conversation.send(stdin)
                await conversation.sent()
                answer = await conversation.block(limit + 1)
                if len(answer) > limit:
                    raise broken(f"the machine answered {name} with more than {limit} bytes")
                await conversation.end()
                return answer

        return await self.persist(once)

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do something again for as long as the connection is what breaks."""
        failures = 0
        while True:
            began = anyio.current_time()
            try:
                return await attempt()
            except ChannelLost:
                healthy = anyio.current_time() - began > _HEALTHY
                failures = 1 if healthy else failures + 1
                await anyio.sleep(delay(failures, self._jitter, first=0.25, cap=10.0))
