"""Each check fails for a plugin that breaks its promise, and for that promise alone."""

from __future__ import annotations

from typing import Any

import pytest

from gpubroker.testing import virtual_backend
from gpubroker.testing.conformance import CHECKS, NotDeclared, ProviderConformance

from .acme import Acme, subject_of
from .wrong_plugins import WRONG, SaysTooLittle, Wrong

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.deep)])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Virtual time: nothing here leaves the event loop."""
    return virtual_backend(request.param)


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
