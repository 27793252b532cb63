"""SSH servers of emulated machines: one inside of the emulator, and the system's own sshd."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import asyncssh

from gpubroker.testing.emulation.sessions import Door

_SSHD: Final = ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd")
#: Quick ones first; the rest is what every client has.
_CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
)
_TRIES: Final = 3
#: sshd's own default.
MAX_SESSIONS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SshSpec:
    """What an SSH server needs to know of its machine.

    Attributes:
        folder: for files of the server's own.
        home: where commands begin.
        environment: all that commands get.
        authorized_keys: the file with the public keys that are let in, read at each login.
        banner: printed before a login.
        user_environment: a file with more of what commands get, a ``NAME=value`` in each line,
            read at each command: what OpenSSH does with ``PermitUserEnvironment``.
    """

    folder: Path
    home: Path
    environment: Mapping[str, str]
    authorized_keys: Path
    banner: str = ""
    user_environment: Path | None = None


class SshServer(Protocol):
    """One machine's SSH server, on a port of 127.0.0.1."""

    port: int

    async def start(self, key: asyncssh.SSHKey) -> None:
        """Accept logins, proving to be the owner of a key."""
        ...

    def stop(self) -> None:
        """Refuse connections, and cut those that there are."""
        ...


def fresh_key() -> asyncssh.SSHKey:
    """A new host key."""
    generate = cast("Callable[[str], asyncssh.SSHKey]", asyncssh.generate_private_key)  # pyright: ignore[reportUnknownMemberType]
    return generate("ssh-ed25519")


def sshd_path() -> str | None:
    """The system's sshd, where it is installed and can serve: it needs to run as root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    return next((path for path in _SSHD if os.access(path, os.X_OK)), None) or shutil.which("sshd")


class BuiltInSsh:
    """An SSH server in the emulator's event loop: no process and no thread of its own."""

    def __init__(self, spec: SshSpec) -> None:
        self._spec = spec
        self._listener: socket.socket | None = None
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._doors: set[Door] = set()
        self.port = 0

    async def start(self, key: asyncssh.SSHKey) -> None:
        """Accept logins."""
        spec = self._spec

        def door() -> Door:
            return Door(
                home=spec.home,
                environment=spec.environment,
                user_environment=spec.user_environment,
                authorized_keys=spec.authorized_keys,
                banner=spec.banner,
                max_sessions=MAX_SESSIONS,
                doors=self._doors,
            )

        # Held here from the first moment: a start that is cut short must not leave it open.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self._acceptor = await asyncssh.listen(
            sock=self._listener,
            server_factory=door,
            server_host_keys=[key],
            encoding=None,
            encryption_algs=list(_CIPHERS),
            compression_algs=["none"],
            login_timeout=30,
            config=None,
            agent_forwarding=False,
            x11_forwarding=False,
        )

    def stop(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for door in list(self._doors):
            door.cut()


class SystemSsh:
    """The system's sshd, one listener per machine, in the foreground of a session of its own."""

    def __init__(self, spec: SshSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    async def start(self, key: asyncssh.SSHKey) -> None:
        """Accept logins: write a configuration, start the program, and wait until it answers."""
        for _ in range(_TRIES):
            self._launch(key)
            if await self._answers():
                return
            self.stop()  # somebody else took the port meanwhile
        said = (self._spec.folder / "sshd.log").read_text()[-500:]
        raise OSError(f"sshd does not start: {said}")

    async def _answers(self) -> bool:
        for _ in range(1000):
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                await writer.wait_closed()
                return True
        return False

    def _launch(self, key: asyncssh.SSHKey) -> None:
        folder = self._spec.folder
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "host_key"
        path.touch(mode=0o600)
        path.write_bytes(key.export_private_key())
        self.port = _free_port()
        configuration = folder / "sshd_config"
        configuration.write_text(self._configuration(path))
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        program = sshd_path()
        assert program is not None
        with (folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the system's own
                [program, "-D", "-e", "-f", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._spec.environment),
                start_new_session=True,
            )

    def stop(self) -> None:
        """Refuse connections. Those that there are end with the machine's processes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _configuration(self, key: Path) -> str:
        folder = self._spec.folder
        exports = "".join(
            f"export {name}={shlex.quote(value)}\n"
            for name, value in self._spec.environment.items()
        )
        entry = folder / "session.sh"
        entry.write_text(
            "#!/bin/sh\n"
            f"{exports}{self._user_environment()}cd {shlex.quote(str(self._spec.home))} || exit 1\n"
            'exec sh -c "${SSH_ORIGINAL_COMMAND:-exec sh}"\n'
        )
        entry.chmod(0o700)
        banner = folder / "banner"
        banner.write_text(self._spec.banner)
        return (
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {key}\n"
            f"AuthorizedKeysFile {self._spec.authorized_keys}\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            "PermitRootLogin prohibit-password\nAllowTcpForwarding yes\nX11Forwarding no\n"
            f"PidFile none\nUseDNS no\nMaxStartups 200\nMaxSessions {MAX_SESSIONS}\n"
            f"Banner {banner}\nForceCommand {entry}\nPrintMotd no\n"
            # Debian's bash reads the real user's ~/.bashrc under sshd, unless it is nested.
            "SetEnv SHLVL=2\n"
        )

    def _user_environment(self) -> str:
        path = self._spec.user_environment
        if path is None:
            return ""
        return (
            f"if [ -r {shlex.quote(str(path))} ]; then\n"
            "  while IFS= read -r line; do\n"
            '    case $line in [A-Za-z_]*=*) export "$line" ;; esac\n'
            f"  done < {shlex.quote(str(path))}\n"
            "fi\n"
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
