"""A machine's own request, sent by whichever program its image has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gpubroker.transport.dead_man_switch import asking

KEY = "key-of-the-machine"
PROGRAMS = {"curl": shutil.which("curl"), "wget": shutil.which("wget"), "python3": sys.executable}

#: A program that notes its words, and is then the real one.
NOTING = """\
#!/bin/sh
echo "$*" >>"{words}"
exec {program} "$@"
"""


class Server:
    """A vendor, who answers every request with one status.

    Attributes:
        heard: method, path, body, and the headers that count, of each request.
    """

    def __init__(self) -> None:
        self.status = 200
        self.heard: list[tuple[str, str, str, dict[str, str]]] = []
        self.url = ""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            names = ("Authorization", "User-Agent", "Content-Type")
            shown = {name: self.headers[name] for name in names if name in self.headers}
            made.heard.append((self.command, self.path, body, shown))
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_DELETE = do_POST = _answer  # noqa: N815 - their names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Nothing of it is printed."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        made.url = f"http://127.0.0.1:{http.server_port}"
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made
        finally:
            http.shutdown()
            thread.join()


def ask(folder: Path, programs: dict[str, str | None], *words: str) -> int:
    """Run it where there are only these programs; gives its exit code."""
    found = folder / "bin"
    found.mkdir()
    (found / "cat").symlink_to(shutil.which("cat") or "cat")
    for name, program in programs.items():
        (found / name).write_text(NOTING.format(words=folder / "words", program=program))
        (found / name).chmod(0o755)
    return subprocess.run(
        [shutil.which("dash") or "sh", "-c", f'k={KEY}\n{asking()}ask "$@"', "sh", *words],
        cwd=folder,
        env={"PATH": str(found)},
        check=False,
        capture_output=True,
        timeout=30,
    ).returncode


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if program])
class TestEach:
    def test_it_asks_with_the_machines_key(self, tmp_path: Path, server: Server, name: str) -> None:
        """Which is on no command line; and with an agent that no guard turns away."""
        code = ask(tmp_path, {name: PROGRAMS[name]}, "DELETE", f"{server.url}/pods/1")

        assert code == 0
        headers = {"Authorization": f"Bearer {KEY}", "User-Agent": "gpubroker"}
        assert server.heard == [("DELETE", "/pods/1", "", headers)]
        assert KEY not in (tmp_path / "words").read_text()

    def test_it_sends_json(self, tmp_path: Path, server: Server, name: str) -> None:
        """As it is, quotes included."""
        body = '{"query":"mutation{end(id:\\"1\\")}"}'

        ask(tmp_path, {name: PROGRAMS[name]}, "POST", f"{server.url}/graphql", body)

        method, path, said, headers = server.heard[0]
        assert (method, path, said) == ("POST", "/graphql", body)
        assert headers["Content-Type"] == "application/json"

    def test_a_refusal_is_no_success(self, tmp_path: Path, server: Server, name: str) -> None:
        """So that another way can be tried."""
        server.status = 403

        assert ask(tmp_path, {name: PROGRAMS[name]}, "DELETE", f"{server.url}/pods/1") != 0

    def test_the_key_is_left_to_nobody(self, tmp_path: Path, server: Server, name: str) -> None:
        """The files that hold it are the owner's alone."""
        ask(tmp_path, {name: PROGRAMS[name]}, "DELETE", f"{server.url}/pods/1")

        left = [path for path in tmp_path.iterdir() if path.suffix == "" and path.is_file()]
        holding = [path for path in left if KEY in path.read_text()]
        assert all(path.stat().st_mode & 0o077 == 0 for path in holding)
        assert holding


def test_with_nothing_to_ask_with_it_fails(tmp_path: Path, server: Server) -> None:
    """An image may have none of the three."""
    assert ask(tmp_path, {}, "DELETE", f"{server.url}/pods/1") != 0
