"""SSH servers to test against: the system's own, one in Python, and a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

import asyncssh

from gpubroker.model.machines import Route

SSHD: Final = "/usr/sbin/sshd"
T = TypeVar("T")
ServerKind = Literal["sshd", "asyncssh"]
KINDS: Final[tuple[ServerKind, ...]] = ("sshd", "asyncssh")


def missing(kind: ServerKind) -> str | None:
    """Why servers of this kind cannot be had here."""
    if shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        return "there is no OpenSSH client here"
    if kind == "sshd" and not Path(SSHD).exists():
        return "there is no OpenSSH server here"
    if kind == "sshd" and os.geteuid() != 0:
        return "the OpenSSH server runs as root only"
    return None


def make_key(path: Path, kind: str = "ed25519") -> str:
    """A new key pair; its public text, without the comment."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True, stdin=subprocess.DEVNULL
    )
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Server:
    """A running SSH server.

    Attributes:
        host_key: its public host key. home: ``$HOME`` of what it runs.
    """

    kind: ServerKind
    port: int
    host_key: str
    home: Path

    @property
    def route(self) -> Route:
        return Route("127.0.0.1", self.port)


@contextmanager
def serve(
    kind: ServerKind, folder: Path, public_key: str, *, port: int = 0, options: str = ""
) -> Generator[Server]:
    """A server that lets `public_key` in; it ends, with all that it started, with the block.

    Args:
        folder: where its keys and the home folder are; used again, they stay the same.
        options: lines added to the configuration of the system's server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "home").mkdir(exist_ok=True)
    (folder / "authorized_keys").write_text(public_key + "\n")
    if not (folder / "host_key").exists():
        make_key(folder / "host_key")
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    with _sshd(folder, port, options) if kind == "sshd" else _asyncssh(folder, port) as real_port:
        yield Server(kind, real_port, host_key, folder / "home")


@contextmanager
def _sshd(folder: Path, port: int, options: str) -> Generator[int]:
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = port or free_port()
    configuration = folder / "sshd_config"
    # The first value of an option counts, so what is given comes first.
    configuration.write_text(f"""{options}
        Port {port}
        ListenAddress 127.0.0.1
        HostKey {folder}/host_key
        AuthorizedKeysFile {folder}/authorized_keys
        StrictModes no
        UsePAM no
        PidFile none
        PermitRootLogin prohibit-password
        PasswordAuthentication no
        MaxStartups 100
        LogLevel INFO
        KexAlgorithms curve25519-sha256
        SetEnv HOME={folder}/home
        """)
    with subprocess.Popen(
        [SSHD, "-D", "-e", "-f", configuration],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if "Server listening" in line:
                break
        else:
            raise RuntimeError(f"sshd did not start: {''.join(lines)}")
        drain = threading.Thread(target=_drain, args=(process.stderr,), daemon=True)
        drain.start()
        try:
            yield port
        finally:
            end_tree(process.pid)
            drain.join()


def _drain(stream: Iterator[str]) -> None:
    for _ in stream:
        pass


def children(pid: int) -> list[int]:
    """All processes below one, itself left out, whichever of its threads started them."""
    direct: list[int] = []
    with contextlib.suppress(OSError):  # it ends while it is looked at
        for thread in Path(f"/proc/{pid}/task").iterdir():
            direct += map(int, (thread / "children").read_text().split())
    return [one for child in direct for one in (child, *children(child))]


def end_tree(pid: int) -> None:
    """Kill a process with all that is below it."""
    for one in (pid, *children(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


class InLoop:
    """An asyncio loop in a thread of its own, which a server lives in."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine there, and wait for it."""

        async def run() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    def __exit__(self, *_: object) -> None:
        self.call(self._end_tasks)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @staticmethod
    async def _end_tasks() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class PythonServer(asyncssh.SSHServer):
    """Lets forwards to the loopback address through."""

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return dest_host == "127.0.0.1"


@contextmanager
def _asyncssh(folder: Path, port: int) -> Generator[int]:
    home = folder / "home"

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        child = await asyncio.create_subprocess_exec(
            *("sh", "-c", process.command or "true"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(home), "PATH": os.environ.get("PATH", os.defpath)},
            cwd=home,
        )
        try:
            await _join(process, child)
        finally:
            # Waiting alone would wait for the pipes, which others may hold, or nobody reads.
            child._transport.close()  # type: ignore[attr-defined] # pyright: ignore
            await child.wait()

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            PythonServer,
            "127.0.0.1",
            port,
            server_host_keys=[str(folder / "host_key")],
            authorized_client_keys=str(folder / "authorized_keys"),
            process_factory=run,
            encoding=None,
            kex_algs=["curve25519-sha256"],
        )

    with InLoop() as loop:
        acceptor = loop.call(start)
        try:
            yield acceptor.get_port()
        finally:

            async def stop() -> None:
                acceptor.close()
                await acceptor.wait_closed()

            loop.call(stop)


async def _join(
    process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process
) -> None:
    """Copy all three streams until the child has ended, and say how."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    feeding = asyncio.ensure_future(_feed(process.stdin, child.stdin))
    try:
        await asyncio.gather(
            _copy(child.stdout, process.stdout), _copy(child.stderr, process.stderr)
        )
        code = await child.wait()
        if code >= 0:
            process.exit(code)
        else:
            process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
    except (asyncssh.Error, OSError):
        process.close()
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def _feed(source: asyncssh.SSHReader[bytes], target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.close()


async def _copy(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


class Wire:
    """A loopback port that leads to another one, until it is cut or goes dead.

    Attributes:
        port: where to connect. accepted: how many connections there were so far.
        held: set once something waits for a frozen wire.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._in_loop = InLoop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self.held = threading.Event()
        self._open = True
        self._left: dict[str, float] = {"up": float("inf"), "down": float("inf")}
        self.accepted = 0
        self.port = 0

    def cut(self) -> None:
        """Break what is connected. New connections are accepted again."""
        self._in_loop.call(self._cut)

    def close_door(self) -> None:
        """Break what is connected, and accept nobody until the door is opened."""
        self._open = False
        self.cut()

    def open_door(self) -> None:
        """Accept connections again."""
        self._open = True

    def freeze(self) -> None:
        """Carry nothing more, and say nothing of it: half open."""
        self.held.clear()
        self._in_loop.loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Carry on, with what has waited first."""
        self._in_loop.loop.call_soon_threadsafe(self._flowing.set)

    def cut_after(self, count: int, direction: Literal["up", "down"] = "up") -> None:
        """Break what is connected once so many more bytes have passed to ("up") the server."""
        self._left[direction] = count

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if not self._open:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._carry(reader, far_writer, "up"), self._carry(far_reader, writer, "down")
            )
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: str
    ) -> None:
        while data := await source.read(65536):
            if not self._flowing.is_set():
                self.held.set()
                await self._flowing.wait()
            self._left[direction] -= len(data)
            if self._left[direction] < 0:
                target.write(data[: int(self._left[direction])])
                self._left[direction] = float("inf")
                raise ConnectionError("cut")
            target.write(data)
            await target.drain()
        raise ConnectionError("ended")

    def __enter__(self) -> Self:
        self._in_loop.__enter__()
        self._in_loop.call(self._listen)
        return self

    async def _listen(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()

    def __exit__(self, *_: object) -> None:
        self._in_loop.call(self._stop)
        self._in_loop.__exit__()
