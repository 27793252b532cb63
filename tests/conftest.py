from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every asynchronous test runs on both event loops, in real time.

    Folders whose tests want virtual time have a fixture of this name of their own.
    """
    return str(request.param), {}


#: In these folders things take real time, so that the second event loop's turn is for deep runs.
_REAL_TIME = (
    "tests/transport/",
    *(f"tests/providers/{name}/" for name in ("vast", "runpod", "failover", "conformance")),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what takes long, and has a twin on the other event loop, to ``pytest -m deep``."""
    ids = {item.nodeid for item in items}
    for item in items:
        twin = item.nodeid.replace("trio", "asyncio")
        if item.nodeid.startswith(_REAL_TIME) and twin != item.nodeid and twin in ids:
            item.add_marker("deep")
