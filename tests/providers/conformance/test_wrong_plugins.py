"""Each check fails for a plugin that breaks its promise, and for that promise alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gpubroker import AccountSettings, Emit
from gpubroker.testing import virtual_backend
from gpubroker.testing.conformance import (
    CHECKS,
    NotDeclared,
    ProviderConformance,
    Subject,
    Troubles,
    VendorBooks,
)

from .acme import Acme
from .acme_vendor import KEY, Vendor
from .wrong_plugins import WRONG, SaysTooLittle, Wrong

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.deep)])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Virtual time: nothing here leaves the event loop."""
    return virtual_backend(request.param)


def subject_of(plugin: type[Acme], *, ssh: bool = True) -> Subject:
    """A plugin on a vendor of its own, with everything declared that Acme can do."""
    vendor = Vendor()

    def create(settings: AccountSettings, emit: Emit) -> Acme:
        return plugin(vendor, ssh=ssh)

    def goes_wrong(trouble: str) -> Callable[[], None]:
        return partial(setattr, vendor, "trouble", trouble)

    return Subject(
        name="acme",
        factory=create,
        settings=AccountSettings("acme", {}, KEY),
        wanted={"gpu": "RTX 4090", "disk": 20},
        books=VendorBooks(
            running=vendor.running,
            creates=lambda: vendor.creates,
            targets=lambda: tuple(vendor.targets),
        ),
        troubles=Troubles(
            calm=goes_wrong(""),
            lost_creates={"a cut": goes_wrong("cut create"), "a 502": goes_wrong("502")},
            billing_refusal=goes_wrong("refusal"),
            broken_listings={
                "a cut": goes_wrong("cut list"),
                "a 500": goes_wrong("page of errors"),
            },
            slow_boot=goes_wrong("slow boot"),
            others=vendor.others,
            echoes={"a 400": goes_wrong("echo")},
            newer=goes_wrong("new"),
        ),
        unknown_id="99999",
        ssh=ssh,
        logs=True,
        charges=True,
        balance=True,
        doubles=True,
        bills_disk=True,
        runs_jobs=ssh,
        announces=True,
    )


async def broken_by(plugin: type[Acme], *, ssh: bool = True) -> set[str]:
    """The names of the checks that a plugin fails."""
    broken: set[str] = set()
    for name, check in CHECKS.items():
        try:
            await check(subject_of(plugin, ssh=ssh))
        except NotDeclared:
            continue
        except AssertionError:
            broken.add(name)
    return broken


@pytest.mark.parametrize("ssh", [True, False], ids=["over SSH", "by itself"])
async def test_a_plugin_that_keeps_every_promise_passes(ssh: bool) -> None:
    """Acme has nothing wrong with it, whichever way it runs jobs."""
    assert await broken_by(Acme, ssh=ssh) == set()


@pytest.mark.parametrize("wrong", WRONG, ids=[wrong.plugin.__name__ for wrong in WRONG])
async def test_a_wrong_plugin_fails_what_it_breaks(wrong: Wrong) -> None:
    """Those checks, and no other one."""
    assert await broken_by(wrong.plugin, ssh=wrong.ssh) == wrong.broken


async def test_offers_that_say_too_little_are_found_out() -> None:
    """By the check that is about them, among all that need an offer."""
    assert "quote_has_what_fits" in await broken_by(SaysTooLittle)


def test_every_check_can_fail() -> None:
    """Each of them is what some wrong plugin breaks."""
    found = {name for wrong in WRONG for name in wrong.broken} | {"quote_has_what_fits"}

    assert found == CHECKS.keys()


def test_every_check_is_a_test() -> None:
    """The class has one for each, of the same name, and each says what it promises."""
    tests = {
        name.removeprefix("test_"): test
        for name, test in vars(ProviderConformance).items()
        if name.startswith("test_")
    }

    assert tests.keys() == CHECKS.keys()
    assert all(test.__doc__ for test in tests.values())
