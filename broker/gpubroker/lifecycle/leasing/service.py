"""A server on a leased machine, beside its jobs: started, reached, watched, and ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import anyio

from gpubroker.errors import BrokerError, ChannelLost, ServiceFailed
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.lease_files import KeptServer
from gpubroker.lifecycle.leasing.running import LetGo, run_on
from gpubroker.lifecycle.leasing.tunnel import answers, forwarded
from gpubroker.lifecycle.parts import Parts
from gpubroker.model.events import EventKind
from gpubroker.model.results import JobState, Outcome
from gpubroker.model.services import Service
from gpubroker.transport.blocks import background
from gpubroker.transport.job_io import Stream
from gpubroker.transport.said import said

#: Seconds between two looks whether it is ready.
_EVERY: Final = 0.25
#: Looks in a row that must find it silent.
_LOOKS: Final = 3
#: Seconds that a server which is silent gets to have ended, so that the error can say how.
_ENDING: Final = 2.0
#: Seconds that one which was told to end gets to let go of its port.
_LETTING_GO: Final = 5.0
#: Bytes of what it printed that are kept here.
_KEPT: Final = 1024 * 1024
#: Ports to choose from: below those that systems give to whoever connects.
_PORTS: Final = range(20_000, 32_000)


class AsyncServer:
    """A server that runs on a machine, from `AsyncLease.service`."""

    def __init__(self, parts: Parts, hold: Hold, service: Service, port: int, here: int) -> None:
        self._parts = parts
        self._hold = hold
        self._service = service
        self._port = port
        self._here = here
        self._said = bytearray()
        self._why: str | None = None
        self._failed = anyio.Event()
        self._left = anyio.Event()

    def __repr__(self) -> str:
        return f"<AsyncServer {self.url} on {self._hold.row.title}>"

    @property
    def url(self) -> str:
        """Where it is reached here: ``http://127.0.0.1:PORT``; the same as long as it runs."""
        return f"http://127.0.0.1:{self._here}"

    @property
    def port(self) -> int:
        """The TCP port that it listens on, on the machine."""
        return self._port

    @property
    def failure(self) -> ServiceFailed | None:
        """Why it is of no use any more; ``None`` while it is well, as far as is known."""
        return None if self._why is None else ServiceFailed(self._why, self.log())

    def log(self, tail: int = 64 * 1024) -> str:
        """The end of what it has printed so far, both streams as they came. Not trusted.

        It is brought here as it appears, so that it is there when the machine no longer is.

        Args:
            tail: bytes of it, 1 MiB at the most.
        """
        return bytes(self._said[-tail:] if tail > 0 else b"").decode(errors="replace")

    async def check(self) -> None:
        """Ask whether it is well now.

        Raises:
            ServiceFailed: it is not.
            ChannelLost: there is no way to the machine now: nobody knows.
        """
        if not self._failed.is_set() and not await self._answers():
            with anyio.move_on_after(_ENDING):
                await self._failed.wait()
            if self._why is None:
                await self._check_reached()
                raise ServiceFailed(self._text("does not answer"), self.log())
        if self.failure is not None:
            raise self.failure

    async def wait_failed(self) -> ServiceFailed:
        """Wait until it is of no use any more, and why."""
        await self._failed.wait()
        assert self.failure is not None
        return self.failure

    # ---- its life -------------------------------------------------------------------------

    @classmethod
    @asynccontextmanager
    async def started_on(
        cls, parts: Parts, hold: Hold, service: Service, env: Mapping[str, str]
    ) -> AsyncGenerator[Self]:
        """One on a machine for as long as the block lasts, ready when it begins. For the lease.

        On a machine of a pool it may run already: whoever had the machine before has started it,
        and leaves it running for whoever takes the machine.

        Args:
            env: what the machine's requirements add to its environment.

        Raises:
            ServiceFailed: it does not get ready; or the block raised because it is not well.
            ChannelLost, ProviderError: there is no way to the machine.
        """
        files = parts.files if hold.row.pool else None
        begun = None if files is None else files.server(hold.row.id)
        kept = begun or KeptServer(
            job_id=parts.new_id("service"), port=service.port or parts.source.choice(_PORTS)
        )
        async with forwarded(hold, kept.port) as here, background() as tasks:
            server = cls(parts, hold, service, kept.port, here)
            if begun is None and await answers(here, None):
                # Whoever it is would be taken for the one that is to be started.
                raise ServiceFailed(
                    f"something else listens at port {kept.port} of the machine already"
                )
            if begun is None and files is not None:
                files.put_server(hold.row.id, kept)
            tasks.start_soon(server._run, kept.job_id, env, begun is not None)
            try:
                await server._ready()
                tasks.start_soon(server._watch)
                yield server
            except Exception as error:
                await _explain(server.check, error)
                raise
            finally:
                tasks.cancel_scope.cancel()
                await server._let_go()

    async def _run(self, job_id: str, env: Mapping[str, str], begun: bool) -> None:
        """Start it, unless it was begun before, and follow it to its end, which is a failure."""
        job = self._service.job(self._port)
        try:
            run = await run_on(
                self._parts,
                self._hold,
                job,
                job_id=job_id,
                begun=begun,
                env={**env, **job.env},
                destination=Path(),
                purpose="service",
                on_output=self._note,
            )
            self._fail(_how(run.outcome))
        except (BrokerError, LetGo, OSError) as error:
            self._fail(f"cannot be followed: {error}")
        finally:
            self._left.set()

    async def _let_go(self) -> None:
        """Wait until its port is free: the next one may be started at once."""
        with anyio.move_on_after(_LETTING_GO, shield=True):
            await self._left.wait()
            while self._stays and await answers(self._here, None):  # noqa: ASYNC110
                await anyio.sleep(_EVERY)

    @property
    def _stays(self) -> bool:
        """Whether the machine is in hand still, so that another server may be started on it."""
        return self._hold.release_reason is None and not self._hold.left

    async def _ready(self) -> None:
        """Wait until it answers.

        Raises:
            ServiceFailed: it does not, or has ended.
        """
        limit = self._service.start_timeout
        with anyio.move_on_after(limit):
            while not (self._failed.is_set() or await answers(self._here, self._service.ready)):
                with anyio.move_on_after(_EVERY):  # nothing tells when a server far away is there
                    await self._failed.wait()
            if self.failure is not None:
                raise self.failure
            self._emit(f"{self._service.job(self._port).title} answers at {self.url}")
            return
        raise ServiceFailed(self._text(f"did not answer within {limit:g} s"), self.log())

    async def _watch(self) -> None:
        """Look every so often whether it is well, where that was asked for."""
        silent = 0
        while self._service.health is not None and silent < _LOOKS:
            await anyio.sleep(self._service.health_every)
            try:
                if await self._answers():
                    silent = 0
                else:
                    await self._check_reached()
                    silent += 1
            except ChannelLost:
                pass  # a way that is lost says nothing of what is at its end
        if silent:
            self._fail("stopped answering")

    async def _answers(self) -> bool:
        return await answers(self._here, self._service.health or self._service.ready)

    async def _check_reached(self) -> None:
        hold = self._hold
        if hold.link is not None and not await hold.link.answers(hold.provider, hold.machine):
            raise ChannelLost(f"there is no way to {hold.row.title} now")

    def _note(self, _: Stream, data: bytes) -> None:
        self._said += data
        if len(self._said) > 2 * _KEPT:
            del self._said[:-_KEPT]

    def _fail(self, what: str) -> None:
        if self._why is None:
            self._why = self._text(what)
            self._failed.set()

    def _text(self, what: str) -> str:
        tail = said(bytes(self._said))
        return f"the server at port {self._port} {what}{': ' if tail else ''}{tail}"

    def _emit(self, text: str) -> None:
        row = self._hold.row
        self._parts.emit(EventKind.SERVING, text, provider=row.provider, lease_id=row.id)


def _how(outcome: Outcome) -> str:
    if outcome.state is JobState.EXITED:
        return f"exited with code {outcome.exit_code}"
    if outcome.state is JobState.NOT_STARTED:
        return f"could not be started: {outcome.message}"
    return f"was {outcome.state}{': ' if outcome.message else ''}{outcome.message}"


async def _explain(check: Callable[[], Awaitable[None]], error: Exception) -> None:
    """Raise what is behind an error, if it is the server."""
    if isinstance(error, ServiceFailed):
        return
    try:
        await check()
    except ServiceFailed as failure:
        raise failure from error
    except BrokerError:
        pass
