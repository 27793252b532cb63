"""The local provider keeps the promises that every provider keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpubroker import AccountSettings
from gpubroker.testing.conformance import ProviderConformance, Subject, VendorBooks
from gpubroker_local import create, processes


class TestLocal(ProviderConformance):
    """Leases in a state directory of the test's own, with no cards."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Iterator[Subject]:
        """What runs is told by the process table, and nothing runs when a test is over."""
        leases = tmp_path / "leases"

        def running() -> set[str]:
            paths = (Path(owned[processes.FOLDER]) for _, owned in processes.marked())
            return {path.name for path in paths if path.parent == leases}

        yield Subject(
            name="local",
            factory=create,
            settings=AccountSettings(
                "local", {"directory": str(leases), "lock_directory": str(tmp_path / "locks")}
            ),
            wanted={},
            books=VendorBooks(running=running),
            unknown_id="lease-that-never-was",
            paid=False,
        )
        assert running() == set()
