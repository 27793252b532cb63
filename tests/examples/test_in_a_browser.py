"""The image app as it is served: gunicorn's processes, the sandbox, and a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpubroker.testing.comfyui_server import picture
from gpubroker.transport.ssh import missing_client

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")
if (problem := missing_client()) is not None:
    pytest.skip(problem, allow_module_level=True)

pytestmark = pytest.mark.deep

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts the app in the sandbox with two processes; gives its address."""
    programs: list[subprocess.Popen[str]] = []

    def serve(**env: str) -> str:
        folder = Path(__file__).parents[2] / "examples/image_app"
        program = subprocess.Popen(
            [sys.executable, "-m", "image_app", "--sandbox", "--port", "0"],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "IMAGE_APP_PICTURES": str(tmp_path / "pictures"),
                "IMAGE_APP_KEEP_WARM": "60",
                **env,
            },
            text=True,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        programs.append(program)
        assert program.stderr is not None
        for line in program.stderr:
            if found := re.search(r"Listening at: (http://\S+)", line):
                threading_drain(program)
                return found[1]
        raise AssertionError("it does not serve")

    yield serve
    for program in programs:
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait(90) is not None
        assert program.stderr is not None
        program.stderr.close()


def threading_drain(program: subprocess.Popen[str]) -> None:
    """Read what it goes on to say, so that it never waits for a reader."""
    import threading

    assert program.stderr is not None
    threading.Thread(target=program.stderr.read, daemon=True).start()
