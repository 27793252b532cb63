from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from gpubroker.ledger.ledger import Ledger
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money
from gpubroker.model.places import Place, ledger_place

ENTROPY = b"12345"


class NewLease(Protocol):
    """Makes rows for leases that nobody has yet, each with an id and a mark of its own."""

    def __call__(self, reserved: Money | str = "1.00", **columns: Any) -> LeaseRow: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is, in a folder that does not exist yet."""
    return tmp_path / "state" / "ledger.db"


#: Marks tests of what both engines promise.
both_engines = pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, path: Path) -> Place:
    """Where the ledger is: the file, unless the test is of both engines."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return path
    return ledger_place(request.getfixturevalue("database"))


@pytest.fixture
def open_ledger(place: Place) -> Iterator[Callable[[], Ledger]]:
    """Opens the ledger, as often as one likes: each is like another process."""
    opened: list[Ledger] = []

    def open_it() -> Ledger:
        opened.append(Ledger(place, entropy=ENTROPY, busy=0.05))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: Callable[[], Ledger]) -> Ledger:
    return open_ledger()


def lease_row(number: int, **columns: Any) -> LeaseRow:
    """A row for a lease that nobody has yet, with an id and a mark of its number."""
    row = LeaseRow(
        id=f"lease-{number}",
        request_id="request-1",
        provider="acme",
        state=LeaseState.REQUESTED,
        epoch=1,
        owner="broker-1",
        mark=f"mark-{number}",
        title="1x RTX 4090",
        offer_id="offer-1",
        machine_id=None,
        hourly=Money("0.40"),
        quantum=1.0,
        reserved=Money("1.00"),
        spent=Money(0),
        created_at=1000.0,
        deadline=4600.0,
    )
    return replace(row, **columns)


@pytest.fixture
def new_lease() -> NewLease:
    numbers = itertools.count(1)

    def make(reserved: Money | str = "1.00", **columns: Any) -> LeaseRow:
        return lease_row(next(numbers), reserved=Money(reserved), **columns)

    return make
