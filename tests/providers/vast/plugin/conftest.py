"""A vendor for each test."""

from __future__ import annotations

import pytest

from .vendor import Vendor


@pytest.fixture
def vendor() -> Vendor:
    """It answers what the test tells it to."""
    return Vendor()
