"""Serve the app with gunicorn: ``python -m image_app``. ``--sandbox`` needs no account."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack

from gpubroker import Broker
from gpubroker.testing import Sandbox, sandbox

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
        if not options.sandbox:
            return serve(options, os.environ)
        box = stack.enter_context(sandbox())
        for what in ("ps", "costs"):
            print(f"sandbox: see gpubroker --ledger {box.settings.ledger} {what}", file=sys.stderr)
        code = serve(options, {**_IN_THE_SANDBOX, **os.environ, **box.environment})
        print(f"sandbox: {books(box)}", file=sys.stderr)
        return code


def books(box: Sandbox) -> str:
    """What was spent in the sandbox, and what the vendors still bill for."""
    with Broker(settings=box.settings, sweep=False) as broker:
        spent = broker.costs().spent
    left = [machine for vendor in box.emulators.values() for machine in vendor.billing_now()]
    bills = f"{', '.join(left)} still bill" if left else "no machine bills"
    return f"{spent} of play money were spent; {bills}"


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
