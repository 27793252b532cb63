"""A pod's container, run for real: its command, a folder, a search path, and its own vendor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

NONCE = "nonce-0123456789"
POD = "q7x2m0c4v9tzkd"
POD_KEY = "key-of-the-pod-alone"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ lease"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGh4b3N0LWtleS1vZi1hLXRlc3QtMDAwMDAwMDAwMDAw"

_TOOLS = (
    *("cat", "chmod", "date", "dd", "env", "grep", "mkdir", "mv", "rm", "setsid"),
    *("sleep", "tail", "touch"),
)

#: Makes fresh host keys, as the real one does with this option.
FAKE_SSH_KEYGEN = f"""\
#!/bin/sh
[ "$1" = -A ] && echo "{HOST_KEY} root@$$" >"$GPUBROKER_SSH_DIR/ssh_host_ed25519_key.pub"
"""
#: Notes how it was started.
FAKE_SSHD = """\
#!/bin/sh
for word; do printf '%s\\n' "$word"; done >"$HOME/sshd.new"
mv "$HOME/sshd.new" "$HOME/sshd"
"""

shells = [name for name in ("dash", "bash", "busybox") if shutil.which(name)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.01)


class Container:
    """What a command runs in. A container that starts again has the same folder, or a new one.

    Attributes:
        log: everything printed so far, whatever it was printed by.
        env: what the vendor sets.
    """

    def __init__(self, root: Path, shell: str = "dash") -> None:
        self.root = root
        self.home = root / "home"
        self.programs = root / "bin"
        self.etc_ssh = root / "ssh"
        self.log_file = root / "log"
        for folder in (self.home, self.programs, self.etc_ssh):
            folder.mkdir()
        self.log_file.touch()
        busybox = shutil.which("busybox") if shell == "busybox" else None
        for name in _TOOLS:
            self.link(name, busybox or shutil.which(name))
        self.link("sh", busybox or shutil.which(shell))
        self.env = {
            "HOME": str(self.home),
            "PATH": str(self.programs),
            "GPUBROKER_SSH_DIR": str(self.etc_ssh),
            "RUNPOD_POD_ID": POD,
            "RUNPOD_API_KEY": POD_KEY,
            "PUBLIC_KEY": PUBLIC_KEY,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._token = f"GPUBROKER_TEST={root.name}-{os.getpid()}"

    def link(self, name: str, program: str | None) -> None:
        assert program, f"this test needs {name}"
        (self.programs / name).symlink_to(program)

    def install(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def start(self, args: str) -> None:
        """Run the command, as the create field ``args`` gives it."""
        command = json.loads(args)
        name, value = self._token.split("=")
        with self.log_file.open("ab") as out:
            self.process = subprocess.Popen(
                [*command["entrypoint"], *command["cmd"]],
                executable=str(self.programs / "sh"),
                cwd=self.root,
                env={**self.env, name: value},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End everything that runs in it, whatever group it is in, as a container's end does."""
        if self.process is None:
            return
        for _ in range(2):
            self.process.kill()
            for one in Path("/proc").glob("[0-9]*"):
                try:
                    if self._token.encode() in (one / "environ").read_bytes().split(b"\0"):
                        os.kill(int(one.name), signal.SIGKILL)
                except OSError:
                    continue
        self.process.wait()
        self.process = None

    def start_again(self, args: str, *, wiped: bool) -> None:
        """As the host does when the container's command returns."""
        self.stop()
        if wiped:
            shutil.rmtree(self.home)
            self.home.mkdir()
        self.start(args)

    @property
    def runs(self) -> bool:
        """Whether its PID 1 is still there."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def says(self, what: str, times: int = 1) -> None:
        """Wait for a line of its own."""
        line = f"GPUBROKER-LOG {NONCE} {what}"
        until(lambda: self.log.splitlines().count(line) >= times)

    def note(self, name: str) -> str:
        """What one of its programs wrote into a file of its home folder."""
        until((self.home / name).exists)
        return (self.home / name).read_text()


@dataclass(frozen=True)
class Heard:
    """One request that a pod sent."""

    method: str
    path: str
    key: str | None
    agent: str
    body: str


@dataclass
class Api:
    """The vendor, as a pod knows it.

    Attributes:
        url: where it is.
        refuses: methods that are answered with 403.
        heard: all requests.
    """

    url: str
    refuses: set[str] = field(default_factory=set[str])
    heard: list[Heard] = field(default_factory=list[Heard])


@contextmanager
def serving() -> Generator[Api]:
    """A real server, which ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            key, agent = self.headers["Authorization"], self.headers["User-Agent"] or ""
            api.heard.append(Heard(self.command, self.path, key, agent, body))
            self.send_response(403 if self.command in api.refuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_DELETE = do_POST = _answer  # noqa: N815 - their names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Nothing of it is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api = Api(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
