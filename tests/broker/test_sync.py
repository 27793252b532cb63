"""The broker for synchronous code."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gpubroker import (
    AsyncBroker,
    AsyncLease,
    AsyncPool,
    AsyncPoolMachine,
    AsyncServer,
    Broker,
    BrokerClosed,
    Job,
    Lease,
    Pool,
    PoolMachine,
    ReleaseState,
    Server,
)

from .conftest import Start

pytestmark = pytest.mark.usefixtures("own_settings")

#: What only one of the two can have.
ONLY_ASYNC = {"set_up", "go_on", "final", "hurry", "in_use", "charged", "started_on"}
ONLY_SYNC = {"open", "close"}
COLOURS = [
    (Broker, AsyncBroker),
    (Lease, AsyncLease),
    (Server, AsyncServer),
    (Pool, AsyncPool),
    (PoolMachine, AsyncPoolMachine),
]


def public(cls: type) -> dict[str, Any]:
    """The public members of a class, by name."""
    return {name: value for name, value in vars(cls).items() if not name.startswith("_")}


@pytest.mark.parametrize(("sync", "asynchronous"), COLOURS)
def test_both_colours_have_the_same_names(sync: type, asynchronous: type) -> None:
    """Whatever one class offers, the other one offers under the same name."""
    theirs = set(public(asynchronous)) - ONLY_ASYNC
    ours = set(public(sync)) - ONLY_SYNC

    assert theirs - {"settings"} == ours - {"settings"}


@pytest.mark.parametrize(("sync", "asynchronous"), COLOURS)
def test_both_colours_have_the_same_signatures(sync: type, asynchronous: type) -> None:
    """Every method takes the same arguments, with the same defaults, in both."""
    theirs = public(asynchronous)
    for name, value in public(sync).items():
        if not inspect.isfunction(value) or name in ONLY_SYNC:
            continue
        expected = inspect.signature(theirs[name])
        assert inspect.signature(value).parameters == expected.parameters, name
    if sync is Broker:
        constructors = [inspect.signature(cls) for cls in (sync, asynchronous)]
        assert constructors[0].parameters == constructors[1].parameters


def test_a_job_runs_and_its_files_come_back(tmp_path: Path) -> None:
    """The main job, synchronously, on this very machine."""
    job = Job(
        "tr a-z A-Z < in.txt > out.txt; echo done",
        files={"in.txt": b"shout"},
        outputs=["out.txt"],
        output_dir=tmp_path,
    )

    with Broker() as broker:
        result = broker.run(job).check()
        state = broker.wait_released(result.lease_id)

    assert result.text == "done\n"
    assert (tmp_path / "out.txt").read_bytes() == b"SHOUT"
    assert state is ReleaseState.PROVEN


def test_a_lease_serves_several_jobs() -> None:
    """A lease is a `with` block, and jobs on it share a home folder."""
    with Broker() as broker, broker.lease() as lease:
        lease.run("echo 42 > $HOME/answer").check()
        result = lease.run("cat $HOME/answer")

    assert result.text == "42\n"
    assert repr(lease).startswith("<Lease lease-")


def test_it_opens_itself_and_closing_twice_does_nothing() -> None:
    """An app may make a broker at import and use it later; a closed one says that it is."""
    broker = Broker()
    assert broker.run(["true"]).ok

    broker.close()
    broker.close()

    with pytest.raises(BrokerClosed, match="closed; make a new one"):
        broker.run(["true"])


def test_several_threads_share_one_broker() -> None:
    """Eight threads run jobs on one broker, each with its own result."""
    with Broker() as broker, ThreadPoolExecutor(8) as threads:

        def echo(n: int) -> str:
            return broker.run(f"echo {n}").text

        results = list(threads.map(echo, range(16)))

    assert results == [f"{n}\n" for n in range(16)]


def test_it_works_inside_a_running_event_loop() -> None:
    """Synchronous use from a coroutine (a notebook, say) works; it blocks that loop meanwhile."""

    async def cell() -> str:
        with Broker() as broker:
            return broker.run("echo inside").text

    assert asyncio.run(cell()) == "inside\n"


def test_output_is_handed_on_live() -> None:
    """`on_output` sees each stream's bytes while the job runs."""
    seen: list[tuple[str, bytes]] = []

    def note(stream: str, data: bytes) -> None:
        seen.append((stream, data))

    with Broker() as broker:
        broker.run("echo a; echo b >&2", on_output=note)

    assert sorted(seen) == [("stderr", b"b\n"), ("stdout", b"a\n")]


def test_an_open_broker_does_not_keep_the_interpreter_from_exiting(start: Start) -> None:
    """A program that never closes its broker ends by itself, with what it held given up."""
    program = start(
        """
        from gpubroker import Broker
        broker = Broker()
        print(broker.run(["echo", "hi"]).text)
        lease = broker.lease().__enter__()
        """
    )

    out, err = program.communicate(timeout=30)

    assert (program.returncode, out, err) == (0, "hi\n\n", "")
    with Broker() as broker:
        assert broker.leases() == []


def test_a_forked_child_is_told_to_make_its_own(start: Start) -> None:
    """An open broker belongs to its process: the child of a fork gets one clear sentence."""
    program = start(
        """
        import os, sys
        from gpubroker import Broker, BrokerClosed
        with Broker() as broker:
            broker.run(["true"])
            child = os.fork()
            if child == 0:
                try:
                    broker.run(["true"])
                except BrokerClosed as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print(broker.run(["echo", "parent"]).text)
        """
    )

    out, err = program.communicate(timeout=30)

    assert err == ""
    assert out.splitlines()[:2] == [
        "this broker was opened before the process forked; make a new one in each child",
        "parent",
    ]


def test_a_broker_made_before_a_fork_may_be_used_after_it(start: Start) -> None:
    """Under a pre-fork server each worker opens the broker that the module made."""
    program = start(
        """
        import os
        from gpubroker import Broker
        broker = Broker()
        children = [os.fork() for _ in range(2)]
        if 0 in children:
            print(broker.run(["echo", "worker"]).text, end="", flush=True)
            broker.close()
            os._exit(0)
        for child in children:
            os.waitpid(child, 0)
        """
    )

    out, err = program.communicate(timeout=60)

    assert err == ""
    assert set(out.splitlines()) == {"worker"}


def test_an_interrupt_of_the_calling_thread_cancels_the_call(start: Start) -> None:
    """Ctrl-C in synchronous code ends the job and gives the machine up before it goes on."""
    program = start(
        """
        import os, signal, time
        from gpubroker import Broker, EventKind
        def interrupt(event):
            if event.kind is EventKind.RUNNING:
                os.kill(os.getpid(), signal.SIGINT)
        began = time.monotonic()
        try:
            with Broker(on_event=interrupt) as broker:
                broker.run(["sleep", "60"])
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - began < 20)
        with Broker() as broker:
            print([str(row.state) for row in broker.leases(open_only=False)])
        """
    )

    out, err = program.communicate(timeout=40)

    assert err == ""
    assert out.splitlines() == ["interrupted True", "['released']"]


def test_an_interrupt_while_a_lease_is_being_entered_leaves_no_machine(start: Start) -> None:
    """Ctrl-C during the boot of `with broker.lease()` gives the machine up, and closing ends."""
    program = start(
        """
        import os, signal
        from gpubroker import Broker, EventKind, Plugin, ProviderFacts, Requirements
        from gpubroker.testing import ScriptedCloud, offer
        facts = ProviderFacts(
            paid=True, visibility_horizon=0, absence_readings=1, absence_interval=0
        )
        cloud = ScriptedCloud(facts=facts, offers=[offer("RTX 4090", "0.40")])
        cloud.boot_takes(1000, progress_every=1)
        plugin = Plugin("scripted", cloud.factory, "test", given=True)
        def interrupt(event):
            if event.kind is EventKind.BOOTING and event.text == "step 1":
                os.kill(os.getpid(), signal.SIGINT)
        broker = Broker(plugins=[plugin], budget="5", on_event=interrupt)
        try:
            with broker.lease(Requirements(gpu="RTX 4090")):
                print("never")
        except KeyboardInterrupt:
            print("interrupted")
        broker.close()
        print(len(cloud.creates), len(cloud.running))
        """
    )

    out, err = program.communicate(timeout=40)

    assert err == ""
    assert out.splitlines() == ["interrupted", "1 0"]


def test_callbacks_are_called_in_the_brokers_thread() -> None:
    """Events are reported from the broker's own thread, which is said in the documentation."""
    threads: set[str] = set()
    note: Callable[[object], None] = lambda _: threads.add(threading.current_thread().name)

    with Broker(on_event=note) as broker:
        broker.run(["true"])

    assert threads == {"gpubroker"}


def test_help_describes_every_argument_of_a_broker() -> None:
    """What is meant for synchronous code is not to be looked up in a class that it never uses."""
    for name, member in vars(Broker).items():
        doc = inspect.getdoc(member) or ""
        if doc.startswith("As `AsyncBroker."):
            assert str(inspect.getdoc(getattr(AsyncBroker, name))) in doc, name
