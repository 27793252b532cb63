"""What is done to emulated machines, whoever's they are: log in, and wait for them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def eventually(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that happens in another thread or process."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


@dataclass(frozen=True)
class SshKey:
    """A key pair, and the system's client that uses it."""

    private: Path
    public: str

    def run(self, port: int, command: str, *options: str, data: bytes = b"") -> tuple[int, str]:
        """Run a command over SSH: its exit status and its output; 255 and why not."""
        done = subprocess.run(
            [
                *("ssh", "-F", "none", "-i", str(self.private), "-p", str(port), "-T"),
                *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"),
                *("-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"),
                *("-o", "ConnectTimeout=5", *options, "root@127.0.0.1", command),
            ],
            input=data,
            capture_output=True,
            check=False,
            timeout=20,
        )
        return done.returncode, (done.stdout if done.returncode != 255 else done.stderr).decode()
