"""Acme keeps the promises that every provider keeps, and some of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpubroker_acme import create
from gpubroker_acme.pretend import subject

from gpubroker import AccountSettings, InvalidValue
from gpubroker.testing import virtual_backend
from gpubroker.testing.conformance import ProviderConformance, Subject


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Virtual time: the vendor is in memory, so that a minute of booting takes no time."""
    return virtual_backend(request.param)


class TestAcme(ProviderConformance):
    """Everything that an account there can do."""

    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        """A vendor of its own for each test."""
        with subject() as acme:
            yield acme


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"imagee": "cuda"}, None),
        ({"poll_interval": "0"}, None),
        ({"pacing": "off"}, "http://127.0.0.1:1"),
        ({}, "http://api.acme.example"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(options: dict[str, str], url: str | None) -> None:
    """A typing error, a setting that nothing reads, a pause that the vendor would not forgive, a key sent unprotected."""
    with pytest.raises(InvalidValue):
        create(AccountSettings("acme", options, "key", url), print)
