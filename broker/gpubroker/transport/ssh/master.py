"""One ``ssh`` process that holds one connection to a machine, which many sessions share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import Process

from gpubroker.errors import ChannelLost, ErrorKind, ProviderError, Scope
from gpubroker.model.machines import Route
from gpubroker.transport.said import said
from gpubroker.transport.ssh.known_hosts import ALIAS
from gpubroker.transport.ssh.lease_key import minimal_environment

#: Sessions at once over one connection: servers refuse more than 10 by default, and go on counting
#: for a moment what has just ended.
SESSIONS: Final = 8

_SOCKET: Final = "control"
#: A local socket's address holds 104 bytes on some systems, and OpenSSH adds 17 while it makes one.
_LONGEST_SOCKET: Final = 80
#: Seconds that a master gets to end by itself.
_GRACE: Final = 2.0
_LOG_LIMIT: Final = 64 * 1024
_WRONG_KEY: Final = re.compile(rb"Host key verification failed|no matching host key type found")
#: Not a complaint.
_BELIEVED: Final = re.compile(rb"Warning: Permanently added [^\n]*\n")


@dataclass(frozen=True, slots=True)
class Settings:
    """How connections of one channel are made.

    Attributes:
        folder: where ``known_hosts`` is; the processes' working directory. key: the private key.
        connect_timeout: seconds for connecting, authentication included.
        keepalive: seconds of silence before the machine is asked whether it is there; it is lost
            when it was asked 3 times in vain.
    """

    folder: Path
    key: Path
    connect_timeout: float
    keepalive: float


def arguments(
    route: Route, settings: Settings, control: Path, identity: Sequence[str]
) -> list[str]:
    """The command line of a master. Nobody's configuration, agent or environment takes part."""
    options = (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "PubkeyAuthentication=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        "ClearAllForwardings=yes",
        "ExitOnForwardFailure=no",
        "PermitLocalCommand=no",
        "CanonicalizeHostname=no",
        "GlobalKnownHostsFile=/dev/null",
        f"HostKeyAlias={ALIAS}",
        "HashKnownHosts=no",
        "CheckHostIP=no",
        "VerifyHostKeyDNS=no",
        "UpdateHostKeys=no",
        "ControlPersist=no",
        "ConnectionAttempts=1",
        f"ConnectTimeout={max(1, round(settings.connect_timeout))}",
        f"ServerAliveInterval={max(1, round(settings.keepalive))}",
        "ServerAliveCountMax=3",
        "TCPKeepAlive=yes",
        "IPQoS=none",
        "LogLevel=INFO",
        *identity,
    )
    return [
        *("ssh", "-F", "none", "-M", "-N", "-T", "-a", "-x", "-e", "none"),
        *("-S", str(control), "-i", _percent_safe(settings), "-l", route.user),
        *("-p", str(route.port)),
        *(word for option in options for word in ("-o", option)),
        *("--", route.host),
    ]


def _percent_safe(settings: Settings) -> str:
    key = settings.key
    name = key.name if key.parent == settings.folder else str(key.absolute())
    return name.replace("%", "%%")


def control_folder(folder: Path) -> Path:
    """A new folder for a control socket: in `folder`, or elsewhere where that is too long."""
    near = folder.absolute()
    for place in (near, Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - made private
        longest = len(os.fsencode(place / "gb-XXXXXXXX" / _SOCKET))
        # ssh takes % and $ in the name for the beginning of something.
        if longest <= _LONGEST_SOCKET and re.fullmatch(r"[A-Za-z0-9._/+=@-]+", str(place)):
            break
    return Path(tempfile.mkdtemp(prefix="gb-", dir=place))


class Master:
    """A connection that is up, until the process ends.

    Should this program be killed, its connections stay until the machines are gone, and no longer:
    unanswered, ssh ends by itself.

    Attributes:
        route: the way it took. control: the socket that sessions are asked for at.
        sessions: how many more may be opened. used: how many things are open over it.
    """

    def __init__(self, route: Route, control: Path, process: Process, log: int) -> None:
        self.route = route
        self.control = control
        self.sessions = anyio.Semaphore(SESSIONS)
        self.used = 0
        self._process = process
        self._log = log
        self._said = b""

    @classmethod
    async def connect(cls, route: Route, settings: Settings, identity: Sequence[str]) -> Master:
        """Connect, and wait until the machine let us in.

        Raises:
            ChannelLost: it cannot be reached, or did not let us in.
            ProviderError: `HOST_BROKEN`: it presented another host key than it should.
        """
        master = await cls._begin(route, settings, identity)
        try:
            await master._ready(settings.connect_timeout)
        except BaseException:
            await master.end()
            raise
        return master

    @classmethod
    async def _begin(cls, route: Route, settings: Settings, identity: Sequence[str]) -> Master:
        # What ssh says is read at the end only. What does not fit is dropped, not waited for: a
        # machine that provokes endless complaints gets nothing by it.
        log, writing = os.pipe()
        os.set_blocking(log, False)
        os.set_blocking(writing, False)
        with ExitStack() as undo:
            undo.callback(os.close, log)
            try:
                control = control_folder(settings.folder) / _SOCKET
                undo.callback(shutil.rmtree, control.parent, ignore_errors=True)
                process = await _start(
                    arguments(route, settings, control, identity), writing, settings.folder
                )
            finally:
                os.close(writing)
            undo.pop_all()
            return cls(route, control, process, log)

    async def _ready(self, patience: float) -> None:
        """Wait until the machine has let us in: then the socket appears, whole."""
        delay = 0.002
        with anyio.move_on_after(patience):
            while self.alive:
                if self.control.exists():
                    self.said()
                    self._said = b""  # greetings
                    return
                await anyio.sleep(delay)
                delay = min(delay * 1.5, 0.02)
        there = f"{self.route.host}:{self.route.port}"
        ended = not self.alive
        await self.end()
        text = self.said() or ("ssh ended" if ended else f"no answer within {patience:g} s")
        if _WRONG_KEY.search(self._said):
            raise ProviderError(
                f"{there} presented a different host key",
                kind=ErrorKind.HOST_BROKEN,
                scope=Scope.HOST,
            )
        raise ChannelLost(f"{there}: {text}")

    @property
    def alive(self) -> bool:
        """Whether the process runs; the connection may be dead a while longer."""
        return self._process.returncode is None

    def said(self) -> str:
        """What ssh complained of, made harmless."""
        if self._log >= 0:
            with suppress(BlockingIOError):
                self._said = (self._said + os.read(self._log, _LOG_LIMIT))[-_LOG_LIMIT:]
        return said(_BELIEVED.sub(b"", self._said))

    async def end(self) -> None:
        """End the process, and remove its socket. Not cancelled half-way."""
        with anyio.CancelScope(shield=True):
            if self.alive:
                self._process.terminate()
                with anyio.move_on_after(_GRACE):
                    await self._process.wait()
            if self.alive:
                self._process.kill()
            await self._process.wait()
            await self._process.aclose()
        if self._log >= 0:
            self.said()
            os.close(self._log)
            self._log = -1
        shutil.rmtree(self.control.parent, ignore_errors=True)


async def _start(command: Sequence[str], log: int, folder: Path) -> Process:
    # Cancelled half-way, a process would be started and forgotten.
    with anyio.CancelScope(shield=True):
        return await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=folder,
            env=minimal_environment(),
            start_new_session=True,  # a Ctrl-C is for the broker, which then cleans up
        )
    raise AssertionError("unreachable")
