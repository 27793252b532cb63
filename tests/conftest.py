from __future__ import annotations

import os
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
    "tests/transport/",
    "tests/providers/",
)
#: In virtual time, but many: the default run has what matters most on both event loops.
_VIRTUAL_TIME = ("tests/lifecycle/", "tests/testing/", "tests/simulation/")
_ON_BOTH_LOOPS = ("test_acquire.py", "test_lease.py")
#: Whole lives of machines at a vendor. The default run has those in which money is lost first.
_STORIES = tuple(f"tests/providers/{name}/stories/" for name in ("vast", "runpod"))
_FIRST = tuple(
    f"tests/providers/vast/stories/test_{name}.py"
    for name in ("creates", "releases", "command_line")
)
#: What changes seldom, or what the default run sees most of elsewhere.
_SELDOM = (
    "tests/providers/conformance/test_runpod.py",
    "tests/providers/conformance/test_vast.py",
    "tests/providers/failover/",
    "tests/providers/runpod/emulator/",
    "tests/providers/runpod/plugin/test_container.py",
    "tests/providers/vast/emulator/",
)


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: many tests wait for processes and servers."""
    return max(2, len(os.sched_getaffinity(0)) * 3 // 2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to ``pytest -m deep`` what takes long: twins on the other event loop, and stories.

    Of a test with many cases that runs on both ledgers, PostgreSQL has one case.
    """
    ids = {item.nodeid for item in items}
    on_postgres: set[str] = set()
    for item in items:
        twin = item.nodeid.replace("trio", "asyncio")
        slow = item.nodeid.startswith(_REAL_TIME) or (
            item.nodeid.startswith(_VIRTUAL_TIME) and item.path.name not in _ON_BOTH_LOOPS
        )
        is_twin = slow and twin != item.nodeid and twin in ids
        is_story = item.nodeid.startswith(_STORIES) and not str(item.path).endswith(_FIRST)
        test, _, case = item.nodeid.partition("[")
        is_case = item.nodeid.startswith("tests/ledger/") and "postgres" in case
        is_seldom = item.nodeid.startswith(_SELDOM)
        if is_twin or is_story or is_seldom or (is_case and test in on_postgres):
            item.add_marker("deep")
        if is_case:
            on_postgres.add(test)
