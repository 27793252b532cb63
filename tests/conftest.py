from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every asynchronous test runs on both event loops, in real time.

    Folders whose tests want virtual time have a fixture of this name of their own.
    """
    return str(request.param), {}
