"""The local provider keeps the promises that every provider keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpubroker.testing.conformance import ProviderConformance, Subject
from gpubroker_local import conformance


class TestLocal(ProviderConformance):
    """Leases in a state directory of the test's own, with no cards."""

    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        """Nothing runs when a test is over."""
        with conformance.subject() as subject:
            yield subject
