"""Scripts that run on a machine over SSH."""

from __future__ import annotations

import hashlib
import os
import signal

import anyio
import pytest

from gpubroker.errors import ChannelLost, ErrorKind, ProviderError, Scope
from gpubroker.transport.channel import Channel, Execution
from gpubroker.transport.ssh.execution import Command

from .conftest import Connect, MakeSite, Site
from .servers import Wire

pytestmark = pytest.mark.anyio


async def read(execution: Execution) -> bytes:
    """Standard output to its end."""
    said = b""
    try:
        while True:
            said += await execution.stdout.receive()
    except anyio.EndOfStream:
        return said


async def answer(channel: Channel, script: str, *arguments: str) -> tuple[int, bytes]:
    """How a script ended, and what it printed."""
    async with channel.execute(script, *arguments) as execution:
        await execution.stdin.aclose()
        said = await read(execution)
        return await execution.wait(), said


async def gone(pid: int) -> None:
    """Wait until a process of this computer has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def test_a_script_has_its_three_streams_and_an_exit_code(
    each_site: Site, connect: Connect
) -> None:
    """What goes in, what comes out and how it ended are what the script made of them."""
    script = 'echo "to stderr: $2" >&2; cat; echo "$1"; exit 7'

    async with connect(each_site) as channel, channel.execute(script, "a=1", "b") as execution:
        await execution.stdin.send(b"line\n")
        await execution.stdin.aclose()

        assert await read(execution) == b"line\na=1\n"
        assert await execution.wait() == 7
        assert execution.stderr == b"to stderr: b\n"


async def test_exit_code_255_is_the_scripts_own(each_site: Site, connect: Connect) -> None:
    """What ssh itself would report for a broken connection is an exit code like any other."""
    async with connect(each_site) as channel:
        assert await answer(channel, "exit 255") == (255, b"")


async def test_many_scripts_share_one_connection(each_site: Site, connect: Connect) -> None:
    """A hundred scripts, as many at once as are let in, each get their own answer."""
    answers: dict[int, tuple[int, bytes]] = {}

    async def ask(number: int) -> None:
        answers[number] = await answer(channel, 'echo "$1"; exit "$1"', str(number))

    async with connect(each_site) as channel:
        first = await channel.connect()
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(ask, number)
        last = await channel.connect()

    assert answers == {number: (number, b"%d\n" % number) for number in range(100)}
    assert first is last


@pytest.mark.deep
async def test_a_thousand_scripts_share_one_connection(each_site: Site, connect: Connect) -> None:
    """Not one of them ends with another exit code than its own, least of all with ssh's 255."""
    codes: list[int] = []

    async def ask(number: int) -> None:
        code, said = await answer(channel, 'echo "$1"; exit "$2"', str(number), str(number % 200))
        codes.append(code if said == b"%d\n" % number else -1)

    async with connect(each_site) as channel:
        first = await channel.connect()
        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(ask, number)
        last = await channel.connect()

    assert sorted(codes) == sorted(number % 200 for number in range(1000))
    assert first is last


async def test_scripts_beyond_the_servers_limit_wait_their_turn(
    site: Site, connect: Connect
) -> None:
    """Eight scripts that only end when told to leave no place for a ninth until one of them ends."""
    open_now = most = 0

    async def stay() -> None:
        nonlocal open_now, most
        async with channel.execute("read -r _") as execution:
            open_now += 1
            most = max(most, open_now)
            if open_now == 8:
                full.set()
            await full.wait()
            open_now -= 1
            await execution.stdin.send(b"\n")
            assert await execution.wait() == 0

    full = anyio.Event()
    async with connect(site) as channel, anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(stay)

    assert most == 8


async def test_large_streams_pass_both_ways_at_once(each_site: Site, connect: Connect) -> None:
    """Eight megabytes come back as they went, and neither direction stops the other."""
    piece = os.urandom(1024 * 1024)
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def feed(execution: Execution) -> None:
        for _ in range(8):
            sent.update(piece)
            await execution.stdin.send(piece)
        await execution.stdin.aclose()

    async with connect(each_site) as channel, channel.execute("cat") as execution:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, execution)
            try:
                while True:
                    received.update(await execution.stdout.receive(256 * 1024))
            except anyio.EndOfStream:
                pass
        assert await execution.wait() == 0

    assert received.digest() == sent.digest()


async def test_of_standard_error_the_end_is_kept(site: Site, connect: Connect) -> None:
    """However much there is, nothing waits for it to be read, and 4 KiB of it are remembered."""
    script = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo the end >&2"

    async with connect(site) as channel, channel.execute(script) as execution:
        await execution.wait()

        assert len(execution.stderr) == 4096
        assert execution.stderr.endswith(b"xxx" + b"the end\n")


async def test_leaving_the_block_ends_our_side(sshd: Site, connect: Connect) -> None:
    """A script that prints for ever finds nobody reading any more."""
    async with connect(sshd) as channel:
        async with channel.execute("echo $$; exec yes") as execution:
            pid = int((await execution.stdout.receive(64)).split(b"\n")[0])

        with anyio.fail_after(20):
            await gone(pid)


async def test_a_script_that_is_killed_says_nothing_of_its_end(
    each_site: Site, connect: Connect
) -> None:
    """No exit code is made up, and the connection goes on."""
    async with connect(each_site) as channel:
        async with channel.execute("kill -9 $$") as execution:
            with pytest.raises(ChannelLost):
                await execution.wait()

        assert await answer(channel, "echo on") == (0, b"on\n")


async def test_what_a_script_leaves_running_does_not_hold_its_end_back(
    sshd: Site, connect: Connect
) -> None:
    """The exit code comes although something else still has the streams open."""
    async with (
        connect(sshd) as channel,
        channel.execute("sleep 1000 & echo $!; exit 3") as execution,
    ):
        pid = int(await execution.stdout.receive())
        try:
            with anyio.fail_after(20):
                assert await execution.wait() == 3
        finally:
            os.kill(pid, signal.SIGKILL)


async def test_an_error_in_the_block_comes_out_as_it_is(site: Site, connect: Connect) -> None:
    """Callers catch what they raised themselves, not a group that holds it."""
    async with connect(site) as channel:
        with pytest.raises(ZeroDivisionError):
            async with channel.execute("cat"):
                raise ZeroDivisionError


@pytest.mark.parametrize("argument", ["a b", "a'b", "$HOME", "a\nb", "", "ä", ";", "*", "~", "\0"])
def test_arguments_are_no_place_for_data(argument: str) -> None:
    """Only what no shell looks at twice is taken; the empty text is not dangerous."""
    if argument:
        with pytest.raises(ValueError, match="safe"):
            Command("true", (argument,))
    else:
        assert Command("true", (argument,)).text.endswith(b"sh ''")


class TestCancellation:
    """A script that is given up takes nothing else with it."""

    async def test_the_connection_survives(self, each_site: Site, connect: Connect) -> None:
        """Given up at any moment, even while it is being asked for, it leaves the others alone."""
        async with connect(each_site) as channel, channel.execute("cat") as other:
            for moment in range(40):
                with anyio.move_on_after(moment * 0.0005):
                    async with channel.execute("cat"):
                        await anyio.sleep_forever()

            await other.stdin.send(b"still there")
            assert await other.stdout.receive() == b"still there"
            assert await answer(channel, "echo on") == (0, b"on\n")

    async def test_giving_up_does_not_wait_for_a_slow_machine(
        self, each_site: Site, connect: Connect, each_wire: Wire
    ) -> None:
        """It takes no answer to leave, and the answer that comes later harms nobody."""

        async def ask() -> None:
            async with channel.execute("cat"):
                raise AssertionError("the wire is frozen")

        async with (
            connect(each_site, port=each_wire.port) as channel,
            channel.execute("cat") as other,
        ):
            each_wire.freeze()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.to_thread.run_sync(each_wire.held.wait, 20)
                tasks.cancel_scope.cancel()
            each_wire.thaw()

            await other.stdin.send(b"still there")
            assert await other.stdout.receive() == b"still there"
            assert await answer(channel, "echo on") == (0, b"on\n")


class TestOtherThanTheScript:
    """Login shells and gateways print, and run, what they like."""

    async def test_what_comes_before_is_skipped(
        self, sshd_with: MakeSite, connect: Connect
    ) -> None:
        """Greetings, even those that echo the command, are no part of the output."""
        site = sshd_with(
            'ForceCommand echo welcome; printf "%s" "$SSH_ORIGINAL_COMMAND";'
            ' eval "$SSH_ORIGINAL_COMMAND"'
        )

        async with connect(site) as channel:
            assert await answer(channel, "echo out") == (0, b"out\n")

    async def test_noise_without_end_condemns_the_host(
        self, sshd_with: MakeSite, connect: Connect
    ) -> None:
        """64 KiB are looked through, and no more."""
        site = sshd_with("ForceCommand yes")

        async with connect(site) as channel:
            with pytest.raises(ProviderError) as caught:
                await answer(channel, "echo out")

        assert (caught.value.kind, caught.value.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)

    async def test_a_machine_that_runs_something_else_is_quoted(
        self, sshd_with: MakeSite, connect: Connect
    ) -> None:
        """What it said is in the error, without what a terminal would obey."""
        site = sshd_with(r'ForceCommand printf "\033]0;owned\007\033[31mnot\ntoday"; exit 3')

        async with connect(site) as channel:
            with pytest.raises(ChannelLost, match=r"exit 3\): not today$") as caught:
                await answer(channel, "echo out")

        assert str(caught.value).isprintable()
