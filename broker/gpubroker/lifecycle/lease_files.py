"""What an heir needs of a lease besides its row, in a private folder beside the ledger.

Only leases that are to be adopted, or shared by a pool, have one: ``<ledger>.leases/<lease id>``, made before the create
leaves, and removed once the lease is over. It lets its reader into the machine, so that it is this
user's alone, and never part of the ledger; a job's secrets, words and environment are not in it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from gpubroker.model.codec import from_json, to_json
from gpubroker.model.offers import Offer
from gpubroker.model.results import HostIdentity

T = TypeVar("T")

_LEASE: Final = "lease.json"
_JOB: Final = "job.json"
_REACH: Final = "reach.json"
_SERVER: Final = "server.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLease:
    """What is known before the create leaves.

    Attributes:
        private_key, public_key, nonce: those of its `Link`; empty where it is not reached over SSH.
        wanted: of a pool's: names what its machines must be; only who wants the same takes it.
        ends_at: of a pool's: Unix time at which its machine's life ends.
    """

    offer: Offer
    image: str | None = None
    wanted: str = ""
    ends_at: float = 0.0
    private_key: str = field(default="", repr=False)
    public_key: str = ""
    nonce: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReach:
    """What is known of a machine once it has answered.

    Attributes:
        host_keys: those that it has shown. host_identity: and how they were made sure of.
    """

    host_keys: tuple[str, ...] = ()
    host_identity: HostIdentity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptJob(KeptReach):
    """What is known before a job starts.

    Attributes:
        output_dir: where its outputs belong, as an absolute path.
    """

    id: str
    title: str
    outputs: tuple[str, ...]
    output_dir: Path
    output_limit: int
    timeout: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptServer:
    """What is known of a server before it is started: as which job, and at which port."""

    job_id: str
    port: int


class LeaseFiles:
    """The folders of one ledger's leases."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_lease(self, lease_id: str, kept: KeptLease) -> None:
        """Make a lease's folder.

        Raises:
            OSError: it cannot be made durable.
        """
        self._folder(lease_id).mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.root, self._folder(lease_id)):
            folder.chmod(0o700)
        _sync(self.root.parent)
        _sync(self.root)
        self._put(lease_id, _LEASE, to_json(KeptLease, kept))

    def put_job(self, lease_id: str, kept: KeptJob) -> None:
        """Keep what the heir of a job needs, in place of the last one's.

        Raises:
            OSError: it cannot be made durable.
        """
        self._put(lease_id, _JOB, to_json(KeptJob, kept))

    def put_reach(self, lease_id: str, kept: KeptReach) -> None:
        """Keep how a machine that has answered is known again.

        Raises:
            OSError: it cannot be made durable.
        """
        self._put(lease_id, _REACH, to_json(KeptReach, kept))

    def reach(self, lease_id: str) -> KeptReach | None:
        """How its machine is known again; ``None`` where that is not here, or not readable."""
        return self._get(lease_id, _REACH, KeptReach)

    def put_server(self, lease_id: str, kept: KeptServer) -> None:
        """Keep what whoever takes the machine needs of the server on it.

        Raises:
            OSError: it cannot be made durable.
        """
        self._put(lease_id, _SERVER, to_json(KeptServer, kept))

    def server(self, lease_id: str) -> KeptServer | None:
        """The server that runs on its machine; ``None`` where that is not here, or not readable."""
        return self._get(lease_id, _SERVER, KeptServer)

    def lease(self, lease_id: str) -> KeptLease | None:
        """What was kept of a lease; ``None`` where that is not here, or not readable."""
        return self._get(lease_id, _LEASE, KeptLease)

    def job(self, lease_id: str) -> KeptJob | None:
        """What was kept of its last job; ``None`` where that is not here, or not readable."""
        return self._get(lease_id, _JOB, KeptJob)

    def remove(self, lease_id: str) -> None:
        """Remove a lease's folder."""
        shutil.rmtree(self._folder(lease_id), ignore_errors=True)
        with suppress(OSError):
            self.root.rmdir()  # the last one

    def made(self) -> list[tuple[str, float]]:
        """The leases that have a folder, each with when that last changed (Unix time)."""
        try:
            return [(path.name, path.stat().st_mtime) for path in self.root.iterdir()]
        except OSError:
            return []

    def _folder(self, lease_id: str) -> Path:
        return self.root / lease_id

    def _put(self, lease_id: str, name: str, text: str) -> None:
        folder = self._folder(lease_id)
        descriptor, draft = tempfile.mkstemp(prefix=f"{name}.", dir=folder)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / name)  # noqa: PTH105
        _sync(folder)

    def _get(self, lease_id: str, name: str, kind: type[T]) -> T | None:
        try:
            return from_json(kind, (self._folder(lease_id) / name).read_text())
        except (OSError, ValueError):
            return None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
