from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from tests.postgres import PostgresServer, running

# No test asserts a time: a crowded machine is no finding.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, for all tests of one process; none of them may stop it."""
    with running() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database of one's own."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Every asynchronous test runs on both event loops, in real time.

    Folders whose tests want virtual time have a fixture of this name of their own.
    """
    return str(request.param), {}


#: In these folders things take real time, so that the second event loop's turn is for deep runs.
_REAL_TIME = (
    "tests/broker/",
    "tests/cli/",
    "tests/integrations/",
    "tests/lifecycle/test_cancellation.py",  # in virtual time, and very often
    "tests/transport/",
    *(f"tests/providers/{name}/" for name in ("vast", "runpod", "failover", "conformance")),
)
#: Whole lives of machines at a vendor. The default run has those in which money is lost first.
_STORIES = tuple(f"tests/providers/{name}/stories/" for name in ("vast", "runpod"))
_FIRST = ("test_creates.py", "test_releases.py", "test_command_line.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to ``pytest -m deep`` what takes long: twins on the other event loop, and stories."""
    ids = {item.nodeid for item in items}
    for item in items:
        twin = item.nodeid.replace("trio", "asyncio")
        is_twin = item.nodeid.startswith(_REAL_TIME) and twin != item.nodeid and twin in ids
        is_story = item.nodeid.startswith(_STORIES) and item.path.name not in _FIRST
        if is_twin or is_story:
            item.add_marker("deep")
