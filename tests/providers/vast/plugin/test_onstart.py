"""The script that machines run, run for real by a POSIX shell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpubroker import ProviderError
from gpubroker.transport.host_identity import host_keys
from gpubroker_vast.onstart import LIMIT, script

from .vendor import NONCE, PUBLIC_KEY

API = "http://127.0.0.1:9"
SHELL = shutil.which("dash") or "sh"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGh4b3N0LWtleS1vZi1hLXRlc3QtMDAwMDAwMDAwMDAw"

#: Notes what it is asked for, and what its configuration holds; fails while `refuse` exists.
FAKE_CURL = """\
#!/bin/sh
{ echo "curl $*"; while [ $# -gt 0 ]; do [ "$1" = -K ] && cat "$2"; shift; done; } >>"$HOME/calls"
[ ! -e "$HOME/refuse" ]
"""
FAKE_WGET = """\
#!/bin/sh
{ echo "wget $*"; cat "$WGETRC"; } >>"$HOME/calls"
"""
FAKE_PYTHON = f"""\
#!/bin/sh
echo "python3 ${{#1}}" >>"$HOME/calls"
exec {sys.executable} "$@"
"""


class Container:
    """A home folder and a search path, in which start scripts run."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.programs = root / "bin"
        self.etc_ssh = root / "ssh"
        for folder in (self.home, self.programs, self.etc_ssh):
            folder.mkdir()
        for name in ("cat", "chmod", "date", "grep", "mkdir", "nohup", "sh", "sleep", "touch"):
            found = shutil.which(name)
            assert found, f"this test needs {name}"
            (self.programs / name).symlink_to(found)
        (self.etc_ssh / "ssh_host_ed25519_key.pub").write_text(f"{HOST_KEY} root@container\n")
        self.env = {
            "HOME": str(self.home),
            "PATH": str(self.programs),
            "GPUBROKER_SSH_DIR": str(self.etc_ssh),
            "CONTAINER_ID": "31337042",
            "CONTAINER_API_KEY": "instance-key",
        }
        self._groups: list[int] = []

    def install(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def start(self, text: str) -> Path:
        """Run a start script; gives the file that has what it prints."""
        log = self.home.parent / f"log-{len(self._groups)}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [SHELL, "-c", text],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            assert process.wait(timeout=10) == 0
        return log

    def stop(self) -> None:
        """End what the scripts left running, as a container's end does."""
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._groups.clear()

    def calls(self) -> str:
        path = self.home / "calls"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    """One with curl; whatever runs in it is ended."""
    made = Container(tmp_path)
    made.install("curl", FAKE_CURL)
    yield made
    made.stop()


def onstart(*, lifetime: float = 3600, silence: float = 900, pause: float = 0.05) -> str:
    return script(
        api=API,
        nonce=NONCE,
        public_key=PUBLIC_KEY,
        lifetime=lifetime,
        silence=silence,
        pause=pause,
    )


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up, "it never happened"
        time.sleep(0.01)


class TestEntry:
    def test_the_key_is_let_in_once(self, container: Container) -> None:
        """However often the container starts, beside the keys that were there."""
        keys = container.home / ".ssh/authorized_keys"
        keys.parent.mkdir()
        keys.write_text("ssh-ed25519 AAAAold somebody")
        for _ in range(2):
            container.start(onstart())
            container.stop()

        assert keys.read_text().split("\n") == ["ssh-ed25519 AAAAold somebody", PUBLIC_KEY, ""]
        assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)

    def test_no_terminal_multiplexer_gets_in_between(self, container: Container) -> None:
        """The vendor's login starts one unless it is told not to."""
        container.start(onstart())

        assert (container.home / ".no_auto_tmux").exists()

    def test_its_host_keys_are_in_its_log(self, container: Container) -> None:
        """With the nonce, so that nobody else's are taken for them."""
        log = container.start(onstart())

        until(lambda: host_keys(log.read_text(), NONCE) != ())
        assert host_keys(log.read_text(), NONCE) == (HOST_KEY,)


class TestDeadMansSwitch:
    def test_at_the_deadline_it_destroys_itself(self, container: Container) -> None:
        """With the key of this machine alone, which is on no command line."""
        container.start(onstart(lifetime=1))

        until(lambda: "header = " in container.calls())
        first = container.calls().splitlines()[0]
        assert f"-X DELETE {API}/api/v0/instances/31337042/" in first
        assert "instance-key" not in first
        assert 'header = "Authorization: Bearer instance-key"' in container.calls()

    def test_it_tries_for_ever(self, container: Container) -> None:
        """A refusal is not the end."""
        (container.home / "refuse").touch()
        container.start(onstart(lifetime=1))

        until(lambda: container.calls().count("curl ") >= 3)

    def test_a_silent_broker_ends_it(self, container: Container) -> None:
        """Once there was a sign of life, and then none for too long."""
        container.start(onstart(silence=60))
        beat = container.home / ".gpubroker/heartbeat"
        beat.touch()
        assert container.calls() == ""

        os.utime(beat, (time.time() - 120, time.time() - 120))

        until(lambda: "curl" in container.calls())

    def test_a_broker_that_never_came_does_not(self, container: Container) -> None:
        """An image may take longer to start than a broker may be silent: the deadline counts."""
        container.start(onstart(silence=1))
        looked = container.home / ".gpubroker/watch"
        until(looked.exists)
        # One that has already overslept shows that the first has looked, and more than once.
        other = Container(_folder(container.home.parent / "other"))
        other.install("curl", FAKE_CURL)
        other.start(onstart(lifetime=1))
        try:
            until(lambda: other.calls().count("curl ") >= 2)
        finally:
            other.stop()

        assert container.calls() == ""

    def test_starting_again_does_not_put_it_off(self, container: Container) -> None:
        """The deadline is counted from the first start."""
        container.start(onstart(lifetime=1))
        until(lambda: "curl" in container.calls())
        container.stop()
        (container.home / "calls").unlink()

        container.start(onstart(lifetime=3600))

        until(lambda: "curl" in container.calls())

    def test_a_deadline_that_was_lost_is_made_anew(self, container: Container) -> None:
        """A file that holds no number is no way to live for ever."""
        (container.home / ".gpubroker").mkdir()
        (container.home / ".gpubroker/deadline").write_text("\n")
        container.start(onstart(lifetime=1))

        until(lambda: "curl" in container.calls())

    def test_without_curl_there_is_wget(self, container: Container) -> None:
        """Also there the key is on no command line."""
        (container.programs / "curl").unlink()
        container.install("wget", FAKE_WGET)
        container.start(onstart(lifetime=1))

        until(lambda: "Bearer" in container.calls())
        first = container.calls().splitlines()[0]
        assert f"--method=DELETE {API}/api/v0/instances/31337042/" in first
        assert "instance-key" not in first
        assert "header = Authorization: Bearer instance-key" in container.calls()

    def test_without_either_there_is_python(self, container: Container) -> None:
        """Which really asks: a server hears it, with the machine's key."""
        from http.server import BaseHTTPRequestHandler, HTTPServer
        from threading import Thread

        heard: list[tuple[str, str, str | None]] = []

        class Api(BaseHTTPRequestHandler):
            def do_DELETE(self) -> None:
                heard.append((self.command, self.path, self.headers["Authorization"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                """Nothing of it is printed."""

        (container.programs / "curl").unlink()
        container.install("python3", FAKE_PYTHON)
        with HTTPServer(("127.0.0.1", 0), Api) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            try:
                text = onstart(lifetime=1, pause=0.5).replace(
                    API, f"http://127.0.0.1:{server.server_port}"
                )
                container.start(text)
                until(lambda: heard != [])
            finally:
                container.stop()
                server.shutdown()
                thread.join()

        assert heard[0] == ("DELETE", "/api/v0/instances/31337042/", "Bearer instance-key")

    def test_the_machine_is_known_by_its_label_too(self, container: Container) -> None:
        """Where the vendor gives it no id, and its key in a file."""
        del container.env["CONTAINER_ID"], container.env["CONTAINER_API_KEY"]
        container.env["VAST_CONTAINERLABEL"] = "C.77"
        (container.home / ".vast_api_key").write_text("key-in-a-file")
        container.start(onstart(lifetime=1))

        until(lambda: "Bearer key-in-a-file" in container.calls())
        assert "/api/v0/instances/77/" in container.calls()


class TestText:
    def test_it_is_short_enough(self) -> None:
        """With room to spare, at the vendor's real address."""
        text = script(
            api="https://console.vast.ai",
            nonce="n" * 64,
            public_key=PUBLIC_KEY + "x" * 100,
            lifetime=10**6,
        )

        assert len(text) <= LIMIT

    @pytest.mark.parametrize(
        "parts",
        [
            {"public_key": "ssh-ed25519 AAAA'; reboot; '"},
            {"public_key": "ssh-ed25519 AAAA\nreboot"},
            {"api": "https://x.test/$(reboot)"},
            {"api": "https://x.test/;reboot"},
            {"public_key": "ssh-rsa " + "A" * 4000},
        ],
    )
    def test_nothing_gets_into_it_that_a_shell_would_run(self, parts: dict[str, str]) -> None:
        """Nor anything that makes it too long."""
        given = {"api": API, "public_key": PUBLIC_KEY, **parts}
        with pytest.raises(ProviderError):
            script(api=given["api"], nonce=NONCE, public_key=given["public_key"], lifetime=60)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
