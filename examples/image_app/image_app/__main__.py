"""Serve the app with gunicorn: ``python -m image_app``. ``--sandbox`` needs no account."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack

from gpubroker.testing import sandbox

_IN_THE_SANDBOX = {
    "IMAGE_APP_GPU": "RTX 4090",
    "IMAGE_APP_TINY": "2",
    "GPUBROKER_BUDGET_MONTH": "200",
}


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m image_app", description=__doc__)
    parser.add_argument("--sandbox", action="store_true", help="emulated vendors and play money")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2, help="processes; they share one pool")
    parser.add_argument("--threads", type=int, default=16, help="requests at once, in each")
    options = parser.parse_args()
    with ExitStack() as stack:
        env: Mapping[str, str] = os.environ
        if options.sandbox:
            env = {**_IN_THE_SANDBOX, **env, **stack.enter_context(sandbox()).environment}
        return serve(options, env)


def serve(options: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Run gunicorn to its end; whoever asks this program to end asks gunicorn."""
    words = ["--worker-class", "gthread", "--workers", str(options.workers)]
    words += ["--threads", str(options.threads), "--bind", f"127.0.0.1:{options.port}"]
    words += ["--timeout", "120", "--graceful-timeout", "60", "--no-control-socket"]
    program = [sys.executable, "-m", "gunicorn", *words, "image_app:create_app()"]
    server = subprocess.Popen(program, env=dict(env))

    def end(*_: object) -> None:
        server.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return server.wait()


if __name__ == "__main__":
    sys.exit(main())
