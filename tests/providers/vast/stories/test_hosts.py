"""Machines that are not what they say: who they are, and what they send."""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import anyio
import asyncssh
import pytest

from gpubroker import (
    AttemptsExhausted,
    AttemptState,
    ErrorKind,
    Event,
    EventKind,
    HostIdentity,
    Job,
    JobState,
    MachineLost,
    Policy,
    Requirements,
    Result,
    Retry,
    Scope,
    SecretsRefused,
)
from gpubroker.testing.emulation.ssh import fresh_key
from gpubroker.transport.work.scripts import Name, script
from gpubroker_vast.emulator import VastEmulator
from gpubroker_vast.emulator.contracts import Contract
from gpubroker_vast.emulator.instance_faults import INSTANCE_FAULTS
from gpubroker_vast.emulator.world import World

from .conftest import MakeBroker
from .watching import QUICK, until

pytestmark = pytest.mark.anyio

A_4090 = Requirements(gpu="RTX 4090")
SECRET = "s3cret-value-of-a-token"
SAYS_LENGTH = Job('printf %s "$TOKEN" | wc -c', secrets={"TOKEN": SECRET}, timeout=30)
#: Nothing is in the log, and nobody waits for that to change.
NO_LOG = {**QUICK, "identity_timeout": "0"}

NAMES: tuple[Name, ...] = get_args(Name)

#: What takes long is shown on one event loop, and kinds of one thing on one each.
one_loop = pytest.mark.parametrize("anyio_backend", ["trio"])


def holding(folder: Path, text: str) -> list[str]:
    """The files below a folder that hold a text."""
    found: list[str] = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes():
            found.append(str(path))
    return found


def refused(result: Result) -> str:
    """Why the first machine was passed over for another one."""
    first, second = result.record.attempts
    assert (first.state, second.state) == (AttemptState.FAILED, AttemptState.WON)
    assert (first.kind, first.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)
    return first.reason


class TestIdentity:
    @pytest.mark.parametrize(("anyio_backend", "status"), [("asyncio", 403), ("trio", 404)])
    async def test_the_log_says_who_it_is(
        self, cloud: VastEmulator, broker_on: MakeBroker, status: int
    ) -> None:
        """However long the log takes to be there, its keys are the ones that count."""
        cloud.next_instance("logs", polls=2, status=status)

        async with broker_on(QUICK) as broker:
            result = await broker.run(SAYS_LENGTH, A_4090)

        assert result.stdout.strip() == b"%d" % len(SECRET)
        assert result.host_identity is HostIdentity.PINNED
        assert len(result.record.attempts) == 1

    async def test_a_log_that_is_still_empty_is_read_again(
        self, cloud: VastEmulator, broker_on: MakeBroker, events: list[Event]
    ) -> None:
        """A machine that runs may not have printed its keys yet: nobody is believed before."""
        cloud.next_instance("logs", empty=True)

        def note(event: Event) -> None:
            events.append(event)
            if "its log does not show its host keys yet" in event.text:
                (row,) = cloud.instances()
                cloud.afflict(row["id"], "logs", empty=False)

        async with broker_on(QUICK, on_event=note) as broker:
            result = await broker.run(SAYS_LENGTH, A_4090)

        assert result.host_identity is HostIdentity.PINNED
        assert len(result.record.attempts) == 1

    async def test_without_a_log_the_first_key_is_believed_and_said_to_be(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Whoever answers knows what the machine was told; secrets are kept from it all the same."""
        cloud.next_instance("logs", empty=True, times=None)
        policy = Policy(retry=Retry(max_attempts=2))

        async with broker_on(NO_LOG) as broker:
            async with broker.lease(A_4090) as lease:
                result = await lease.run(Job(["true"], timeout=30))
                with pytest.raises(SecretsRefused, match="TOKEN"):
                    await lease.run(SAYS_LENGTH)
                (row,) = cloud.instances()
                assert holding(cloud.folder(row["id"]), SECRET) == []
            with pytest.raises(AttemptsExhausted, match="identity is proven"):
                async with broker.lease(A_4090, secrets=True, policy=policy):
                    raise AssertionError("there is no such machine")

        assert result.host_identity is HostIdentity.FIRST_USE
        assert cloud.billing_now() == ()

    async def test_a_job_with_secrets_goes_to_a_machine_that_is_proven(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """One without a log is refused before anybody logs in there."""
        cloud.next_instance("logs", empty=True)
        looked_at: list[int] = []

        def look(event: Event) -> None:
            if event.kind is EventKind.FAILED and not looked_at:
                (row,) = cloud.instances()
                looked_at.append(row["id"])
                home = cloud.folder(row["id"]) / "home"
                assert not (home / ".gpubroker" / "heartbeat").exists()
                assert holding(home, SECRET) == []

        options = {**QUICK, "identity_timeout": "0.6"}
        async with broker_on(options, on_event=look) as broker:
            result = await broker.run(SAYS_LENGTH, A_4090)

        assert "did not show its host keys" in refused(result)
        assert looked_at
        assert result.host_identity is HostIdentity.PINNED
        assert result.stdout.strip() == b"%d" % len(SECRET)
        assert SECRET not in repr(cloud.requests)
        assert cloud.billing_now() == ()

    async def test_another_server_under_the_same_address_gets_nothing(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Whoever answers cannot show the key that the log has: refused, and on to the next."""
        cloud.next_instance("wrong-host-key")

        async with broker_on(QUICK) as broker:
            result = await broker.run(SAYS_LENGTH, A_4090)

        assert "presented a different host key" in refused(result)
        assert result.host_identity is HostIdentity.PINNED
        assert cloud.billing_now() == ()

    @one_loop
    async def test_on_first_use_whoever_does_not_know_the_nonce_is_refused(
        self, cloud: VastEmulator, broker_on: MakeBroker
    ) -> None:
        """Somebody's machine answers, and it is not the one that our order went to."""
        cloud.next_instance("logs", empty=True, times=None)
        changed: list[Path] = []
        results: list[Result] = []

        async def change() -> None:
            while not changed:
                for nonce in cloud.folder(".").glob("*/home/.gpubroker/nonce"):
                    if not nonce.read_text():
                        continue  # the machine is still about to write its own
                    nonce.write_text("another-nonce\n")
                    changed.append(nonce)
                await anyio.sleep(0.005)

        options = {**QUICK, "identity_timeout": "0.5"}
        async with broker_on(options) as broker, anyio.create_task_group() as tasks:
            tasks.start_soon(change)
            results.append(await broker.run(Job(["true"], timeout=30), A_4090))

        (result,) = results
        assert "does not know what the machine was told" in refused(result)
        assert result.host_identity is HostIdentity.FIRST_USE
        assert cloud.billing_now() == ()


# ---- machines that lie -------------------------------------------------------------------------

Says = Callable[["Told"], bytes | Iterator[bytes]]


class Told:
    """What a server was asked to run, and what else it says to that.

    Attributes:
        name: of the script. sent: bytes of its output so far.
    """

    def __init__(self, command: str) -> None:
        words = shlex.split(command)
        self.mark = f"{words[2]}{words[3].rstrip(';')}\n".encode()
        self.name = next((name for name in NAMES if script(name) == words[7]), "beat")
        self.error = b""
        self.code = 0
        self.before = b""


class Liar:
    """An SSH server with the machine's own key, which answers each script as it is told to."""

    def __init__(self) -> None:
        self.says: Mapping[str, Says] = {}
        self.port = 0
        self.sent = 0
        self.asked: list[str] = []
        self._acceptor: asyncssh.SSHAcceptor | None = None

    async def listen(self, key: asyncssh.SSHKey) -> None:
        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=_Open,
            server_host_keys=[key],
            process_factory=self._serve,
            encoding=None,
            config=None,
        )
        self.port = self._acceptor.get_port()

    def close(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        told = Told(process.command or "")
        self.asked.append(told.name)
        try:
            process.stdout.write(told.mark)
            answer = self.says.get(told.name, _nothing)(told)
            for piece in [answer] if isinstance(answer, bytes) else answer:
                process.stdout.write(piece)
                await process.stdout.drain()
                self.sent += len(piece)
            process.stderr.write(told.error)
            process.exit(told.code)
        except (OSError, asyncssh.Error):
            process.close()


def _nothing(_: Told) -> bytes:
    return b""


class _Open(asyncssh.SSHServer):
    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Liar:
    """A server that an instance can be replaced by, with ``cloud.afflict(id, "lie")``."""
    liar = Liar()

    def replace(world: World, contract: Contract, options: Mapping[str, Any]) -> None:
        async def work() -> None:
            machine = contract.machine
            assert machine is not None
            key = fresh_key() if options.get("other_key") else vars(machine)["_host_key"]
            await liar.listen(key)
            for way in (machine.direct, machine.proxy):
                await way.restore(liar.port)

        world.tasks.soon(work())

    def end(world: World, contract: Contract, options: Mapping[str, Any]) -> None:
        liar.close()

    monkeypatch.setitem(INSTANCE_FAULTS, "lie", replace)
    monkeypatch.setitem(INSTANCE_FAULTS, "lie-no-more", end)
    return liar


ESCAPES = b"\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b\r\n"
RAN = b"S\nX\nexited 0 0 0 0\n"


def archive(*members: tuple[str, dict[str, Any], bytes]) -> bytes:
    """A tar stream of any members, with any fields, and with what they hold."""
    whole = b"100\n"
    for name, fields, data in members:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for field, value in fields.items():
            setattr(member, field, value)
        whole += member.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % 512)
    return whole + b"\0" * 1024


def endless(first: bytes, piece: bytes) -> Says:
    """Goes on and on, up to a gigabyte."""

    def say(told: Told) -> Iterator[bytes]:
        yield first
        for _ in range(2**30 // len(piece)):
            yield piece

    return say


def failing(code: int, error: bytes) -> Says:
    """Ends with a code, and says why."""

    def say(told: Told) -> bytes:
        told.code, told.error = code, error
        return b""

    return say


def one(name: str, data: bytes = b"evil", **fields: Any) -> dict[str, Says]:
    """A job that ends well, and has one output, of this name in the archive."""
    stream = archive((name, fields, data))
    return {
        "attach": lambda _: RAN,
        "list": lambda _: b"F./out.txt\0E\0",
        "pack": lambda _: stream,
        "send": lambda _: b"-\n",
    }


#: What a machine says, and a part of what is said of it.
LIES: dict[str, tuple[Mapping[str, Says], str]] = {
    "parent": (one("../evil"), "not asked for"),
    "absolute": (one("/tmp/evil"), "not asked for"),
    "unasked": (one("evil"), "not asked for"),
    "huge": (one("out.txt", size=2**62), ""),
    "link": (one("out.txt", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), ""),
    "hard link": (one("out.txt", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"), ""),
    "device": (one("out.txt", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5), ""),
    "listed elsewhere": (
        {
            "attach": lambda _: RAN,
            "list": lambda _: b"F./../evil\0E\0",
            "send": lambda _: b"4\nevil",
        },
        "impossible name",
    ),
    "listed absurdly": ({"attach": lambda _: RAN, "list": lambda _: b"F/tmp/" + ESCAPES}, "list"),
    "endless output": ({"attach": endless(b"S\n", b"O 100000\n" + b"x" * 100_000)}, "more output"),
    "nonsense": ({"attach": lambda _: b"S\n" + ESCAPES * 10}, "nonsense"),
    "no end": ({"attach": lambda _: b"S\nX\n" + ESCAPES}, "how the job ended"),
    "code 255": ({"attach": failing(255, ESCAPES * 1000)}, "exit 255"),
}


class TestAMachineThatLies:
    @one_loop
    async def test_nothing_is_written_elsewhere_and_nothing_reaches_the_terminal(
        self,
        cloud: VastEmulator,
        broker_on: MakeBroker,
        events: list[Event],
        tmp_path: Path,
        liar: Liar,
    ) -> None:
        """Whatever it sends, it is the machine's fault, said in plain letters, and soon over."""
        out = tmp_path / "deep" / "out"
        job = Job(["true"], outputs=["**"], output_dir=out, output_limit=1_000_000, timeout=60)
        results: dict[str, Result] = {}
        sent: dict[str, int] = {}
        said: list[str] = []

        with anyio.fail_after(60):
            async with broker_on(QUICK) as broker, broker.lease(A_4090) as lease:
                (row,) = cloud.instances()
                cloud.afflict(row["id"], "lie")
                await until(lambda: liar.port)
                for name, (says, _) in LIES.items():
                    liar.says, liar.sent = says, 0
                    try:
                        results[name] = await lease.run(job)
                    except MachineLost as error:
                        results[name] = error.result
                        said.append(str(error))
                    sent[name] = liar.sent
                cloud.afflict(row["id"], "lie-no-more")

        said += [*(event.text for event in events), *(r.failure for r in results.values())]
        assert not [text for text in said if "\x1b" in text or "\x9b" in text or "\r" in text]
        for name, (_, why) in LIES.items():
            if why:
                assert results[name].state is JobState.LOST, name
                assert why in results[name].failure, name
            assert results[name].files == {}, name
            assert sent[name] < 50_000_000, name
        assert list(tmp_path.rglob("*evil*")) == []
        assert not Path("/tmp/evil").exists()
        assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
        assert not out.exists() or list(out.iterdir()) == []
        assert cloud.billing_now() == ()

    async def test_one_that_takes_the_address_over_later_is_told_nothing(
        self, cloud: VastEmulator, broker_on: MakeBroker, liar: Liar
    ) -> None:
        """The key that was proven is asked for with every new connection, not with the first."""
        async with broker_on(QUICK) as broker, broker.lease(A_4090, secrets=True) as lease:
            assert (await lease.run(SAYS_LENGTH)).ok
            (row,) = cloud.instances()
            cloud.afflict(row["id"], "lie", other_key=True)
            await until(lambda: liar.port)

            with pytest.raises(MachineLost, match="different host key"):
                await lease.run(SAYS_LENGTH)

            cloud.afflict(row["id"], "lie-no-more")

        assert liar.asked == []
        assert cloud.billing_now() == ()
