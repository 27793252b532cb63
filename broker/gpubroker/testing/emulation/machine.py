"""A machine that is real as far as software can tell: a folder, processes, an SSH server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import asyncssh

from gpubroker.testing.emulation.cards import Cards, nvidia_smi
from gpubroker.testing.emulation.ground import Ground
from gpubroker.testing.emulation.keeper import MARK, signal_processes
from gpubroker.testing.emulation.processes import ended, spawn
from gpubroker.testing.emulation.relay import Relay
from gpubroker.testing.emulation.ssh import BuiltInSsh, SshServer, SshSpec, SystemSsh, fresh_key

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class EmulatedMachine:
    """One machine. Used in the emulator's event loop alone.

    It has a folder with the home of its only user, a log of what its first script prints, and
    two ways to its SSH server: `direct` and `proxy`, each of which can be cut or frozen.

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
        self._keys = self.folder / "keys"
        self._cards = cards
        self._system_sshd = system_sshd
        self._banner = banner
        self._server: SshServer | None = None
        self._first: dict[asyncio.Future[int], subprocess.Popen[bytes]] = {}
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

    def build(self) -> None:
        """Make the folder with everything that a fresh container has."""
        for folder in (self.home / ".ssh", self.folder / "bin", self.folder / "tmp", self._keys):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._cards is not None:
            program = self.folder / "bin" / "nvidia-smi"
            program.write_text(nvidia_smi(self._cards))
            program.chmod(0o755)
        self._host_key = fresh_key()
        public = self._keys / "ssh_host_ed25519_key.pub"
        public.write_bytes(self._host_key.export_public_key())

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
                environment={
                    **self.session_environment,
                    "GPUBROKER_SSH_DIR": str(self._keys),
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        task = asyncio.ensure_future(ended(process))
        self._first[task] = process
        task.add_done_callback(lambda done: self._first.pop(done, None))

    async def open_ssh(self, *, other_key: bool = False, admit: bool = True) -> None:
        """Start the SSH server.

        Args:
            other_key: it proves to be the owner of another key than the one in the folder.
            admit: let keys in at all.
        """
        assert self._host_key is not None
        spec = SshSpec(
            folder=self.folder / "sshd",
            home=self.home,
            environment=self.session_environment,
            authorized_keys=self.authorized_keys if admit else self.folder / "nobody",
            banner=self._banner,
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
        await asyncio.to_thread(signal_processes, str(self.folder), signal.SIGSTOP)

    async def thaw(self) -> None:
        """Go on as if nothing had been."""
        await asyncio.to_thread(signal_processes, str(self.folder), signal.SIGCONT)
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

    async def destroy(self) -> None:
        """Leave nothing of it."""
        self.direct.close()
        self.proxy.close()
        await self.halt()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
