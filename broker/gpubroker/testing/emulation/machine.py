"""A machine that is real as far as software can tell: a folder, processes, an SSH server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import asyncssh

from gpubroker.testing.emulation.aside import aside
from gpubroker.testing.emulation.cards import Cards, nvidia_smi
from gpubroker.testing.emulation.ground import Ground
from gpubroker.testing.emulation.keeper import MARK, signal_processes
from gpubroker.testing.emulation.processes import Printed, ended, spawn
from gpubroker.testing.emulation.relay import Relay
from gpubroker.testing.emulation.ssh import BuiltInSsh, SshServer, SshSpec, SystemSsh, fresh_key

#: The file in `EmulatedMachine.keys` that a server's public key is in.
PUBLIC_KEY: Final = "ssh_host_ed25519_key.pub"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class EmulatedMachine:
    """One machine. Used in the emulator's event loop alone.

    It has a folder with the home of its only user, the public keys of its SSH server, and two
    ways to it: `direct` and `proxy`, each of which can be cut or frozen. `log` is what scripts
    print that were started by `run_first`.

    Args:
        ground: where machines are.
        name: unique there.
        cards: what ``nvidia-smi`` reports; ``None``: there is no such program.
        system_sshd: whether the system's sshd is used, and not the emulator's own server.
        banner: what the SSH server prints before a login.
    """

    def __init__(
        self,
        ground: Ground,
        name: str,
        *,
        cards: Cards | None,
        system_sshd: bool,
        banner: str = "",
    ) -> None:
        self._ground = ground
        self.folder = ground.place(name)
        self.home = self.folder / "home"
        self.log = self.folder / "log"
        #: Public host keys: what ``/etc/ssh`` is to a container.
        self.keys = self.folder / "keys"
        self._cards = cards
        self._system_sshd = system_sshd
        self._banner = banner
        self._server: SshServer | None = None
        self._first: dict[asyncio.Future[int], subprocess.Popen[bytes]] = {}
        self._printed: list[Printed] = []
        self._host_key: asyncssh.SSHKey | None = None
        self.direct = Relay()
        self.proxy = Relay()

    @property
    def session_environment(self) -> dict[str, str]:
        """What commands over SSH get: nothing of the container's own variables."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self.folder / 'bin'}:{os.environ.get('PATH', _PATH)}",
            "SHELL": "/bin/sh",
            "USER": "root",
            "LOGNAME": "root",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.folder / "tmp"),
            MARK: f"{self.folder}/",
        }

    @property
    def environment(self) -> dict[str, str]:
        """What processes of the container get, before its own variables."""
        return {**self.session_environment, "GPUBROKER_SSH_DIR": str(self.keys)}

    def build(self) -> None:
        """Make the folder with everything that a fresh container has."""
        for folder in (self.home / ".ssh", self.folder / "bin", self.folder / "tmp", self.keys):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._cards is not None:
            self.install("nvidia-smi", nvidia_smi(self._cards))
        self._host_key = fresh_key()
        (self.keys / PUBLIC_KEY).write_bytes(self._host_key.export_public_key())

    def install(self, name: str, script: str) -> None:
        """Put a program on the machine's path, before this system's own."""
        program = self.folder / "bin" / name
        program.write_text(script)
        program.chmod(0o755)

    async def renew(self, *, keep_home: bool) -> None:
        """Make a fresh container of one that was halted: other host keys, another direct port."""
        for folder in (self.folder / "tmp", self.keys, *(() if keep_home else (self.home,))):
            await aside(shutil.rmtree, folder, ignore_errors=True)
        self.direct.close()
        self.direct = Relay()
        self.build()

    @property
    def authorized_keys(self) -> Path:
        """The file with the public keys that are let in."""
        return self.home / ".ssh" / "authorized_keys"

    def authorize(self, keys: Iterable[str]) -> None:
        """Write the file with the public keys that are let in, whatever was in it."""
        if self.authorized_keys.parent.is_dir():
            draft = self.authorized_keys.with_name(".authorized_keys.new")
            draft.write_text("".join(f"{key.strip()}\n" for key in keys))
            draft.replace(self.authorized_keys)

    def run_first(self, script: str, environment: Mapping[str, str]) -> None:
        """Run what a container runs when it starts; what it prints is the machine's log."""
        path = self.home / "onstart.sh"
        path.write_text(script)
        with self.log.open("ab") as log:
            process = spawn(
                ["/bin/sh", str(path)],
                cwd=self.home,
                environment={**self.environment, **environment},
                stdout=log,
                stderr=log,
            )
        self._watch(process)

    async def run_main(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        printed: Callable[[bytes], None],
    ) -> asyncio.Future[int]:
        """Run the main process of a container.

        Args:
            printed: called with what it and its children print, as it comes; with ``b""`` at
                the end.

        Returns:
            Its exit status, once it has ended; what it left running goes on.

        Raises:
            OSError: there is no such program, or it cannot be run.
        """
        output = Printed(printed)
        writing = await output.open()
        self._printed.append(output)
        try:
            process = spawn(
                arguments,
                cwd=self.home,
                environment={**self.environment, **environment},
                stdout=writing,
                stderr=writing,
            )
        finally:
            os.close(writing)
        return self._watch(process)

    def _watch(self, process: subprocess.Popen[bytes]) -> asyncio.Future[int]:
        task = asyncio.ensure_future(ended(process))
        self._first[task] = process
        task.add_done_callback(lambda done: self._first.pop(done, None))
        return task

    async def open_ssh(
        self, *, other_key: bool = False, admit: bool = True, user_environment: bool = False
    ) -> None:
        """Start the SSH server.

        Args:
            other_key: it proves to be the owner of another key than the one in the folder.
            admit: let keys in at all.
            user_environment: give commands the variables in ``~/.ssh/environment``, too.
        """
        assert self._host_key is not None
        spec = SshSpec(
            folder=self.folder / "sshd",
            home=self.home,
            environment=self.session_environment,
            authorized_keys=self.authorized_keys if admit else self.folder / "nobody",
            banner=self._banner,
            user_environment=self.home / ".ssh" / "environment" if user_environment else None,
        )
        server = SystemSsh(spec) if self._system_sshd else BuiltInSsh(spec)
        self._server = server
        await server.start(fresh_key() if other_key else self._host_key)
        await self.direct.start(server.port)
        await self.proxy.start(server.port)

    async def restore(self, route: Relay) -> None:
        """Open a way again that was cut."""
        if self._server is not None:
            await route.restore(self._server.port)

    async def freeze(self) -> None:
        """Stop every process, and keep connections open with nothing passing through."""
        self.direct.freeze()
        self.proxy.freeze()
        await aside(signal_processes, str(self.folder), signal.SIGSTOP)

    async def thaw(self) -> None:
        """Go on as if nothing had been."""
        await aside(signal_processes, str(self.folder), signal.SIGCONT)
        self.direct.thaw()
        self.proxy.thaw()

    async def halt(self) -> None:
        """End every process and the SSH server. The folder stays."""
        self.direct.cut()
        self.proxy.cut()
        if self._server is not None:
            self._server.stop()
            self._server = None
        await self._ground.end(str(self.folder))
        for process in list(self._first.values()):
            process.kill()
        if self._first:
            await asyncio.wait(list(self._first))
        for output in self._printed:
            await output.close()
        self._printed.clear()

    async def destroy(self) -> None:
        """Leave nothing of it."""
        self.direct.close()
        self.proxy.close()
        await self.halt()
        await aside(shutil.rmtree, self.folder, ignore_errors=True)
