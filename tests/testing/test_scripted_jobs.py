"""The scripted cloud's jobs: time, exits, output, files, time limits and lost machines."""

from __future__ import annotations

import math
from pathlib import Path

import anyio
import pytest

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine
from gpubroker.model.money import Money
from gpubroker.model.results import JobState, Outcome
from gpubroker.testing import ScriptedCloud, ScriptedPlugin

from .conftest import MakeTransfer, Rent

pytestmark = pytest.mark.anyio


async def test_untold_a_job_succeeds_at_once(
    plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """Without a story a job exits with 0 after no time, and prints nothing."""
    machine, job = await rent(), Job("true")
    start = anyio.current_time()
    way = transfer(job, "j1")

    outcome = await plugin.run(machine, job, way.io)

    assert outcome == Outcome(state=JobState.EXITED, exit_code=0)
    assert (anyio.current_time(), way.output) == (start, [])


async def test_a_told_job_takes_its_time_prints_writes_and_exits(
    cloud: ScriptedCloud,
    plugin: ScriptedPlugin,
    rent: Rent,
    transfer: MakeTransfer,
    results: Path,
) -> None:
    """The verbs for one job add up: time, exit code, output and files."""
    cloud.job_takes(60)
    cloud.job_exits(3)
    cloud.job_prints(b"seed 42\n", b"warning\n")
    cloud.job_writes({"out.txt": b"hello", "left behind.txt": b"not wanted"})
    machine = await rent()
    job = Job("work", outputs=["out.txt"], output_dir=results)
    way = transfer(job, "j1")
    start = anyio.current_time()

    outcome = await plugin.run(machine, job, way.io)

    assert outcome == Outcome(state=JobState.EXITED, exit_code=3)
    assert anyio.current_time() == start + 60
    assert way.output == [("stdout", b"seed 42\n"), ("stderr", b"warning\n")]
    assert list(way.files()) == ["out.txt"]
    assert (results / "out.txt").read_bytes() == b"hello"
    cloud.assert_script_used()


async def test_jobs_are_told_one_after_the_other(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """Each whole job that was told is for one run, in order; then jobs succeed again."""
    cloud.job(seconds=5, exit_code=1)
    cloud.job(stdout=b"second")
    machine, job = await rent(), Job("work")

    ways = [transfer(job, f"j{number}") for number in range(3)]
    outcomes = [await plugin.run(machine, job, way.io) for way in ways]

    assert [outcome.exit_code for outcome in outcomes] == [1, 0, 0]
    assert [way.output for way in ways] == [[], [("stdout", b"second")], []]
    assert [(run.job_id, run.ended_at) for run in cloud.runs] == [
        (f"j{number}", cloud.now()) for number in range(3)
    ]


async def test_output_beyond_the_limit_is_counted_and_dropped(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """Only the job's limit of each stream comes back; the rest is counted."""
    cloud.job_prints(b"123456", b"12345")
    machine, job = await rent(), Job("work", output_limit=4)
    way = transfer(job, "j1")

    outcome = await plugin.run(machine, job, way.io)

    assert way.output == [("stdout", b"1234"), ("stderr", b"1234")]
    assert outcome.dropped == 3


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["a.png", "deep/b.png"]),
        ("**/*.png", ["a.png", "deep/b.png"]),
        ("deep", ["deep/b.png", "deep/er/c.txt"]),
        ("deep/*.png", ["deep/b.png"]),
        ("A.png", []),
        ("*.jpg", []),
    ],
)
async def test_outputs_are_wanted_by_pattern(
    cloud: ScriptedCloud,
    plugin: ScriptedPlugin,
    rent: Rent,
    transfer: MakeTransfer,
    results: Path,
    pattern: str,
    found: list[str],
) -> None:
    """A pattern brings back every file it fits; one that fits none is reported missing."""
    cloud.job_writes({"a.png": b"a", "deep/b.png": b"b", "deep/er/c.txt": b"c"})
    machine = await rent()
    job = Job("work", outputs=[pattern], output_dir=results)
    way = transfer(job, "j1")

    await plugin.run(machine, job, way.io)

    assert sorted(way.files()) == found
    assert way.io.missing == ([] if found else [pattern])


async def test_a_time_limit_ends_the_job_and_keeps_what_it_wrote(
    cloud: ScriptedCloud,
    plugin: ScriptedPlugin,
    rent: Rent,
    transfer: MakeTransfer,
    results: Path,
) -> None:
    """A job that would run for ever is ended at its limit, with its files brought back."""
    cloud.job(seconds=math.inf, writes={"part": b"half"})
    machine = await rent()
    job = Job("work", timeout=30, outputs=["part", "whole"], output_dir=results)
    way = transfer(job, "j1")
    start = anyio.current_time()

    outcome = await plugin.run(machine, job, way.io)

    assert outcome == Outcome(state=JobState.TIMED_OUT)
    assert anyio.current_time() == start + 30
    assert (list(way.files()), way.io.missing) == (["part"], ["whole"])


async def test_a_job_that_ends_at_its_limit_has_ended(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """Running exactly as long as allowed is not too long."""
    cloud.job_takes(30)
    machine, job = await rent(), Job("work", timeout=30)

    outcome = await plugin.run(machine, job, transfer(job, "j1").io)

    assert outcome.state is JobState.EXITED


async def test_a_job_may_not_even_start(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """A command that cannot be started says why, and leaves the next job's story alone."""
    cloud.job_fails_to_start("no such file: wrok")
    cloud.job_exits(7)
    machine, job = await rent(), Job("wrok")

    first = await plugin.run(machine, job, transfer(job, "j1").io)
    second = await plugin.run(machine, job, transfer(job, "j2").io)

    assert first == Outcome(state=JobState.NOT_STARTED, message="no such file: wrok")
    assert second.exit_code == 7


async def test_set_up_has_a_story_of_its_own(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """A run in the machine's home folder is set-up, and uses up nothing told for jobs."""
    cloud.job_exits(9)
    cloud.setup_takes(120)
    cloud.setup_exits(1)
    machine, job = await rent(), Job("install")
    start = anyio.current_time()

    setup = await plugin.run(machine, job, transfer(job, "s", purpose="setup").io)

    assert (setup.exit_code, anyio.current_time()) == (1, start + 120)
    assert (await plugin.run(machine, job, transfer(job, "j").io)).exit_code == 9
    assert [run.in_home for run in cloud.runs] == [True, False]


async def test_a_job_sees_its_whole_environment_and_no_repr_shows_it(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """Secrets arrive with the job, on record for tests but not in what is printed."""
    machine, job = await rent(), Job("work", env={"A": "1"}, secrets={"TOKEN": "s3cret"})

    await plugin.run(machine, job, transfer(job, "j1").io)

    assert cloud.runs[0].env == {"A": "1", "TOKEN": "s3cret"}
    assert "s3cret" not in repr(cloud.runs)


async def test_a_machine_that_vanishes_loses_its_job(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """The machine goes at the told second of the run: gone, unbilled, and the job lost."""
    cloud.job_takes(100)
    cloud.machine_vanishes(after=40)
    machine, job = await rent(), Job("work")
    start = anyio.current_time()

    with pytest.raises(ProviderError, match="went away") as caught:
        await plugin.run(machine, job, transfer(job, "j1").io)

    assert (caught.value.kind, caught.value.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)
    assert anyio.current_time() == start + 40
    assert await plugin.inventory() == []
    await anyio.sleep(100)
    assert cloud.billed == Money("0.0044")
    assert cloud.runs[0].outcome is None


async def test_a_preemption_loses_the_job_on_the_machine(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """ "Preempt after 90 s": the job is lost at that moment, the host not to blame."""
    cloud.preempt_after(90)
    cloud.job_takes(3600)
    machine, job = await rent(), Job("work")
    start = anyio.current_time()

    with pytest.raises(ProviderError, match="preempted") as caught:
        await plugin.run(machine, job, transfer(job, "j1").io)

    assert caught.value.scope is Scope.OFFER
    assert anyio.current_time() == start + 90


async def test_a_destroy_from_elsewhere_ends_the_job(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """A job is lost at the moment at which somebody destroys its machine."""
    cloud.job_takes(math.inf)
    machine, job = await rent(), Job("work")
    start = anyio.current_time()

    async def destroy_later() -> None:
        await anyio.sleep(25)
        await plugin.release(machine)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(destroy_later)
        with pytest.raises(ProviderError, match="went away"):
            await plugin.run(machine, job, transfer(job, "j1").io)

    assert anyio.current_time() == start + 25


async def test_a_cancelled_job_is_over(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """When the caller leaves, the job has ended and another may start."""
    cloud.job_takes(1000)
    machine, job = await rent(), Job("work")

    with anyio.move_on_after(10):
        await plugin.run(machine, job, transfer(job, "j1").io)

    assert cloud.runs[0].ended_at == cloud.now()
    await plugin.run(machine, job, transfer(job, "j2").io)
    cloud.assert_contract_kept()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b"])
async def test_a_hostile_machine_can_be_played(
    cloud: ScriptedCloud,
    plugin: ScriptedPlugin,
    rent: Rent,
    transfer: MakeTransfer,
    results: Path,
    name: str,
) -> None:
    """A machine that sends what was not asked for gets as far as the receiver lets it."""
    cloud.machine_sends({name: b"pwned"})
    machine, job = await rent(), Job("work", output_dir=results)

    with pytest.raises(ProviderError) as caught:
        await plugin.run(machine, job, transfer(job, "j1").io)

    assert caught.value.kind is ErrorKind.HOST_BROKEN


async def test_a_run_on_no_machine_fails(plugin: ScriptedPlugin, transfer: MakeTransfer) -> None:
    """A job sent to a machine that does not exist is told so."""
    job = Job("work")

    with pytest.raises(ProviderError) as caught:
        await plugin.run(Machine(id="none"), job, transfer(job, "j1").io)

    assert caught.value.kind is ErrorKind.HOST_BROKEN


async def test_breaches_of_the_contract_are_noticed(
    cloud: ScriptedCloud, plugin: ScriptedPlugin, rent: Rent, transfer: MakeTransfer
) -> None:
    """A job on a machine that boots, one sent again, and two at once are each named."""
    cloud.boot_takes(10)
    cloud.job_takes(5, times=3)
    machine, job = await rent(), Job("work")
    with pytest.raises(ProviderError):
        await plugin.run(machine, job, transfer(job, "early").io)
    await anyio.sleep(10)
    await plugin.run(machine, job, transfer(job, "again").io)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plugin.run, machine, job, transfer(job, "again").io)
        tasks.start_soon(plugin.run, machine, job, transfer(job, "other").io)

    with pytest.raises(AssertionError) as caught:
        cloud.assert_contract_kept()
    for breach in ("early was sent", "again was started again", "two jobs at once"):
        assert breach in str(caught.value)
