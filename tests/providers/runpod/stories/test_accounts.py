"""The account: its key, where it goes and where it never does, and what it may ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gpubroker import (
    AcquireStopped,
    AsyncBroker,
    BrokerError,
    ErrorKind,
    Event,
    EventKind,
    Job,
    Money,
    NoOfferFits,
    Policy,
    Requirements,
    Retry,
    elsewhere,
    here,
)
from gpubroker.rest import Pace
from gpubroker.testing.emulation import RateWindow
from gpubroker_runpod import api
from gpubroker_runpod.emulator import RunPodEmulator

from .conftest import MakeBroker, settings_for
from .watching import QUICK, asked_for, look, sent, texts

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
HELLO = Job(["echo", "hello"], timeout=30)


def files_with(folder: Path, secret: str) -> list[str]:
    """The files in a folder that hold a secret."""
    wanted = secret.encode()
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and wanted in path.read_bytes()
    ]


def processes_under(folder: Path) -> list[tuple[bytes, bytes]]:
    """The command lines and environments of all processes started in a pod's folder."""
    found: list[tuple[bytes, bytes]] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                environment = (process / "environ").read_bytes()
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile, or is not ours
            if str(folder).encode() in environment:
                found.append((command, environment))
    return found


class TestAKeyThatIsNotGood:
    """Nothing is tried in vain with it."""

    async def test_a_wrong_key_stops_everything_at_once(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """The catalogue needs it already; it is not shown."""
        wrong = "rpa_" + "0123456789ABCDEF" * 2
        settings = settings_for(cloud, tmp_path / "ledger.db", **QUICK)
        settings = replace(settings, keys={"runpod": wrong})

        async with AsyncBroker(settings=settings, close_wait=20.0) as broker:
            with pytest.raises(BrokerError, match="invalid bearer token") as raised:
                await broker.run(HELLO, A_4090)
            swept = await look(broker)

        assert asked_for(cloud) == []
        assert (swept.complete, swept.verdicts) == (False, ())
        shown = str(raised.value) + repr(raised.value)
        assert wrong not in shown
        assert cloud.machines() == []

    async def test_without_a_key_nothing_is_asked_at_all(
        self, cloud: RunPodEmulator, tmp_path: Path
    ) -> None:
        """It says which setting is missing, and sends nothing."""
        settings = replace(settings_for(cloud, tmp_path / "ledger.db", **QUICK), keys={})

        async with AsyncBroker(settings=settings, close_wait=20.0) as broker:
            with pytest.raises(NoOfferFits, match="RUNPOD_API_KEY"):
                await broker.run(HELLO, A_4090)

        assert cloud.requests == ()

    async def test_one_that_may_only_read_is_found_out_after_a_few_creates(
        self, cloud: RunPodEmulator, tmp_path: Path
    ) -> None:
        """One refusal may be about one kind of pod; one after the other is about the key."""
        settings = settings_for(cloud, tmp_path / "ledger.db", **QUICK)
        settings = replace(settings, keys={"runpod": cloud.read_only_key})

        async with AsyncBroker(settings=settings, close_wait=20.0) as broker:
            with pytest.raises(AcquireStopped, match="access denied") as raised:
                await broker.run(HELLO, A_4090)

        kinds = [attempt.kind for attempt in raised.value.record.attempts]
        assert kinds == [ErrorKind.QUOTA, ErrorKind.QUOTA, ErrorKind.AUTH]
        assert len(asked_for(cloud)) == 3
        assert cloud.charges() == {}

    async def test_a_kind_of_pod_that_is_not_for_this_account_is_left_for_another(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """403 once: the next offer is taken."""
        cloud.faults.add("create", "forbidden")

        async with broker_on(QUICK) as broker:
            result = await broker.run(HELLO, A_4090)

        assert [attempt.kind for attempt in result.record.attempts] == [ErrorKind.QUOTA, None]
        assert result.stdout == b"hello\n"
        assert cloud.billing_now() == ()

    async def test_the_key_is_revoked_between_quote_and_create(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """The first refused create ends the request: no offer of this account is worth a try."""

        def revoke(event: Event) -> None:
            if event.kind is EventKind.ATTEMPT:
                cloud.revoke_key()

        async with broker_on(QUICK, on_event=revoke) as broker:
            with pytest.raises(AcquireStopped, match="invalid bearer token"):
                await broker.run(HELLO, A_4090)

        assert len(asked_for(cloud)) == 1
        assert cloud.charges() == {}


class TestACatalogueThatIsRefused:
    """One cloud's offers are worth having without the other's; and a pause is obeyed."""

    @pytest.mark.parametrize("fault", ["server-error", "gone-410", "edge", "garbage"])
    async def test_what_the_other_cloud_has_is_offered(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, fault: str
    ) -> None:
        """The first of two questions fails, whichever that is."""
        cloud.faults.add("gpus", fault)

        async with broker_on(QUICK) as broker:
            record = await broker.quote(A_4090)

        assert record.ranked
        assert len({offer.extra["cloud"] for offer in record.ranked}) == 1

    async def test_a_pause_that_is_asked_for_is_kept(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """429 with a time: the catalogue is read again, and not before that."""
        cloud.faults.add("gpus", "rate-limited", times=2)
        soon = Retry({ErrorKind.RATE_LIMIT: here(2, first=0.01) | elsewhere()})

        async with broker_on(QUICK) as broker:
            result = await broker.run(HELLO, A_4090, policy=Policy(retry=soon, wait=5))

        at = [request.at for request in sent(cloud, "gpus")]
        assert at[2] - at[1] > 0.95
        assert result.stdout == b"hello\n"
        assert cloud.billing_now() == ()

    async def test_an_api_that_was_retired_is_named(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """410 everywhere: nothing is rented, and it says what it looks like."""
        cloud.faults.add("*", "gone-410", times=None)
        at_once = Retry({ErrorKind.TRANSIENT: elsewhere()})

        async with broker_on(QUICK) as broker:
            with pytest.raises(NoOfferFits, match="may have been retired"):
                await broker.run(HELLO, A_4090, policy=Policy(retry=at_once))

        assert asked_for(cloud) == []


class TestWhatMayBeAsked:
    """Each answer tells how many requests are left; they are spread so that they last."""

    @pytest.mark.deep
    async def test_thirty_pods_at_once_are_never_refused(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A minute is two seconds long here, so that its requests are used up more than once."""
        cloud.set_stock(100)
        cloud.inside.world.limits.windows = (RateWindow("minute", 90, 2),)
        monkeypatch.setattr(api, "_REQUESTS", Pace("requests", 0.01))
        monkeypatch.setattr(api, "_CREATE", Pace("create", 0.01))
        options = {**QUICK, "poll_interval": "0.3", "pacing": "on"}
        outputs: list[bytes] = []

        async def rent() -> None:
            outputs.append((await broker.run(HELLO, A_4090)).stdout)

        async with broker_on(options) as broker:
            async with anyio.create_task_group() as tasks:
                for _ in range(30):
                    tasks.start_soon(rent)
            for row in await broker.leases(open_only=False):
                await broker.wait_released(row.id, timeout=15)

        assert outputs == [b"hello\n"] * 30
        assert len(cloud.requests) > 90
        assert [request for request in cloud.requests if request.status == 429] == []
        assert len(asked_for(cloud)) == len(cloud.charges()) == 30
        assert cloud.billing_now() == ()


class TestTheBalance:
    """Only the API that is about to be retired tells it, so that it may be unknown."""

    async def test_it_is_what_is_left(self, cloud: RunPodEmulator, broker_on: MakeBroker) -> None:
        """USD, after what was spent."""
        async with broker_on(QUICK) as broker:
            (status,) = [s for s in await broker.providers(balances=True) if s.name == "runpod"]

        assert status.balance == Money(100)
        assert [request.path for request in sent(cloud, "graphql")] == ["/graphql"]

    @pytest.mark.parametrize("graphql", ["gone", "restricted"])
    async def test_unknown_it_keeps_nobody_from_renting(
        self, cloud: RunPodEmulator, broker_on: MakeBroker, graphql: str
    ) -> None:
        """410, or a key without that right: it says so, and everything else works."""
        cloud.switch(graphql=graphql)

        async with broker_on(QUICK) as broker:
            (status,) = [s for s in await broker.providers(balances=True) if s.name == "runpod"]
            result = await broker.run(HELLO, A_4090)

        assert status.balance is None
        assert result.stdout == b"hello\n"
        assert cloud.billing_now() == ()


class TestTheKeyOfTheAccount:
    """Whoever has it has the account: it is in the header of each request, and nowhere else."""

    async def test_it_never_comes_to_the_pod_or_into_its_log(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """No file or process of the pod has it; what the pod has is a key for itself alone."""
        async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
            (machine,) = cloud.billing_now()
            result = await lease.run("env; cat ~/.gpubroker/* ~/.ssh/*")
            files = files_with(cloud.folder(machine), cloud.key)
            processes = processes_under(cloud.folder(machine))
            log = cloud.log(machine)
            own = cloud.inside.world.lives.pods[machine].key

        assert cloud.key.encode() not in result.stdout + result.stderr
        assert files == []
        assert len(processes) >= 2
        assert not any(cloud.key.encode() in command + env for command, env in processes)
        assert not any(own.encode() in command for command, _ in processes)
        assert not any(cloud.key in line or own in line for line in log)
        assert all(cloud.key not in str(request.body) for request in cloud.requests)
        assert sent(cloud, "ssh-keys") == sent(cloud, "ssh-keys-update") == []
        assert cloud.leaks == ()

    async def test_nor_to_one_that_runs_its_job_by_itself(
        self, cloud: RunPodEmulator, broker_on: MakeBroker
    ) -> None:
        """Neither the command that it was made with, nor what it printed, has it."""
        seen: list[list[tuple[bytes, bytes]]] = []

        def look_inside(_: str, __: bytes) -> None:
            (machine,) = cloud.billing_now()
            seen.append(processes_under(cloud.folder(machine)))

        async with broker_on(QUICK) as broker:
            result = await broker.run(
                Job(["sh", "-c", "env; sleep 0.3"]), A_4090, on_output=look_inside
            )
            (machine,) = cloud.charges()
            log = cloud.log(machine)

        assert not any(cloud.key.encode() in c + env for seen_at in seen for c, env in seen_at)
        assert len(seen[0]) >= 2
        assert not any(cloud.key in line for line in log)
        assert cloud.key.encode() not in result.stdout
        (create,) = sent(cloud, "create")
        assert create.body["ports"] == []
        assert "PUBLIC_KEY" not in create.body["env"]
        assert cloud.key not in str(create.body)
        assert cloud.billing_now() == ()

    async def test_it_is_in_no_error_event_record_or_file_of_ours(
        self,
        cloud: RunPodEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        tmp_path: Path,
    ) -> None:
        """Not even where the vendor's own errors repeat it."""
        said = {"title": "no", "status": 400, "detail": f"out of stock for {cloud.key}"}
        cloud.faults.add("gpus", "status", status=502, body=f"bad gateway for {cloud.key}")
        cloud.faults.add("create", "status", status=400, body=said)
        cloud.faults.add("create", "status", nth=2, status=500, body=said)
        cloud.faults.add("create", "status", nth=3, status=401, body=said)
        cloud.faults.add("list", "status", status=403, body=f"not with {cloud.key}")
        broker = broker_on({**QUICK, "visibility_horizon": "0.1"})

        async with broker:
            swept = await look(broker)
            with pytest.raises(AcquireStopped) as raised:
                await broker.run(["true"], A_4090)
            rows = await broker.leases(open_only=False)
            log = [event for row in rows for event in await broker.events(row.id)]
            providers = await broker.providers(balances=True)

        shown = [raised.value, raised.value.record, broker, broker.settings, swept, cloud]
        shown += [*events, *rows, *log, *providers, raised.value.__cause__]
        assert all(rule.met == 1 for rule in cloud.faults.rules)
        assert len(texts(events, EventKind.FAILED)) == 3
        assert [s for s in map(str, shown) if cloud.key in s] == []
        assert [s for s in map(repr, shown) if cloud.key in s] == []
        assert files_with(tmp_path, cloud.key) == []
