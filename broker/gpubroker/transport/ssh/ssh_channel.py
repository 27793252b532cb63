"""The way to a machine over SSH, through the system's OpenSSH client."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import anyio

from gpubroker.errors import ChannelLost, ErrorKind, ProviderError
from gpubroker.model.machines import Route
from gpubroker.transport.blocks import background
from gpubroker.transport.ssh.execution import Command, SshExecution
from gpubroker.transport.ssh.forwarding import forwarding
from gpubroker.transport.ssh.known_hosts import KnownHosts
from gpubroker.transport.ssh.lease_key import LeaseKey, missing_client, require_client
from gpubroker.transport.ssh.local_socket import LocalSocket
from gpubroker.transport.ssh.master import Master, Settings
from gpubroker.transport.ssh.mux import MasterGone, Opened, OpenRefused, open_forward, open_session
from gpubroker.transport.ssh.routes import Routes, usable

__all__ = ["LeaseKey", "SshChannel", "missing_client", "open_channel"]

T = TypeVar("T")

#: Seconds that a machine gets to answer, and a script to begin: login shells may be slow.
_PATIENCE: Final = 60.0
#: Seconds between tries where a machine refuses one more session; nothing ran, so nothing runs twice.
_REFUSED: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
#: Connections that one call tries to use before it gives up.
_CONNECTIONS: Final = 3


@asynccontextmanager
async def open_channel(
    routes: Sequence[Route],
    *,
    key: LeaseKey,
    host_keys: Sequence[str] = (),
    folder: Path,
    connect_timeout: float = 10.0,
    keepalive: float = 15.0,
) -> AsyncGenerator[SshChannel]:
    """Connect to a machine, and stay connected as long as the block lasts.

    Args:
        routes: the ways there; straight ones are tried before proxied ones.
        key: lets us in.
        host_keys: the machine's own public keys (``ssh-ed25519 AAAA...``). Without any, the first
            machine that lets us in is believed, and its key alone from then on.
        folder: the lease's private folder, for ``known_hosts`` and the control socket.
        connect_timeout: seconds per route.
        keepalive: seconds of silence after which the machine is asked whether it is there, 3 times
            before it is lost. Both are whole seconds to OpenSSH.

    Raises:
        ChannelLost: no route leads there now.
        ProviderError: `HOST_BROKEN`: whoever answers there has another host key; `BAD_REQUEST`:
            this system has no OpenSSH client.
    """
    require_client()
    settings = Settings(folder, key.private, connect_timeout, keepalive)
    channel = SshChannel(Routes(routes), KnownHosts(folder, host_keys), settings)
    try:
        await channel.connect()
        yield channel
    finally:
        await channel.aclose()


class SshChannel:
    """A way to one machine over SSH. Connects anew when the connection has broken."""

    def __init__(self, routes: Routes, known_hosts: KnownHosts, settings: Settings) -> None:
        self._routes = routes
        self._known_hosts = known_hosts
        self._settings = settings
        self._master: Master | None = None
        self._old: list[Master] = []
        self._connecting = anyio.Lock()
        self._closed = False

    @property
    def route(self) -> Route | None:
        """The way that worked last."""
        return self._routes.worked

    @property
    def host_keys(self) -> tuple[str, ...]:
        """The host keys that are believed from now on."""
        return self._known_hosts.keys

    def update_routes(self, routes: Sequence[Route]) -> None:
        """Take other ways the next time that a connection is made."""
        self._routes.replace(routes)

    # ---- what it is for -------------------------------------------------------------------

    @asynccontextmanager
    async def execute(self, script: str, *arguments: str) -> AsyncGenerator[SshExecution]:
        """Run a POSIX shell script on the machine; the block begins when the script has.

        Leaving the block closes its streams here. What runs there is told by that alone.

        Raises:
            ChannelLost: there is no way to the machine, or it broke before the script began.
            ProviderError: `HOST_BROKEN`: the machine is not the one it was, or floods us.
        """
        command = Command(script, arguments)
        master, execution = await self._over(lambda master: _start(master, command))
        try:
            with execution:
                async with background() as tasks:
                    tasks.start_soon(execution.drain_stderr)
                    with anyio.move_on_after(_PATIENCE) as patience:
                        await execution.begin(command.mark)
                    if patience.cancelled_caught:
                        raise ChannelLost(f"the machine began no script within {_PATIENCE:g} s")
                    yield execution
        finally:
            master.sessions.release()
            await self._leave(master)

    @asynccontextmanager
    async def forward(self, port: int) -> AsyncGenerator[int]:
        """Make a TCP port of the machine's loopback address reachable on ours.

        It stays the same port here when the connection to the machine breaks: the next use of it
        connects anew. Whoever has an account on this computer can use it.

        Raises:
            ChannelLost: there is no way to the machine.
        """

        async def open_there(files: Sequence[socket.socket]) -> Callable[[], Awaitable[None]]:
            master, opened = await self._over(lambda master: _join(master, port, files))

            async def close() -> None:
                opened.close()
                await self._leave(master)

            return close

        await self.connect()
        async with forwarding(open_there) as here:
            yield here

    # ---- connections ----------------------------------------------------------------------

    async def connect(self) -> Master:
        """The connection that new work takes; made, if there is none.

        Raises:
            ChannelLost, ProviderError: none can be made.
        """
        async with self._connecting:
            if self._closed:
                raise ChannelLost("the way to the machine was closed")
            if self._master is not None and not self._master.alive:
                await self._retire(self._master)
            if self._master is None:
                self._master = await self._make()
                self._routes.worked = self._master.route
            return self._master

    async def _make(self) -> Master:
        failures: list[ProviderError] = []
        for route in self._routes.in_order():
            if not usable(route):
                failures.append(ChannelLost(f"not an address: {route.host[:80]!r}"))
                continue
            believed = bool(self._known_hosts.keys)
            try:
                return await Master.connect(route, self._settings, self._known_hosts.options())
            except ProviderError as error:
                failures.append(error)
                if not believed:
                    self._known_hosts.forget()
        # Of a machine that is not ours nothing more is expected; all else may pass.
        for failure in failures:
            if failure.kind is not ErrorKind.TRANSIENT:
                raise failure
        raise ChannelLost("; ".join(map(str, failures)) or "no route to the machine is known")

    async def _over(self, work: Callable[[Master], Awaitable[T]]) -> tuple[Master, T]:
        """Do `work` over a connection, or over another one where the first turns out useless.

        Returns:
            The connection, which is in use until it is left, and what came of the work.
        """
        problem = ""
        for _ in range(_CONNECTIONS):
            master = await self.connect()
            master.used += 1
            try:
                return master, await work(master)
            except (MasterGone, OpenRefused) as error:
                # Nothing was started, so it may be asked for again.
                problem = master.said() or str(error)
                await self._retire(master)
                await self._leave(master)
            except TimeoutError:
                await self._retire(master)
                await self._leave(master)
                raise ChannelLost(f"the machine did not answer for {_PATIENCE:g} s") from None
            except BaseException:
                await self._leave(master)
                raise
        raise ChannelLost(f"the connection cannot be used: {problem}")

    async def _retire(self, master: Master) -> None:
        """Start nothing more over a connection; it ends when the last thing over it has."""
        if master is self._master:
            self._master = None
            self._old.append(master)
            await self._sweep()

    async def _leave(self, master: Master) -> None:
        master.used -= 1
        await self._sweep()

    async def _sweep(self) -> None:
        for master in [old for old in self._old if not old.used]:
            self._old.remove(master)
            await master.end()

    async def aclose(self) -> None:
        """End all connections, and what is open over them. Not cancelled half-way."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            async with self._connecting:
                masters, self._master = [*self._old, self._master], None
                self._old = []
                for master in masters:
                    if master is not None:
                        await master.end()


async def _join(master: Master, port: int, files: Sequence[socket.socket]) -> Opened:
    try:
        with anyio.fail_after(_PATIENCE):
            return await open_forward(master.control, port, files)
    except OpenRefused:
        raise ChannelLost(f"nothing answers at port {port} of the machine") from None


async def _start(master: Master, command: Command) -> SshExecution:
    """Ask for a session. It holds one of the connection's places.

    Raises:
        MasterGone, OpenRefused: nothing was started.
        ChannelLost, TimeoutError: nobody knows whether it was.
    """
    await master.sessions.acquire()
    with ExitStack() as undo:
        undo.callback(master.sessions.release)
        for delay in (*_REFUSED, None):
            try:
                execution = await _ask(master, command)
            except OpenRefused:
                # A server may go on counting what has just ended, or what ended here alone.
                if delay is None:
                    raise
                await anyio.sleep(delay)
            else:
                undo.pop_all()
                return execution
    raise AssertionError("unreachable")


async def _ask(master: Master, command: Command) -> SshExecution:
    with ExitStack() as undo, ExitStack() as handed_over:
        ours: list[LocalSocket] = []
        theirs: list[socket.socket] = []
        for _ in range(3):
            near, far = LocalSocket.pair()
            undo.callback(near.close)
            handed_over.enter_context(far)
            ours.append(near)
            theirs.append(far)
        with anyio.fail_after(_PATIENCE):
            opened = await open_session(master.control, command.text, theirs)
        undo.pop_all()
    return SshExecution(opened, (ours[0], ours[1], ours[2]), master.said)
