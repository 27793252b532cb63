"""This machine as a subject of the conformance checks: leases in a folder of their own, no cards."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from gpubroker import AccountSettings
from gpubroker.testing.conformance import Subject, VendorBooks
from gpubroker_local import create, processes


@contextmanager
def subject() -> Generator[Subject]:
    """What runs is told by the process table, and nothing runs at the end.

    Raises:
        AssertionError: something does.
    """
    with tempfile.TemporaryDirectory(prefix="gpubroker-conformance-") as folder:
        leases, locks = Path(folder, "leases"), Path(folder, "locks")

        def running() -> set[str]:
            paths = (Path(owned[processes.FOLDER]) for _, owned in processes.marked())
            return {path.name for path in paths if path.parent == leases}

        yield Subject(
            name="local",
            factory=create,
            settings=AccountSettings(
                "local", {"directory": str(leases), "lock_directory": str(locks)}
            ),
            wanted={},
            books=VendorBooks(running=running),
            unknown_id="lease-that-never-was",
            paid=False,
        )
        if running():
            raise AssertionError(f"left behind, and running: {sorted(running())}")
