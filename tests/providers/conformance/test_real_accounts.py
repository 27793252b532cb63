"""Checks on an account whose books nobody sees: within the ceiling, and with nothing left there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker import AccountSettings, Money
from gpubroker.plugins import Deadlines, Plugin, open_provider
from gpubroker.testing import cancel_at, virtual_backend
from gpubroker.testing.conformance import CHECKS, NotDeclared, SubjectMaker
from gpubroker.testing.conformance.real import SAFE, RealAccount, on_account
from gpubroker.watchdog import Watchdog

from .acme import Acme, subject_of
from .acme_vendor import KEY, Vendor
from .wrong_plugins import ListsNoMarks, MerelyStops

pytestmark = pytest.mark.anyio

WANTED: Mapping[str, Any] = {"gpu": "RTX 4090", "disk": 20}


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.deep)])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Virtual time: nothing here leaves the event loop."""
    return virtual_backend(request.param)


def account_with(ceiling: str) -> RealAccount:
    marks = iter(range(1000))
    return RealAccount(Money(ceiling), lambda: f"gb1-aaaaaaaa-{next(marks):016}-aaaaaaaa")


def ignore(what: str, more: object) -> None:
    """Events are of no interest here."""


async def subject_on(vendor: Vendor, account: RealAccount, plugin: type[Acme]) -> SubjectMaker:
    made = Plugin("acme", subject_of(plugin, vendor=vendor).factory, "acme 1.0")
    settings = AccountSettings("acme", {}, KEY)
    opening = open_provider(made, settings, ignore, Deadlines(), Watchdog(60, ignore))
    async with opening as provider:
        return on_account(made, settings, provider, WANTED, account)


async def broken_by(make: SubjectMaker, names: Iterable[str]) -> set[str]:
    broken: set[str] = set()
    for name in sorted(names):
        try:
            with make() as subject:
                await CHECKS[name](subject)
        except NotDeclared:
            continue
        except AssertionError:
            broken.add(name)
    return broken


async def test_a_sound_plugin_passes_and_leaves_nothing() -> None:
    """Every machine is given up, proven gone, and its worst case taken from the ceiling."""
    vendor, account = Vendor(), account_with("100")

    broken = await broken_by(await subject_on(vendor, account, Acme), SAFE)

    assert broken == set()
    assert (vendor.running(), account.left) == (set(), set())
    assert vendor.creates > 5
    assert account.reserved >= Money("0.08") * vendor.creates


async def test_nothing_is_ordered_beyond_the_ceiling() -> None:
    """Two machines fit: the third is not asked for, and its check is skipped."""
    vendor, account = Vendor(), account_with("0.20")

    await broken_by(await subject_on(vendor, account, Acme), SAFE)

    assert vendor.creates == 2
    assert account.reserved <= account.ceiling


async def test_nothing_is_left_wherever_a_check_is_cancelled() -> None:
    """Whoever interrupts it pays for no machine afterwards."""
    vendor, account = Vendor(), account_with("100")
    make = await subject_on(vendor, account, Acme)

    async def check() -> None:
        with make() as subject:
            await CHECKS["release_ends_billing"](subject)

    point, reached = 0, True
    while reached:
        reached = await cancel_at(point, check)
        point += 1

        assert (vendor.running(), account.left) == (set(), set())

    assert point > 10


async def test_what_cannot_be_ended_is_named() -> None:
    """A plugin that only stops its machines leaves one behind, and a person is told which."""
    vendor, account = Vendor(), account_with("100")

    broken = await broken_by(
        await subject_on(vendor, account, MerelyStops), ["release_ends_billing"]
    )

    assert broken == {"release_ends_billing"}
    assert account.left == vendor.running() != set()


async def test_a_lost_mark_is_found_without_books() -> None:
    """The plugin's own list is enough to see that."""
    vendor, account = Vendor(), account_with("100")

    broken = await broken_by(
        await subject_on(vendor, account, ListsNoMarks), ["inventory_shows_mark_and_id"]
    )

    assert broken == {"inventory_shows_mark_and_id"}
    assert vendor.running() == set()


@given(st.integers(0, 1000), st.lists(st.integers(0, 400)))
def test_reservations_never_exceed_the_ceiling(ceiling: int, costs: list[int]) -> None:
    """Whatever comes in whatever order, and what fits is never refused."""
    account = RealAccount(Money(ceiling), lambda: "")
    for cost in costs:
        before = account.reserved
        try:
            account.reserve(Money(cost))
        except NotDeclared:
            assert before + Money(cost) > account.ceiling
            assert account.reserved == before
        assert account.reserved <= account.ceiling
