"""How leases end: by release, by deadline, by accident; and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gpubroker import ErrorKind, Machine, MachineState, ProviderError, Requirements, Scope

if TYPE_CHECKING:
    from tests.providers.local.conftest import House

pytestmark = pytest.mark.anyio

#: A grandchild in a session of its own whose parents are gone, as daemons make themselves.
DAEMON = "(setsid sh -c 'sleep 600 & echo $! > %s' &) ; while [ ! -s %s ]; do sleep 0.01; done"


async def _daemon(house: House, provider: Any, machine: Machine, prefix: str = "") -> int:
    file = house.root / "daemon"
    script = DAEMON.replace("setsid", f"setsid {prefix}") % (file, file)
    await house.run(provider, machine, script)
    return int(file.read_text())


async def test_lease_lives_from_provision_to_release(house: House) -> None:
    """The inventory lists it with its mark in between, and never after."""
    provider = house.provider()
    before = await provider.inventory()
    machine = await house.rent(provider)
    during = await provider.inventory()
    await provider.release(machine)
    after = await provider.inventory()

    assert before == after == []
    assert [(m.id, m.mark, m.state) for m in during] == [
        (machine.id, machine.mark, MachineState.RUNNING)
    ]
    assert during[0].created_at == machine.created_at
    assert house.folders() == []


async def test_release_can_be_repeated_by_anybody(house: House) -> None:
    """Twice, at the same time, from another provider, or for what never was: all are quiet."""
    first, second = house.provider(), house.provider()
    machine = await house.rent(first)

    async with anyio.create_task_group() as group:
        group.start_soon(first.release, machine)
        group.start_soon(second.release, Machine(id=machine.id))
    await second.release(machine)
    for unknown in ("never-was", "", "../../etc", "a/b", ".new-x", "x" * 300):
        await first.release(Machine(id=unknown))

    assert await first.inventory() == []


async def test_release_kills_daemons(house: House, is_running: Any) -> None:
    """A grandchild that forked twice into its own session dies with the lease."""
    provider = house.provider()
    machine = await house.rent(provider)
    daemon = await _daemon(house, provider, machine)
    assert is_running(daemon)

    await provider.release(machine)

    assert not is_running(daemon)


async def test_release_kills_daemons_without_environment(house: House, is_running: Any) -> None:
    """As long as the runner lives, nothing can hide by clearing its environment."""
    provider = house.provider()
    machine = await house.rent(provider)
    daemon = await _daemon(house, provider, machine, "env -i")
    assert is_running(daemon)

    await provider.release(machine)

    assert not is_running(daemon)


#: Never more than a few processes, but never the same ones for long; it ends by itself.
HYDRA = """
import os, time
end = time.time() + 60
os.close(1), os.close(2)
while time.time() < end:
    if os.fork():
        os._exit(0)
    time.sleep(0.005)
"""


@pytest.mark.parametrize("runner_lives", [True, False])
async def test_release_catches_programs_that_keep_forking(
    house: House, until: Any, runner_lives: bool
) -> None:
    """They die by process group: no list of processes is ever fresh enough.

    A release may have to be asked for again, as the broker does for ever.
    """
    provider = house.provider()
    machine = await house.rent(provider)
    await house.run(provider, machine, [sys.executable, "-c", HYDRA])
    if not runner_lives:
        runner = house.runner_of(machine)
        os.kill(runner, signal.SIGKILL)
        await until(lambda: runner not in house.alive())

    with anyio.fail_after(20):
        released = False
        while not released:
            with contextlib.suppress(ProviderError):
                await provider.release(machine)
                released = True

    assert house.alive() == []


async def test_leftovers_of_a_killed_runner_are_found_and_killed(
    house: House, is_running: Any, until: Any
) -> None:
    """Without its runner, and even without its folder, a lease is present while a process is."""
    provider = house.provider()
    machine = await house.rent(provider)
    daemon = await _daemon(house, provider, machine)
    os.kill(house.runner_of(machine), signal.SIGKILL)
    await until(lambda: house.alive() == [daemon])

    found = await provider.inventory()
    (house.leases / machine.id).rename(house.root / "elsewhere")
    found_again = await provider.inventory()
    await provider.release(Machine(id=machine.id))

    assert [(m.id, m.mark, m.state) for m in found] == [
        (machine.id, machine.mark, MachineState.BROKEN)
    ]
    assert [(m.id, m.mark) for m in found_again] == [(machine.id, machine.mark)]
    assert not is_running(daemon)
    assert await provider.inventory() == []


async def test_runner_that_dies_under_a_job_is_reported(house: House) -> None:
    """Nobody knows how the job ended, so the machine counts as lost."""
    provider = house.provider()
    machine = await house.rent(provider)

    def kill_runner(*_: object) -> None:
        os.kill(house.runner_of(machine), signal.SIGKILL)

    with pytest.raises(ProviderError, match="was lost") as caught:
        await house.run(provider, machine, "echo go; sleep 600", io={"on_output": kill_runner})

    assert (caught.value.kind, caught.value.scope) == (ErrorKind.TRANSIENT, Scope.OFFER)


async def test_job_on_a_lease_that_is_gone_is_refused(house: House) -> None:
    """A released machine runs nothing."""
    provider = house.provider()
    machine = await house.rent(provider)
    await provider.release(machine)

    with pytest.raises(ProviderError, match="no lease") as caught:
        await house.run(provider, machine, "true")

    assert caught.value.kind is ErrorKind.HOST_BROKEN


async def test_release_during_a_job_ends_both(house: House) -> None:
    """The run is told that the machine was lost."""
    provider = house.provider()
    machine = await house.rent(provider)
    lost: list[str] = []

    async def run() -> None:
        try:
            await house.run(provider, machine, "sleep 600")
        except ProviderError as problem:
            lost.append(str(problem))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.sleep(0.1)
        await provider.release(machine)

    assert len(lost) == 1
    assert house.alive() == []


async def test_cancelled_run_kills_the_job_but_not_the_lease(house: House, until: Any) -> None:
    """The next job finds the machine as it should be."""
    provider = house.provider()
    machine = await house.rent(provider)
    started = anyio.Event()

    def note(*_: object) -> None:
        started.set()

    async with anyio.create_task_group() as group:
        io = {"on_output": note}
        group.start_soon(lambda: house.run(provider, machine, "echo on; sleep 600", io=io))
        await started.wait()
        group.cancel_scope.cancel()
    await until(lambda: house.alive() == [house.runner_of(machine)], seconds=5)
    ran = await house.run(provider, machine, "echo next")

    assert ran.text == "next\n"


async def test_cancelled_provision_leaves_what_the_inventory_finds(house: House) -> None:
    """Whenever the cancellation comes, the lease is listed by its mark or there is none."""
    provider = house.provider()
    offer = await house.offer(provider)
    for delay in (0.0, 0.002, 0.01):
        order = house.order()
        with anyio.move_on_after(delay):
            await provider.provision(offer, order)

        marks = [machine.mark for machine in await provider.inventory()]

        assert marks in ([], [order.mark])
        await provider.release(Machine(id=order.lease_id))


async def test_deadline_ends_the_lease_without_any_broker(house: House, until: Any) -> None:
    """The runner is its own dead-man switch."""
    provider = house.provider()
    machine = await house.rent(provider, lifetime=0.5)
    await _daemon(house, provider, machine)

    await until(lambda: house.alive() == [], seconds=5)

    # The kernel may still be about to let go of what the last process held.
    with anyio.fail_after(5):
        while await provider.inventory():
            await anyio.sleep(0.02)
    assert house.folders() == []


async def test_sigterm_to_the_runner_ends_the_lease(house: House, until: Any) -> None:
    """What people do by hand works too."""
    provider = house.provider()
    machine = await house.rent(provider)
    await _daemon(house, provider, machine)

    os.kill(house.runner_of(machine), signal.SIGTERM)

    await until(lambda: house.alive() == [])
    assert await provider.inventory() == []


BROKER = """
import sys, anyio
from tests.providers.local.conftest import House
from pathlib import Path

async def main():
    house = House(Path(sys.argv[1]))
    provider = house.provider(simulate="RTX 4090")
    machine = await house.rent(provider, **({"gpu": "RTX 4090"} if "gpu" in sys.argv else {}))
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: house.run(provider, machine, "sleep 600 & echo $$; sleep 600"))
        await anyio.sleep(0.2)
        print(machine.id, machine.mark, flush=True)

anyio.run(main)
"""


def start_broker(house: House, *words: str) -> subprocess.Popen[str]:
    """Another process with a lease and a job on it; returns once these are there."""
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", BROKER, str(house.root), *words],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_lease_of_a_killed_broker_is_found_and_released(house: House) -> None:
    """Any later broker with the same directory sees it, follows it, and can end it."""
    with start_broker(house) as broker:
        assert broker.stdout is not None
        lease_id, mark = broker.stdout.readline().split()
        broker.kill()
    provider = house.provider()

    found = await provider.inventory()
    processes_before = house.alive()
    await provider.release(found[0])

    assert [(m.id, m.mark, m.state) for m in found] == [(lease_id, mark, MachineState.RUNNING)]
    assert len(processes_before) >= 3
    assert house.alive() == []
    assert await provider.inventory() == []


async def test_card_stays_taken_while_anything_of_its_lease_lives(house: House, until: Any) -> None:
    """Across processes, after the broker and the runner were killed, until the job is gone."""
    provider = house.provider(simulate="RTX 4090")
    free = await house.offer(provider, gpu="RTX 4090")
    with start_broker(house, "gpu") as broker:
        assert broker.stdout is not None
        lease_id, _ = broker.stdout.readline().split()

        with pytest.raises(ProviderError) as while_held:
            await provider.provision(free, house.order())
        broker.kill()
    machine = Machine(id=lease_id)
    runner = house.runner_of(machine)
    os.kill(runner, signal.SIGKILL)
    await until(lambda: runner not in house.alive())

    with pytest.raises(ProviderError) as while_left:
        await provider.provision(free, house.order())
    assert await provider.quote(Requirements(gpu="RTX 4090")) == []
    await provider.release(machine)
    again = await provider.provision(free, house.order())

    for caught in (while_held, while_left):
        assert (caught.value.kind, caught.value.scope) == (ErrorKind.CAPACITY, Scope.OFFER)
    assert again.details["cards"]


async def test_folders_left_by_crashes_are_cleared(house: House) -> None:
    """A folder that was never finished goes once it is old; one being removed goes at once."""
    provider = house.provider()
    await provider.release(await house.rent(provider))
    for name in (".new-fresh", ".new-old", ".gone-x", "dead-lease"):
        (house.leases / name).mkdir()
    hour_ago = time.time() - 3600
    os.utime(house.leases / ".new-old", (hour_ago, hour_ago))

    assert await provider.inventory() == []

    assert house.folders() == [".new-fresh"]


async def test_folder_that_cannot_be_deleted_at_first_goes(house: House) -> None:
    """A job may take away the permissions of its own folders."""
    provider = house.provider()
    machine = await house.rent(provider)
    await house.run(provider, machine, "mkdir -p a/b && touch a/b/c && chmod 000 a/b a")

    await provider.release(machine)

    assert house.folders() == []


async def test_same_lease_is_made_only_once(house: House) -> None:
    """A second lease of the same id, or with an id that is no name, is refused."""
    provider = house.provider()
    offer = await house.offer(provider)
    order = house.order()
    await provider.provision(offer, order)

    with pytest.raises(ProviderError, match="already") as caught:
        await provider.provision(offer, order)

    assert caught.value.kind is ErrorKind.BAD_REQUEST
    assert len(await provider.inventory()) == 1
    assert house.folders() == [order.lease_id]


async def test_state_directory_that_cannot_be_used_is_a_clear_error(house: House) -> None:
    """A file in the way, say."""
    house.leases.write_text("")
    provider = house.provider()
    offer = await house.offer(provider)

    with pytest.raises(ProviderError, match="no lease can be made") as caught:
        await provider.provision(offer, house.order())

    assert caught.value.kind is ErrorKind.HOST_BROKEN
    house.leases.unlink()


async def test_runner_that_cannot_start_is_a_clear_error(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error has the runner's last words; nothing is left."""
    python = tmp_path / "python-broken"
    python.write_text("#!/bin/sh\necho 'no libpython here' >&2; exit 1\n")
    python.chmod(0o755)
    provider = house.provider()
    offer = await house.offer(provider)
    monkeypatch.setattr(sys, "executable", str(python))

    with pytest.raises(ProviderError, match="no libpython here") as caught:
        await provider.provision(offer, house.order())

    assert caught.value.kind is ErrorKind.HOST_BROKEN
    assert await provider.inventory() == []
    assert house.folders() == []
