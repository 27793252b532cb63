"""What happens inside of the built-in SSH server: logins, commands, forwarded ports."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Final

import asyncssh

from gpubroker.testing.emulation.processes import ended, spawn
from gpubroker.testing.emulation.tunnels import open_tunnel

_NUMBERS: Final = {number.name.removeprefix("SIG"): number for number in signal.Signals}
#: The only other stream that a session has.
_STDERR: Final = 1
_NAMES: Final = {number: name for name, number in _NUMBERS.items()}


class Door(asyncssh.SSHServer):
    """One connection to a machine."""

    def __init__(
        self,
        *,
        home: Path,
        environment: Mapping[str, str],
        user_environment: Path | None,
        authorized_keys: Path,
        banner: str,
        max_sessions: int,
        doors: set[Door],
    ) -> None:
        self._home = home
        self._environment = environment
        self._user_environment = user_environment
        self._authorized_keys = authorized_keys
        self._banner = banner
        self._max_sessions = max_sessions
        self._doors = doors
        self._sessions: set[CommandSession] = set()
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._doors.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._doors.discard(self)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        if self._banner and self._connection is not None:
            self._connection.send_auth_banner(self._banner)
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        offered = key.export_public_key().split()[:2]
        try:
            lines = self._authorized_keys.read_bytes().splitlines()
        except OSError:
            return False
        return any(line.split()[:2] == offered for line in lines)

    def session_requested(self) -> CommandSession | bool:
        if len(self._sessions) >= self._max_sessions:
            return False
        environment = {**self._environment, **user_environment(self._user_environment)}
        session = CommandSession(self._home, environment, self._sessions)
        self._sessions.add(session)
        return session

    def connection_requested(
        self,
        dest_host: str,
        dest_port: int,
        orig_host: str,  # noqa: ARG002
        orig_port: int,  # noqa: ARG002
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]] | bool:
        if dest_host not in ("127.0.0.1", "localhost", "::1"):
            return False
        return open_tunnel(dest_port)

    def cut(self) -> None:
        """Cut the connection."""
        if self._connection is not None:
            self._connection.abort()


def user_environment(path: Path | None) -> dict[str, str]:
    """The variables in a user's own file; none where there is none."""
    try:
        lines = path.read_text(errors="replace").splitlines() if path is not None else []
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {name.strip(): value for name, sign, value in pairs if sign}


class CommandSession(asyncssh.SSHServerSession[bytes]):
    """One command: a process whose pipes are the channel's streams.

    As with sshd, what a command leaves running goes on, and the channel stays open for as long
    as one of them holds its output.
    """

    def __init__(
        self, home: Path, environment: Mapping[str, str], sessions: set[CommandSession]
    ) -> None:
        self._home = home
        self._environment = environment
        self._sessions = sessions
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._input: asyncio.WriteTransport | None = None
        self._outputs: list[asyncio.ReadTransport] = []
        self._early: list[bytes] = []
        self._eof = False
        self._gone = False
        self._command = ""
        self._running: asyncio.Task[None] | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def shell_requested(self) -> bool:
        self._command = "exec sh"
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def session_started(self) -> None:
        self._running = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes, datatype: object) -> None:  # noqa: ARG002
        if self._input is None:
            self._early.append(data)
        elif not self._input.is_closing():
            self._input.write(data)

    def eof_received(self) -> bool:
        self._eof = True
        if self._input is not None:
            self._input.close()
        return True

    def signal_received(self, signal: str) -> None:
        if self._process is not None and signal in _NUMBERS:
            self._process.send_signal(_NUMBERS[signal])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client has gone: the command finds its pipes broken, and may go on."""
        self._sessions.discard(self)
        self._gone = True
        self._channel = None
        if self._input is not None:
            self._input.close()
        for output in self._outputs:
            output.close()

    def pause_writing(self) -> None:
        for output in self._outputs:
            output.pause_reading()

    def resume_writing(self) -> None:
        for output in self._outputs:
            output.resume_reading()

    def pause_input(self, *, paused: bool) -> None:
        """The command reads slower than the client sends."""
        if self._channel is None:
            return
        if paused:
            self._channel.pause_reading()
        else:
            self._channel.resume_reading()

    async def _run(self) -> None:
        process = spawn(
            ["/bin/sh", "-c", self._command],
            cwd=self._home,
            environment=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._process = process
        drained = await self._connect(process)
        status = await ended(process)
        await drained
        self._sessions.discard(self)
        if self._input is not None:
            self._input.close()
        if self._channel is None:
            return
        if status < 0:
            self._channel.exit_with_signal(_NAMES.get(signal.Signals(-status), "KILL"))
        else:
            self._channel.exit(status)

    async def _connect(self, process: subprocess.Popen[bytes]) -> asyncio.Future[list[None]]:
        """Join the process's pipes to the channel. What is returned is done at their end."""
        loop = asyncio.get_running_loop()
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        ends: list[asyncio.Future[None]] = []
        for pipe, datatype in (
            (process.stdout, None),
            (process.stderr, _STDERR),
        ):
            end = loop.create_future()
            ends.append(end)
            output, _ = await loop.connect_read_pipe(
                lambda datatype=datatype, end=end: _Output(self, datatype, end),  # type: ignore[misc]
                pipe,
            )
            self._outputs.append(output)
        # What came meanwhile goes first: from here on to the end nothing else can come.
        self._input, _ = await loop.connect_write_pipe(lambda: _Input(self), process.stdin)
        for data in self._early:
            self._input.write(data)
        self._early.clear()
        if self._eof:
            self._input.close()
        if self._gone:
            self.connection_lost(None)
        return asyncio.gather(*ends)

    def send(self, data: bytes, datatype: int | None) -> None:
        """What the command printed."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data, datatype)  # pyright: ignore[reportUnknownMemberType]


class _Input(asyncio.BaseProtocol):
    """The command's standard input."""

    def __init__(self, session: CommandSession) -> None:
        self._session = session

    def pause_writing(self) -> None:
        self._session.pause_input(paused=True)

    def resume_writing(self) -> None:
        # Not now: a channel hands over at once what it kept back, its end included, and asyncio
        # loses data if its pipe is closed while it reports that there is room again.
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._session.pause_input(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._session.pause_input(paused=False)


class _Output(asyncio.Protocol):
    """One of the command's two outputs."""

    def __init__(
        self, session: CommandSession, datatype: int | None, end: asyncio.Future[None]
    ) -> None:
        self._session = session
        self._datatype = datatype
        self._end = end

    def data_received(self, data: bytes) -> None:
        self._session.send(data, self._datatype)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._end.done():
            self._end.set_result(None)
