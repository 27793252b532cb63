"""A machine in hand: many jobs, set-up, ends of every kind, and what happens without a broker."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from gpubroker import Event, EventKind, Job, JobState, Money, Requirements
from gpubroker.lifecycle import link
from gpubroker.testing.emulation.keeper import processes_of
from gpubroker_vast import onstart
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker
from .watching import QUICK, by_hand, sent, until

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")

#: What takes long is shown on one event loop, and kinds of one thing on one each.
one_loop = pytest.mark.parametrize("anyio_backend", ["trio"])


def home(cloud: VastEmulator) -> Path:
    """The home folder of the only instance that there is."""
    (row,) = cloud.instances()
    return cloud.folder(row["id"]) / "home"


def alive(pids: bytes) -> list[int]:
    """Which of some processes run, zombies left out."""
    found: list[int] = []
    for pid in map(int, pids.split()):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


class TestJobs:
    async def test_share_a_machine_that_is_set_up_once(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Set-up runs in the home folder, before the first job; each job has a folder of its own."""
        wanted = Requirements(gpu="RTX 4090", setup="pwd >>set-up; echo 1 >>times")

        async with broker_on(QUICK) as broker, broker.lease(wanted) as lease:
            results = [
                await lease.run(Job(["sh", "-c", f"cat ~/times; pwd; echo {n} >mine; ls"]))
                for n in range(3)
            ]
            where = (home(cloud) / "set-up").read_text().strip()
            assert where == str(home(cloud))

        folders = {result.text.splitlines()[1] for result in results}
        assert len(folders) == 3
        assert where not in folders
        assert all(result.text.splitlines()[0] == "1" for result in results)
        assert all(result.text.splitlines()[2:] == ["mine"] for result in results)
        assert len(sent(cloud, "create")) == 1
        assert cloud.billing_now() == ()

    @one_loop
    async def test_that_run_out_of_time_leave_nothing_running(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """The machine ends the job and what it started by itself, and takes the next one."""
        script = "(trap '' TERM; sleep 60 & sleep 61) & echo $!; sleep 62 & echo $! $$; wait"

        async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
            result = await lease.run(Job(script, timeout=0.5))
            left = alive(result.stdout)
            again = await lease.run(["echo", "next"])

        assert result.state is JobState.TIMED_OUT
        assert len(result.stdout.split()) == 3
        assert left == []
        assert again.stdout == b"next\n"

    async def test_have_secrets_on_no_disk(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """They are in the job's environment, and nowhere else: no file, no command line, no request."""
        secret = "s3cret-value-of-a-token"
        script = 'echo "$TOKEN" | wc -c; echo $$; cat >/dev/null <"$GATE"'
        seen: list[bytes] = []

        async with broker_on(QUICK) as broker, broker.lease(A_4090, secrets=True) as lease:
            gate = home(cloud) / "gate"
            os.mkfifo(gate)
            job = Job(script, secrets={"TOKEN": secret}, env={"GATE": str(gate)}, timeout=30)

            async def look() -> None:
                await until(lambda: b"".join(seen).count(b"\n") == 2)
                machine = home(cloud).parent
                for pid in processes_of({str(machine)}):
                    assert secret not in Path(f"/proc/{pid}/cmdline").read_text()
                for path in machine.rglob("*"):
                    if path.is_file():
                        assert secret.encode() not in path.read_bytes(), path
                with gate.open("w"):
                    pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look)
                await lease.run(job, on_output=lambda _, data: seen.append(data))

        assert b"".join(seen).split()[0] == b"%d" % (len(secret) + 1)
        assert secret not in repr(cloud.requests)


class TestManyFiles:
    @pytest.fixture
    def cloud(self) -> Iterator[VastEmulator]:
        """A cloud whose machines have the system's own SSH server, where that is installed."""
        with VastEmulator(seed=1, boot=0.05, vanishing=0.05) as emulator:
            yield emulator

    @one_loop
    async def test_come_back_as_they_were_sent(
        self, cloud: VastEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """5,000 small files and one of 200 MB, there and back."""
        random, out = Random(1), tmp_path / "out"
        files = {
            f"in/{number % 50}/file {number}.bin": random.randbytes(number % 3000)
            for number in range(5000)
        }
        files["in/large.bin"] = random.randbytes(1_000_000) * 200
        job = Job("mv in back", files=files, outputs="back", output_dir=out, timeout=120)

        with anyio.fail_after(120):
            async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
                result = (await lease.run(job)).check()

        expected = {
            f"back/{name.removeprefix('in/')}": hashlib.sha256(data).hexdigest()
            for name, data in files.items()
        }
        assert {name: file.sha256 for name, file in result.files.items()} == expected
        for name in ("back/large.bin", "back/7/file 4957.bin"):
            assert hashlib.sha256((out / name).read_bytes()).hexdigest() == expected[name]
        assert cloud.billing_now() == ()


class TestTheEnd:
    async def test_comes_when_results_are_on_the_disk(
        self, cloud: VastEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """The machine is asked to be destroyed when its outputs are in place, and not before."""
        out = tmp_path / "out" / "result"
        there: list[tuple[bool, int]] = []

        def note(event: Event) -> None:
            if event.kind is EventKind.RELEASING:
                there.append((out.is_file(), len(sent(cloud, "destroy"))))

        async with broker_on(QUICK, on_event=note) as broker:
            job = Job("echo kept >result", outputs="result", output_dir=out.parent)
            await broker.run(job, A_4090)

        assert there == [(True, 0)]
        (destroy,) = sent(cloud, "destroy")
        assert out.stat().st_mtime < destroy.at
        assert out.read_text() == "kept\n"

    async def test_by_cancelling_ends_the_job_and_the_machine(
        self, cloud: VastEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """The job is asked to end while its machine is still there; then that is destroyed."""
        told = tmp_path / "told"
        script = f"trap 'echo told >{told}; exit' TERM; echo $$; while :; do sleep 0.05; done"
        output: list[bytes] = []

        async with broker_on(QUICK) as broker:
            with anyio.CancelScope() as scope:
                async with broker.lease(A_4090) as lease:

                    def leave(_: str, data: bytes) -> None:
                        output.append(data)
                        scope.cancel()

                    await lease.run(Job(script, timeout=60), on_output=leave)
            assert scope.cancelled_caught
            assert told.is_file()
            (row,) = await broker.leases(open_only=False)
            await broker.wait_released(row.id)
            assert cloud.instances() == []

        assert alive(b"".join(output)) == []
        assert row.release_reason.startswith("left by")
        assert cloud.billing_now() == ()

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_by_a_tasks_own_cancel_is_no_different(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """``task.cancel()`` of asyncio, twice: the machine goes all the same."""
        begun = anyio.Event()

        async with broker_on(QUICK) as broker:

            async def work() -> None:
                job = Job("echo begun; sleep 60", timeout=60)
                await broker.run(job, A_4090, on_output=lambda _, data: begun.set())

            task = asyncio.ensure_future(work())
            await begun.wait()
            task.cancel()
            await anyio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (row,) = await broker.leases(open_only=False)
            await broker.wait_released(row.id)

        assert cloud.instances() == []
        assert cloud.billing_now() == ()


SwitchMaker = Callable[[], None]


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> SwitchMaker:
    """Has machines that are rented from now on look often at whether they should end."""
    real = onstart.script

    def change() -> None:
        def script(**given: Any) -> str:
            return real(**given, pause=0.1)

        monkeypatch.setattr(onstart, "script", script)

    return change


class TestWithoutABroker:
    """A machine that nobody watches over ends itself, with a key that is good for itself alone."""

    async def test_signs_of_life_are_given(
        self, cloud: VastEmulator, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As long as a lease is held, also while no job runs, the machine hears of its broker."""
        monkeypatch.setattr(link, "HEARTBEAT", 0.1)

        async with broker_on(QUICK) as broker, broker.lease(A_4090):
            beat = home(cloud) / ".gpubroker" / "heartbeat"
            assert beat.is_file()
            os.utime(beat, (1, 1))
            await until(lambda: beat.stat().st_mtime > time.time() - 60)

    @pytest.mark.parametrize(
        ("anyio_backend", "ending"), [("asyncio", "silence"), ("trio", "deadline")]
    )
    async def test_it_destroys_itself(
        self, cloud: VastEmulator, broker_on: MakeBroker, switch: SwitchMaker, ending: str
    ) -> None:
        """When no sign of life came for too long, or its time, which no restart renews, is up."""
        switch()

        async with broker_on(QUICK, sweep=False) as broker, broker.lease(A_4090) as lease:
            folder = home(cloud).parent
            state = folder / "home" / ".gpubroker"
            await until((state / "heartbeat").is_file)
            await until((state / "deadline").is_file)
            assert cloud.key not in "".join(
                path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()
            )
            if ending == "silence":
                os.utime(state / "heartbeat", (1, 1))
            else:
                (state / "deadline").write_text(f"{int(time.time())}\n")
                await by_hand(cloud, "PUT", f"/api/v0/instances/reboot/{folder.name}/")
            await until(lambda: cloud.instances() == [])
            assert cloud.billing_now() == ()
            assert lease.release_state == "held"
            (destroy,) = sent(cloud, "destroy")

        assert destroy.parameters == {"id": folder.name}
        assert destroy.status == 200
        assert cloud.charges()[folder.name] > Money(0)
