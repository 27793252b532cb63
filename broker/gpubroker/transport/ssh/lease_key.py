"""The SSH key of one lease, and the programs that SSH needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import anyio

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.transport.said import said

_NAME: Final = "lease_key"


def missing_client() -> str | None:
    """Why nothing can be reached over SSH from here; ``None`` when it can."""
    absent = [program for program in ("ssh", "ssh-keygen") if shutil.which(program) is None]
    if not absent:
        return None
    return (
        f"machines are reached with the OpenSSH client, and this system has no"
        f" {' and no '.join(absent)}: install it (openssh-client, openssh or openssh-clients)"
    )


def require_client() -> None:
    """Make sure of it.

    Raises:
        ProviderError: `BAD_REQUEST`: this system has no OpenSSH client.
    """
    problem = missing_client()
    if problem is not None:
        raise _unusable(problem)


def minimal_environment() -> dict[str, str]:
    """What OpenSSH's programs are given of our environment: no agent, display or secret."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


@dataclass(frozen=True, slots=True)
class LeaseKey:
    """An ed25519 key that lets one lease's broker in, and nobody else.

    Attributes:
        private: the file that holds the private half, readable by this user alone.
        public: the public half, one line, as a machine's ``authorized_keys`` wants it.
    """

    private: Path = field(repr=False)
    public: str

    @classmethod
    async def make(cls, folder: Path) -> Self:
        """A new key in `folder`, which is made when missing and closed to other users.

        Raises:
            ProviderError: `BAD_REQUEST`: this system has no OpenSSH client, or it made no key.
        """
        require_client()
        _make_private(folder)
        done = await anyio.run_process(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "gpubroker", "-f", _NAME],
            cwd=folder,
            env=minimal_environment(),
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise _unusable(f"ssh-keygen made no key: {said(done.stdout + done.stderr)}")
        return cls(folder / _NAME, (folder / f"{_NAME}.pub").read_text().strip())

    @classmethod
    def restore(cls, folder: Path, private: str, public: str) -> Self:
        """A key that was made before, in `folder`, which is closed to other users.

        Raises:
            OSError: it cannot be written.
        """
        _make_private(folder)
        path = folder / _NAME
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(private)
        return cls(path, public)


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _unusable(message: str) -> ProviderError:
    return ProviderError(message, kind=ErrorKind.BAD_REQUEST, scope=Scope.PROVIDER)
