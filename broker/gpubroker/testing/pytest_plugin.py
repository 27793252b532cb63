"""The pytest plugin: scripted clouds, brokers that rent from them, and no waiting.

It is found by pytest where gpubroker is installed, and loads nothing of it before a test asks.

Fixtures: `gpubroker_clouds`, `gpubroker_cloud`, `gpubroker_broker`, `gpubroker_async_broker`,
`gpubroker_now`, `gpubroker_no_wait` and `gpubroker_sandbox`. Marker: ``gpubroker``. Switch:
``--gpubroker-no-wait``, or ``gpubroker_no_wait = true`` in pytest's settings.

A test that used scripted clouds and passed is failed, in its own report, if a machine still bills,
if something was told that never happened, or if the broker broke its side of the contract.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from gpubroker.broker import AsyncBroker
    from gpubroker.sync import Broker
    from gpubroker.testing.clouds import Clouds
    from gpubroker.testing.sandboxing import Sandbox
    from gpubroker.testing.scripted import ScriptedCloud
    from gpubroker.testing.use import Use
    from gpubroker.testing.virtual_time import VirtualWallClock

_MARKER: Final = (
    "gpubroker(*stories, providers=(), strict=True, loop='asyncio', seed=0): what the scripted "
    "clouds are told before the test; an async test runs in virtual time, on asyncio or trio"
)
_NO_WAIT: Final = (
    "every gpubroker.Broker of the code under test rents from scripted clouds, at once"
)


_USE: Final = pytest.StashKey["Use"]()
#: What is asked when a test is done: each says what is wrong, and nothing if nothing is.
_CHECKS: Final = pytest.StashKey[list[Callable[[], str]]]()


# --------------------------------------------------------------------------------------------
# Hooks
# --------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The switch."""
    group = parser.getgroup("gpubroker")
    group.addoption("--gpubroker-no-wait", action="store_true", default=None, help=_NO_WAIT)
    parser.addini("gpubroker_no_wait", _NO_WAIT, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line("markers", _MARKER)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With the switch on, every test has the fixture that removes waiting."""
    if not (config.getoption("--gpubroker-no-wait") or config.getini("gpubroker_no_wait")):
        return
    for item in items:
        if isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "gpubroker_no_wait")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked async test in virtual time, unless anyio's plugin is to run it."""
    if (
        pyfuncitem.get_closest_marker("gpubroker") is None
        or not inspect.iscoroutinefunction(pyfuncitem.obj)
        or "anyio_backend" in pyfuncitem.fixturenames
    ):
        return None
    from gpubroker.testing.virtual_time import run_virtual

    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def test() -> None:
        await pyfuncitem.obj(**arguments)

    run_virtual(_marked(pyfuncitem).loop, test)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Ask the clouds once the test is done, so that what is wrong is this test's failure."""
    checks = item.stash.setdefault(_CHECKS, [])
    try:
        result = yield
    except (Exception, pytest.fail.Exception):
        item.add_report_section("call", "gpubroker", "; ".join(_problems(checks)))
        checks.clear()  # one failure is enough
        raise
    except BaseException:
        checks.clear()
        raise
    _check(item, checks)
    return result


def _problems(checks: list[Callable[[], str]]) -> list[str]:
    return [problem for check in checks if (problem := check())]


def _check(item: pytest.Item, checks: list[Callable[[], str]]) -> None:
    if problems := _problems(checks):
        checks.clear()
        pytest.fail(f"{item.name}: {'; '.join(problems)}", pytrace=False)


# --------------------------------------------------------------------------------------------
# Fixtures
# --------------------------------------------------------------------------------------------


@pytest.fixture
def gpubroker_clouds(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Clouds]:
    """Scripted clouds by name, told what the marker says; one, ``scripted``, without.

    A broker that opens the real providers meanwhile is an error.
    """
    from gpubroker.testing.clouds import Clouds, still_under_way
    from gpubroker.testing.use import Use

    marked = _marked(request.node)
    clouds = Clouds(*marked.providers, stories=marked.stories, strict=marked.strict)
    use = request.node.stash[_USE] = Use(clouds, tmp_path)
    checks = request.node.stash.setdefault(_CHECKS, [])
    checks.append(use.problem)
    if "gpubroker_sandbox" not in request.fixturenames:
        use.keep_others_out(monkeypatch.setattr)
    yield clouds
    try:
        if not use.checked:
            _check(request.node, checks)
    finally:
        cut_off = use.end()
    if cut_off:
        pytest.fail(f"{request.node.name}: {still_under_way(cut_off)}", pytrace=False)


@pytest.fixture
def gpubroker_cloud(gpubroker_clouds: Clouds) -> ScriptedCloud:
    """The first of the scripted clouds."""
    return next(iter(gpubroker_clouds.values()))


@pytest.fixture
def gpubroker_now(gpubroker_clouds: Clouds) -> VirtualWallClock:
    """The clouds' clock: Unix seconds when it is called; ``jump`` shifts it."""
    return gpubroker_clouds.now


@pytest.fixture
def gpubroker_async_broker(gpubroker_clouds: Clouds) -> AsyncBroker:
    """An `AsyncBroker` that rents from the clouds, not yet open: the test enters it."""
    return gpubroker_clouds.async_broker()


@pytest.fixture
def gpubroker_broker(request: pytest.FixtureRequest, gpubroker_clouds: Clouds) -> Broker:
    """An open `Broker` that rents from the clouds; its clock moves only while a call lasts.

    It is closed as soon as the test itself is done. A lease that nobody left by then is a failure.
    """
    use: Use = request.node.stash[_USE]
    return use.own(gpubroker_clouds.broker().open())


@pytest.fixture
def gpubroker_no_wait(
    request: pytest.FixtureRequest, gpubroker_clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every broker that the code under test opens rents from the clouds, and its ledger is ours.

    A `Broker` works in virtual time. An `AsyncBroker` does where its event loop does. One that was
    given ``plugins`` keeps them. Budgets and policies are those of the code under test.
    """
    del gpubroker_clouds
    use: Use = request.node.stash[_USE]
    use.stand_in(monkeypatch.setattr)


@pytest.fixture
def gpubroker_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """The emulated vendors, and settings that rent from them, in real time.

    A machine that still bills when the test is done is a failure.
    """
    from gpubroker.testing.sandboxing import sandbox

    with sandbox(seed=_marked(request.node).seed) as box:
        request.node.stash.setdefault(_CHECKS, []).append(lambda: _still_billing(box))
        yield box


def _still_billing(box: Sandbox) -> str:
    left = {name: emulator.billing_now() for name, emulator in box.emulators.items()}
    return "; ".join(
        f"{name} still bills for {', '.join(ids)}" for name, ids in left.items() if ids
    )


# --------------------------------------------------------------------------------------------
# The marker
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Marked:
    """What a test's marker says."""

    providers: tuple[str, ...]
    stories: Mapping[str, Any]
    strict: bool = True
    loop: Literal["asyncio", "trio"] = "asyncio"
    seed: int = 0


def _marked(item: pytest.Item) -> _Marked:
    mark = item.get_closest_marker("gpubroker")
    if mark is None:
        return _Marked(("scripted",), {})
    given = dict(mark.kwargs)
    wanted: str | Sequence[str] = given.pop("providers", ())
    providers = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    by_name = [cast("Mapping[str, Any]", told) for told in mark.args if isinstance(told, Mapping)]
    first = next(iter([*providers, *(name for told in by_name for name in told)]), "scripted")
    stories: dict[str, list[Any]] = {}
    for told in mark.args:
        named = cast("Mapping[str, Any]", told) if isinstance(told, Mapping) else {first: told}
        for name, story in named.items():
            stories.setdefault(name, []).append(story)
    try:
        return _Marked(providers or tuple(stories) or (first,), stories, **given)
    except TypeError as error:
        raise pytest.UsageError(f"{item.nodeid}: the marker gpubroker: {error}") from None
