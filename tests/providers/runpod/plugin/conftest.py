"""A vendor for each test."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from .vendor import Vendor


@pytest.fixture
def vendor() -> Generator[Vendor]:
    """It answers what the test tells it to, and holds each request against the vendor's documents."""
    vendor = Vendor()
    yield vendor
    assert vendor.problems == []
