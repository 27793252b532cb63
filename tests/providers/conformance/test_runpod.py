"""The RunPod provider keeps the promises that every provider keeps, on its emulator over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("asyncssh", reason="the extra sandbox is not installed")

from tests.providers.runpod.documents import held_against_documents

from gpubroker.testing.conformance import ProviderConformance, Subject
from gpubroker_runpod.emulator import conformance


class TestRunPod(ProviderConformance):
    """Pods that are reached over SSH; and pods that are not, where an order's jobs allow it."""

    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        """A cloud of its own for each test; nothing bills there when a test is over."""
        with held_against_documents(), conformance.subject() as subject:
            yield subject
