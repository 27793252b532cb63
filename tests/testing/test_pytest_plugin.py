"""The pytest plugin, as an app's own tests see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

# Loaded before the runs within this process, which forget what they load.
import gpubroker.testing.use

assert gpubroker.testing.use

pytest_plugins = ["pytester"]

#: A module of an app that keeps one broker for its life, as web apps do.
APP = """
from gpubroker import Broker, Requirements

broker = Broker(budget="1")

def render():
    return broker.run(["render"], Requirements(gpu="RTX 4090"), lifetime=7200)
"""


@pytest.fixture
def tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with that app, and nothing of the settings of whoever runs this."""
    monkeypatch.setenv("HOME", str(pytester.path))
    monkeypatch.delenv("GPUBROKER_LEDGER", raising=False)
    monkeypatch.delitem(sys.modules, "app", raising=False)
    pytester.makepyfile(app=APP)
    pytester.syspathinsert()
    return pytester


def run(tests: pytest.Pytester, text: str, *options: str) -> pytest.RunResult:
    """Run a test module in this process."""
    tests.makepyfile(test_it=f"import pytest\nfrom gpubroker import *\n{text}")
    return tests.runpytest_inprocess("-p", "no:cacheprovider", "--strict-markers", *options)


def test_a_broker_on_a_scripted_cloud_is_at_hand(tests: pytest.Pytester) -> None:
    """Synchronous tests call it; async ones enter it, in virtual time on the loop of their choice."""
    done = run(
        tests,
        """
from gpubroker.testing import tried

def test_sync(gpubroker_broker, gpubroker_cloud, gpubroker_now):
    gpubroker_cloud.job_takes(1800)
    began = gpubroker_now()
    result = gpubroker_broker.run(["x"])
    assert gpubroker_now() - began > 1800
    assert tried(result.record) == ["scripted: won"]

@pytest.mark.parametrize("loop", [
    pytest.param("asyncio", marks=pytest.mark.gpubroker(loop="asyncio")),
    pytest.param("trio", marks=pytest.mark.gpubroker(loop="trio")),
])
async def test_async(gpubroker_async_broker, gpubroker_clouds, loop):
    import sniffio
    assert sniffio.current_async_library() == loop
    gpubroker_clouds["scripted"].job_takes(900)
    async with gpubroker_async_broker as broker:
        await broker.run(["x"])
    assert gpubroker_clouds.billed > Money("0.10")
""",
    )

    done.assert_outcomes(passed=3)


def test_the_marker_tells_the_clouds_a_story(tests: pytest.Pytester) -> None:
    """By name, by function, or one for each of several providers on one clock."""
    done = run(
        tests,
        """
from gpubroker.testing import tried
WANTED = Requirements(gpu="RTX 4090")

@pytest.mark.gpubroker("sold out")
def test_by_name(gpubroker_broker):
    assert tried(gpubroker_broker.run(["x"], WANTED).record) == [
        "scripted: capacity", "scripted: won"]

@pytest.mark.gpubroker(lambda cloud: cloud.job_exits(3))
def test_by_function(gpubroker_broker):
    assert gpubroker_broker.run(["x"], WANTED).exit_code == 3

@pytest.mark.gpubroker({"near": "no capacity", "far": "calm"})
def test_two(gpubroker_broker, gpubroker_clouds):
    gpubroker_broker.run(["x", "y"], WANTED)
    assert gpubroker_clouds.ran == [("far", "x y")]

@pytest.mark.gpubroker("no such story")
def test_unknown(gpubroker_broker):
    pass

@pytest.mark.gpubroker(provider="near")
def test_misspelt(gpubroker_broker):
    pass
""",
    )

    done.assert_outcomes(passed=3, errors=2)
    done.stdout.fnmatch_lines(["*unknown scenario*", "*unexpected keyword argument 'provider'*"])


def test_what_is_wrong_at_the_end_fails_the_test_itself(tests: pytest.Pytester) -> None:
    """A leak, a story not used up, an unexpected call, a lease left open: each in its own report."""
    done = run(
        tests,
        """
def test_leak(gpubroker_broker, gpubroker_cloud):
    gpubroker_cloud.release_does_nothing(until=float("inf"))
    gpubroker_broker.run(["x"])

def test_unused(gpubroker_broker, gpubroker_cloud):
    gpubroker_cloud.never_boots()

def test_unexpected(gpubroker_broker, gpubroker_cloud):
    gpubroker_cloud.expects_no("provision")
    gpubroker_broker.run(["x"])

def test_lease(gpubroker_broker):
    global kept
    kept = gpubroker_broker.lease()
    kept.__enter__()

@pytest.mark.gpubroker(strict=False)
def test_loose(gpubroker_broker, gpubroker_cloud):
    gpubroker_cloud.never_boots(times=3)

@pytest.mark.gpubroker("no boot")
def test_failed_anyway(gpubroker_broker):
    assert 1 == 2
""",
    )

    done.assert_outcomes(passed=1, failed=5)
    done.stdout.fnmatch_lines(
        [
            "test_leak: scripted still bills for scripted-1 (running, $*s after it was ordered)",
            "test_unused: scripted was told and never got to do: never_boots()",
            "test_unexpected: scripted was misused: an unexpected call of provision",
            "test_lease: nobody left the lease *",
        ]
    )
    assert "test_failed_anyway: " not in done.stdout.str()


@pytest.mark.parametrize("by", ["option", "setting", "fixture"])
def test_the_switch_removes_waiting_from_an_app(tests: pytest.Pytester, by: str) -> None:
    """An app's own broker rents from the clouds in no time, test after test, by its own rules."""
    if by == "setting":
        tests.makeini("[pytest]\ngpubroker_no_wait = true")
    done = run(
        tests,
        f"""
import app
pytestmark = {'pytest.mark.usefixtures("gpubroker_no_wait")' if by == "fixture" else []}

@pytest.mark.gpubroker("host vanishes")
def test_machine_lost():
    with pytest.raises(MachineLost):
        app.render()

@pytest.mark.gpubroker("slow boot")
def test_again():
    assert app.render().ok

def test_its_own_budget():
    with pytest.raises(AcquireError):
        app.broker.run(["x"], lifetime=36000, requirements=Requirements(gpu="A100"))
""",
        *(["--gpubroker-no-wait"] if by == "option" else []),
    )

    done.assert_outcomes(passed=3)
    assert not (tests.path / ".local").exists(), "the user's own ledger was not touched"


def test_an_app_that_leaks_fails_by_name(tests: pytest.Pytester) -> None:
    """Whatever the app did with its broker, the report names the machine."""
    done = run(
        tests,
        """
import app

@pytest.mark.gpubroker(lambda cloud: cloud.release_does_nothing(until=float("inf")))
def test_render():
    app.render()
""",
        "--gpubroker-no-wait",
    )

    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["test_render: scripted still bills for scripted-1 *"])


def test_a_pool_that_an_app_keeps_may_be_closed_by_a_fixture(tests: pytest.Pytester) -> None:
    """Its idle machines are nobody's fault; one that is still borrowed is."""
    done = run(
        tests,
        """
from contextlib import ExitStack
import app

@pytest.fixture
def pool(gpubroker_no_wait):
    with app.broker.pool(name="kept") as opened:
        yield opened

def test_idle(pool, gpubroker_cloud):
    assert pool.run(["x"]).ok
    assert pool.run(["y"]).ok
    assert len(gpubroker_cloud.machines) == 1

def test_again(pool):
    assert pool.run(["x"]).ok

def test_borrowed(pool):
    global kept
    kept = pool.machine()
    kept.__enter__()
""",
    )

    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["test_borrowed: nobody left the lease lease-*"])


def test_a_thread_that_outlives_its_test_is_named(tests: pytest.Pytester) -> None:
    """The run does not hang, and the next test is well."""
    done = run(
        tests,
        """
import threading
from concurrent.futures import CancelledError
import app

@pytest.mark.gpubroker("no capacity")
def test_it(gpubroker_clouds):
    def render():
        with pytest.raises((CancelledError, BrokerError)):
            app.broker.run(["x"], policy=Policy(wait=1e9))
    threading.Thread(target=render, daemon=True).start()
    while not gpubroker_clouds.calls_under_way:
        pass

def test_next():
    assert app.render().ok
""",
        "--gpubroker-no-wait",
    )

    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["test_it: a thread was still waiting for *, which was cut off; *"])


def test_real_time_is_warned_of(tests: pytest.Pytester) -> None:
    """An app that starts an event loop of its own waits, and a test is told how not to."""
    done = run(
        tests,
        """
import anyio

async def render():
    async with AsyncBroker(budget=1, sweep=False, close_wait=0):
        pass

@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_real(gpubroker_no_wait, loop):
    with pytest.warns(RuntimeWarning, match="in real time.*run_virtual"):
        anyio.run(render, backend=loop)

@pytest.mark.gpubroker
async def test_virtual(gpubroker_no_wait):
    await render()

@pytest.mark.gpubroker(loop="trio")
async def test_virtual_trio(gpubroker_no_wait):
    await render()
""",
        "-W",
        "error",
    )

    done.assert_outcomes(passed=4)


def test_stories_follow_one_another(tests: pytest.Pytester) -> None:
    """As several arguments or as a list; and a single provider needs no tuple."""
    done = run(
        tests,
        """
from gpubroker.testing import tried
WANTED = Requirements(gpu="RTX 4090")

@pytest.mark.gpubroker("sold out", lambda cloud: cloud.job_exits(3))
def test_arguments(gpubroker_broker):
    result = gpubroker_broker.run(["x"], WANTED)
    assert tried(result.record) == ["scripted: capacity", "scripted: won"]
    assert result.exit_code == 3

@pytest.mark.gpubroker({"near": ["sold out", "job fails"]}, {"far": "no capacity"})
def test_lists(gpubroker_broker, gpubroker_clouds):
    assert list(gpubroker_clouds) == ["near", "far"]
    assert gpubroker_broker.run(["x"], WANTED).exit_code == 1

@pytest.mark.gpubroker(providers="near")
def test_one_name(gpubroker_clouds):
    assert list(gpubroker_clouds) == ["near"]

@pytest.mark.gpubroker("job fails", providers=["near", "far"])
def test_names(gpubroker_broker, gpubroker_clouds):
    assert gpubroker_broker.run(["x"], WANTED).exit_code == 1
    assert list(gpubroker_clouds) == ["near", "far"]
""",
    )

    done.assert_outcomes(passed=4)


def test_an_app_that_would_rent_elsewhere_is_stopped(tests: pytest.Pytester) -> None:
    """A test with clouds, without what puts them in the place of the app's providers."""
    done = run(
        tests,
        """
import app

def test_it(gpubroker_cloud):
    app.render()

def test_hidden(gpubroker_cloud):
    with pytest.raises(Exception):
        app.render()
""",
    )

    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(
        [
            "E *a broker was opened outside of this test's clouds: *gpubroker_no_wait*",
            "test_hidden: a broker was opened outside of this test's clouds: *",
        ]
    )


def test_a_failure_is_reported_with_what_it_left(tests: pytest.Pytester) -> None:
    """A test that fails and leaks says both; one that is skipped says nothing."""
    done = run(
        tests,
        """
@pytest.mark.gpubroker(lambda cloud: cloud.release_does_nothing(until=float("inf")))
def test_it(gpubroker_broker):
    gpubroker_broker.run(["x"])
    assert 1 == 2

@pytest.mark.gpubroker("no boot")
def test_skipped(gpubroker_broker):
    pytest.skip("not now")
""",
    )

    done.assert_outcomes(failed=1, skipped=1)
    done.stdout.fnmatch_lines(
        ["E *assert 1 == 2", "*gpubroker*", "scripted still bills for scripted-1 *"]
    )
    assert "never_boots" not in done.stdout.str()


def test_the_sandbox_is_asked_too(tests: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that bills in the sandbox when the test is done is that test's failure."""

    class Emulator:
        def billing_now(self) -> tuple[str, ...]:
            return ("pod-1",)

    class Box:
        def __init__(self, seed: int) -> None:
            self.emulators = {"vendor": Emulator()}

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("gpubroker.testing.sandboxing.sandbox", Box)
    done = run(tests, "def test_it(gpubroker_sandbox):\n    pass")

    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["test_it: vendor still bills for pod-1"])


def test_nothing_is_loaded_before_it_is_asked_for(tmp_path: Path) -> None:
    """A run of pytest that does not use the plugin imports next to nothing of gpubroker."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    ours = [m for m in sys.modules if m.partition('.')[0] == 'gpubroker']\n"
        "    assert sorted(ours) == ['gpubroker', 'gpubroker.testing',"
        " 'gpubroker.testing.pytest_plugin']\n"
        "    assert not {'httpx', 'pydantic', 'trio', 'hypothesis'} & {*sys.modules}\n"
    )
    # Other plugins may load what they like.
    options = ["-p", "no:cacheprovider", "-p", "gpubroker.testing.pytest_plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, str(tmp_path)],
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout
