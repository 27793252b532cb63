"""Real processes that share a pool on this machine: they take turns, and none leaves anything."""

from __future__ import annotations

import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpubroker import Broker, Job, Result, fixed

from .conftest import Start
from .test_processes import assert_all_gone, processes_of

pytestmark = pytest.mark.usefixtures("own_settings")

#: Runs a job for each line that it is told, and answers with the lease that it ran on.
WORKER = """
import sys
from gpubroker import Broker, Job, Result, fixed
with Broker() as broker, broker.pool(name="images", keep_warm=fixed({kept})) as pool:
    print("open", flush=True)
    for line in sys.stdin:
        result = pool.run("cat $HOME/count; echo x >> $HOME/count").check()
        print(result.lease_id, len(result.text.split()), flush=True)
"""


def ask(worker: subprocess.Popen[str]) -> tuple[str, int]:
    """Have a worker run a job: on which lease, and how many ran there before."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    lease, count = worker.stdout.readline().split()
    return lease, int(count)


def opened(start: Start, kept: float = 60) -> subprocess.Popen[str]:
    """A worker whose pool is open."""
    worker = start(WORKER.format(kept=kept))
    assert worker.stdout is not None
    assert worker.stdout.readline() == "open\n"
    return worker


def test_two_processes_take_turns_on_one_machine(start: Start, tmp_path: Path) -> None:
    """As the workers of one web app do; at the end nothing is left."""
    one, two = opened(start), opened(start)

    asked = [ask(worker) for worker in (one, two, one, one, two)]
    for worker in (one, two):
        assert worker.communicate(timeout=60)[1] == ""

    assert len({lease for lease, _ in asked}) == 1
    assert [count for _, count in asked] == [0, 1, 2, 3, 4]
    assert_all_gone(tmp_path)


@pytest.mark.deep
def test_they_take_turns_through_a_database_too(
    start: Start,
    environment: dict[str, str],
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is needed to take a machine lies with this user, on this host."""
    environment |= {"GPUBROKER_LEDGER": database, "GPUBROKER_MARK_KEY": "0123456789abcdef" * 4}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    one, two = opened(start), opened(start)

    asked = [ask(worker) for worker in (one, two, two, one)]
    for worker in (one, two):
        assert worker.communicate(timeout=60)[1] == ""

    assert len({lease for lease, _ in asked}) == 1
    assert [count for _, count in asked] == [0, 1, 2, 3]
    assert_all_gone(tmp_path)


def test_the_idle_machine_of_a_killed_process_is_taken_by_another(
    start: Start, tmp_path: Path
) -> None:
    """No cold start is lost with the process that was killed between two jobs."""
    one, two = opened(start), opened(start)
    lease, _ = ask(one)

    one.send_signal(signal.SIGKILL)
    one.wait()
    taken = ask(two)
    two.communicate(timeout=60)

    assert taken == (lease, 1)
    assert_all_gone(tmp_path)


@pytest.mark.deep
def test_an_idle_machine_of_a_killed_process_ends_with_its_idle_limit(
    start: Start, tmp_path: Path
) -> None:
    """A sweep before leaves it to who shares the pool; the first one after gives it up."""
    one = opened(start, kept=6)
    lease, _ = ask(one)
    with Broker(sweep=False) as broker:
        (row,) = broker.leases()
        while not row.parked:
            (row,) = broker.leases()
        one.send_signal(signal.SIGKILL)
        one.wait()

        before = broker.sweep()
        assert row.idle_until is not None
        time.sleep(max(0.0, row.idle_until - time.time()))
        after = broker.sweep()
        broker.wait_released(lease, timeout=20)

    assert [swept.started for swept in before] == [()]
    assert [swept.started for swept in after] == [(lease,)]
    assert list(processes_of(tmp_path)) == []


def test_a_pool_is_used_by_synchronous_code(tmp_path: Path) -> None:
    """It borrows, runs and tells as the other one does."""
    with Broker() as broker, broker.pool(keep_warm=fixed(60)) as pool:
        with pool.machine() as machine:
            inside = machine.run(["echo", "hello"])
            state = pool.status()
        outside = pool.run(["true"])

    assert inside.text == "hello\n"
    assert inside.lease_id == outside.lease_id == machine.lease.id
    assert (state.busy, state.queued) == (1, 0)
    assert_all_gone(tmp_path)


@pytest.mark.deep
def test_jobs_side_by_side_lose_none_of_their_outputs(tmp_path: Path) -> None:
    """Though a machine forgets jobs that have ended when the next one starts."""

    with (
        Broker() as broker,
        broker.pool(jobs_per_machine=4) as pool,
        ThreadPoolExecutor(8) as threads,
    ):

        def run(number: int) -> Result:
            script = f"head -c 300000 /dev/urandom > {number}.bin"
            return pool.run(Job(script, outputs=f"{number}.bin", output_dir=tmp_path / "out"))

        results = list(threads.map(run, range(16)))

    assert [result.failure for result in results] == [""] * 16
    assert len({result.lease_id for result in results}) == 1
    assert len(list((tmp_path / "out").iterdir())) == 16
    assert_all_gone(tmp_path)


SERVED = """
import sys, urllib.request
from gpubroker import Broker, Service, fixed
service = Service([sys.executable, "-m", "http.server", "{{port}}", "--bind", "127.0.0.1"], 0)
with Broker() as broker, broker.pool(
    name="images", keep_warm=fixed(60), activity="use", service=service
) as pool:
    print("open", flush=True)
    for line in sys.stdin:
        with pool.machine() as machine:
            status = urllib.request.urlopen(machine.url).status
        print(machine.lease.id, status, flush=True)
"""


@pytest.mark.deep
def test_a_service_goes_on_when_its_machine_changes_hands(start: Start, tmp_path: Path) -> None:
    """It is started once; whoever takes the machine reaches the same server, also after a kill."""
    one, two = start(SERVED.format()), start(SERVED.format())
    for worker in (one, two):
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"

    asked = [ask(worker) for worker in (one, two, one)]
    servers = [pid for pid in processes_of(tmp_path) if is_server(pid)]
    one.send_signal(signal.SIGKILL)
    one.wait()
    asked.append(ask(two))
    after = [pid for pid in processes_of(tmp_path) if is_server(pid)]
    assert two.communicate(timeout=60)[1] == ""

    assert len({lease for lease, _ in asked}) == 1
    assert {status for _, status in asked} == {200}
    assert servers == after
    assert len(servers) == 1
    assert_all_gone(tmp_path)


def is_server(pid: int) -> bool:
    """Whether a process is the HTTP server itself."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[1:3] == [b"-m", b"http.server"]


BATCH = """
from gpubroker import Broker, Job
job = Job("echo {{}} >> {folder}/begun; sleep 0.3; echo {{}} > out", outputs="out", output_dir="{folder}/{{n}}")
with Broker() as broker:
    for index, result in broker.map(job, "abcdef", name="letters"):
        print(index, result.failure, flush=True)
"""


@pytest.mark.deep
def test_a_batch_whose_program_was_killed_goes_on(start: Start, tmp_path: Path) -> None:
    """What was finished is given again; what ran, and what was left, is done."""
    program = BATCH.format(folder=tmp_path)
    first = start(program)
    assert first.stdout is not None
    seen = [first.stdout.readline() for _ in range(3)]

    first.send_signal(signal.SIGKILL)
    first.wait()
    output, errors = start(program).communicate(timeout=90)

    begun = (tmp_path / "begun").read_text().split()
    assert errors == ""
    assert [line.split() for line in output.splitlines()] == [[str(n)] for n in range(6)]
    assert [line.split() for line in seen] == [["0"], ["1"], ["2"]]
    assert [begun.count(letter) for letter in "abc"] == [1, 1, 1]
    assert (tmp_path / "5" / "out").read_text() == "f\n"
    assert_all_gone(tmp_path)
