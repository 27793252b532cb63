"""The Vast.ai provider keeps the promises that every provider keeps, on its emulator over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from gpubroker.testing.conformance import ProviderConformance, Subject
from gpubroker_vast.emulator import conformance


class TestVast(ProviderConformance):
    """Everything that an account there can do."""

    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        """A cloud of its own for each test; nothing bills there when a test is over."""
        with conformance.subject() as subject:
            yield subject
