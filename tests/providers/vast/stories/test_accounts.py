"""The account: its key, where it goes and where it never does, and what it may ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpubroker import (
    AcquireStopped,
    AsyncBroker,
    ErrorKind,
    Event,
    EventKind,
    NoOfferFits,
    Policy,
    Requirements,
    Retry,
    elsewhere,
    here,
)
from gpubroker_vast.emulator import VastEmulator

from .conftest import MakeBroker, settings_for
from .watching import QUICK, asked_for, look, sent, texts

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")


def files_with(folder: Path, secret: str) -> list[str]:
    """The files in a folder that hold a secret."""
    wanted = secret.encode()
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and wanted in path.read_bytes()
    ]


def environments_under(folder: Path) -> list[bytes]:
    """The environments of all processes that were started in a machine's folder."""
    found: list[bytes] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue  # it ended meanwhile, or is not ours
            if str(folder).encode() in environment:
                found.append(environment)
    return found


class TestAKeyThatIsNotGood:
    """Nothing is tried in vain with it."""

    @pytest.mark.parametrize("status", [401, 404])
    async def test_a_wrong_key_stops_everything_at_once(
        self, cloud: VastEmulator, broker_on: MakeBroker, tmp_path: Path, status: int
    ) -> None:
        """In both forms of that refusal; no other offer is asked for, and the key is not shown."""
        wrong = "0123456789abcdef" * 4
        cloud.switch(bad_key=status)
        settings = settings_for(cloud, tmp_path / "ledger.db", **QUICK)
        settings = replace(settings, keys={"vast": wrong})

        async with AsyncBroker(settings=settings, close_wait=20.0) as broker:
            with pytest.raises(AcquireStopped) as raised:
                await broker.run(["true"], A_4090)
            swept = await look(broker)

        assert [attempt.kind for attempt in raised.value.record.attempts] == [ErrorKind.AUTH]
        assert len(asked_for(cloud)) == 1
        assert (swept.complete, swept.verdicts) == (False, ())
        assert wrong not in str(raised.value) + repr(raised.value) + repr(raised.value.record)
        assert cloud.instances() == []

    async def test_without_a_key_nothing_is_asked_at_all(
        self, cloud: VastEmulator, broker_on: MakeBroker, tmp_path: Path
    ) -> None:
        """It says which setting is missing, and sends nothing."""
        settings = replace(settings_for(cloud, tmp_path / "ledger.db", **QUICK), keys={})

        async with AsyncBroker(settings=settings, close_wait=20.0) as broker:
            with pytest.raises(NoOfferFits, match="VAST_API_KEY"):
                await broker.run(["true"], A_4090)

        assert cloud.requests == ()


class TestASearchThatIsRefused:
    """Searches are few: a row that is read counts against a day's allowance."""

    async def test_a_spent_quota_is_not_asked_again(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """It lasts until midnight: neither who waits for capacity nor the next request asks."""
        cloud.faults.add("search-get", "quota", times=None)

        async with broker_on(QUICK) as broker:
            with pytest.raises(NoOfferFits, match="search_quota_exceeded") as raised:
                await broker.run(["true"], A_4090, policy=Policy(wait=0.1))
            with pytest.raises(NoOfferFits, match="search_quota_exceeded"):
                await broker.run(["true"], A_4090)

        assert [problem.kind for problem in raised.value.record.problems] == [ErrorKind.QUOTA]
        assert len(sent(cloud, "search-get")) == 1
        assert sent(cloud, "search") == []
        assert asked_for(cloud) == []

    @pytest.mark.parametrize("style", ["bucket", "plain"])
    async def test_a_search_that_came_too_early_is_repeated(
        self, cloud: VastEmulator, broker_on: MakeBroker, style: str
    ) -> None:
        """After the time that was asked for, whichever way that was said."""
        body = {
            "bucket": {"error": "HTTPTooManyRequests", "msg": "…", "retry_after": 0.2},
            "plain": "API requests too frequent: endpoint threshold=0.2",
        }[style]
        cloud.faults.add("search-get", "status", status=429, body=body)
        soon = Retry({ErrorKind.RATE_LIMIT: here(2, first=0.01) | elsewhere()})

        async with broker_on(QUICK) as broker:
            record = await broker.quote(A_4090, policy=Policy(retry=soon))

        first, second = [request.at for request in sent(cloud, "search-get")]
        assert second - first > 0.15
        assert record.ranked
        assert record.problems == ()


class TestTheKeyOfTheAccount:
    """Whoever has it has the account: it is in the header of each request, and nowhere else."""

    async def test_it_never_comes_to_the_machine_or_to_where_its_log_lies(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """No file or process of the machine holds it; the log is in somebody else's storage."""
        async with broker_on({**QUICK, "identity_timeout": "1"}) as broker:
            async with broker.lease(A_4090) as lease:
                (machine,) = cloud.billing_now()
                result = await lease.run("env; cat ~/.gpubroker/* ~/.ssh/* ~/onstart.sh")
                files = files_with(cloud.folder(machine), cloud.key)
                environments = environments_under(cloud.folder(machine))

        assert b"GPUBROKER-HOST-KEY" in result.stdout
        assert cloud.key.encode() not in result.stdout + result.stderr
        assert files == []
        assert len(environments) >= 2
        assert not any(cloud.key.encode() in environment for environment in environments)
        assert all(cloud.key not in str(request.body) for request in cloud.requests)
        assert {request.status for request in sent(cloud, "result")} == {200}
        assert cloud.leaks == ()

    async def test_it_is_in_no_error_event_record_or_file_of_ours(
        self,
        cloud: VastEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        tmp_path: Path,
    ) -> None:
        """Not even where the vendor's own errors repeat it."""
        said = {"success": False, "error": "invalid_args", "msg": f"no {cloud.key} here"}
        cloud.faults.add("search-get", "status", status=502, body=f"bad gateway for {cloud.key}")
        cloud.faults.add("create", "status", status=404, body={**said, "error": "no_such_ask"})
        cloud.faults.add("create", "status", nth=2, status=500, body=said)
        cloud.faults.add("create", "status", nth=3, status=400, body=said)
        cloud.faults.add("list", "status", status=403, body=f"not with {cloud.key}")
        broker = broker_on(QUICK)

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
