"""Connections to a machine: made, lost, made again, and ended."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from gpubroker.errors import ChannelLost, ErrorKind, ProviderError, Scope
from gpubroker.model.machines import Route
from gpubroker.transport.ssh import SshChannel, open_channel
from gpubroker.transport.ssh import ssh_channel as ssh
from gpubroker.transport.ssh.lease_key import LeaseKey

from .conftest import Connect, MakeSite, Site, command_of, masters, site_of
from .servers import Wire, free_port, make_key, serve

pytestmark = pytest.mark.anyio


async def exit_code(channel: SshChannel, script: str) -> int:
    async with channel.execute(script) as execution:
        return await execution.wait()


async def reach(opening: AbstractAsyncContextManager[SshChannel]) -> None:
    """Connect, and that is all."""
    async with opening:
        pass


async def break_with(channel: SshChannel, act: Callable[[], None]) -> None:
    """Do what breaks a connection, and wait until a script that runs over it has learnt of it."""
    async with channel.execute("cat") as execution:
        act()
        with pytest.raises(ChannelLost):
            await execution.wait()


class TestIdentity:
    """A connection is made to the machine that was rented, or not at all."""

    async def test_another_host_key_is_refused(
        self, each_site: Site, connect: Connect, tmp_path: Path
    ) -> None:
        """The host is condemned, and was told nothing."""
        other = make_key(tmp_path / "other")

        with pytest.raises(ProviderError, match="different host key") as caught:
            await reach(connect(each_site, host_keys=[other]))

        assert (caught.value.kind, caught.value.scope) == (ErrorKind.HOST_BROKEN, Scope.HOST)

    async def test_another_type_of_host_key_is_refused(
        self, each_site: Site, connect: Connect, tmp_path: Path
    ) -> None:
        """A machine without the pinned type of key is not ours, whatever else it has."""
        other = make_key(tmp_path / "other", kind="ecdsa")

        with pytest.raises(ProviderError, match="different host key"):
            await reach(connect(each_site, host_keys=[other]))

    async def test_the_first_machine_that_lets_us_in_is_believed(
        self, each_site: Site, connect: Connect
    ) -> None:
        """Where no key is known beforehand, the one that was met is told."""
        async with connect(each_site, host_keys=[]) as channel:
            assert channel.host_keys == (each_site.server.host_key,)

    async def test_who_was_believed_first_is_the_only_one_from_then_on(
        self, sshd_with: MakeSite, connect: Connect, tmp_path: Path
    ) -> None:
        """A machine with another key at the same address is refused when connecting again."""
        with ExitStack() as stack:
            site = site_of("sshd", tmp_path / "first", stack)
            async with connect(site, host_keys=[]) as channel:
                stack.close()
                public, port = site.key.public, site.server.port
                with serve("sshd", tmp_path / "second", public, port=port):
                    with pytest.raises(ProviderError, match="different host key"):
                        await exit_code(channel, "true")

    async def test_who_does_not_let_us_in_is_not_believed(
        self, each_site: Site, connect: Connect, lease_folder: Path, tmp_path: Path
    ) -> None:
        """A stranger at an address of a machine that boots does not shut the real one out."""
        stranger = LeaseKey(tmp_path / "unknown", make_key(tmp_path / "unknown"))

        with pytest.raises(ChannelLost, match="Permission denied"):
            await reach(open_channel([each_site.server.route], key=stranger, folder=lease_folder))

        assert not (lease_folder / "known_hosts").exists()


class TestRoutes:
    """All ways to a machine are tried before it is given up."""

    async def test_straight_comes_before_proxied(
        self, site: Site, connect: Connect, wire: Wire
    ) -> None:
        """In whatever order the provider names them."""
        routes = [Route("127.0.0.1", site.server.port, proxied=True), Route("127.0.0.1", wire.port)]

        async with connect(site, routes=routes) as channel:
            assert channel.route == routes[1]

    async def test_the_next_one_is_taken_and_remembered(
        self, site: Site, connect: Connect, wire: Wire
    ) -> None:
        """Where one leads nowhere another does; connecting again begins with that one."""
        nowhere = Route("127.0.0.1", free_port())
        proxied = Route("127.0.0.1", wire.port, proxied=True)

        async with connect(site, routes=[nowhere, proxied]) as channel:
            assert channel.route == proxied
            channel.update_routes([Route("127.0.0.1", site.server.port), proxied])
            await break_with(channel, wire.cut)
            assert await exit_code(channel, "exit 5") == 5

            assert channel.route == proxied

    async def test_new_routes_are_taken(self, site: Site, connect: Connect, wire: Wire) -> None:
        """What the provider says later counts when connecting again."""
        async with connect(site, port=wire.port) as channel:
            channel.update_routes([site.server.route])
            await break_with(channel, wire.close_door)
            assert await exit_code(channel, "exit 5") == 5

            assert channel.route == site.server.route

    async def test_nobody_there_is_a_lost_channel(self, site: Site, connect: Connect) -> None:
        """It says what ssh said."""
        with pytest.raises(ChannelLost, match="Connection refused"):
            await reach(connect(site, port=free_port()))

    async def test_a_machine_that_says_nothing_is_waited_for_no_longer_than_asked(
        self, site: Site, connect: Connect, wire: Wire
    ) -> None:
        """Connecting ends although the other side neither answers nor closes."""
        wire.freeze()

        with pytest.raises(ChannelLost, match="127"):
            await reach(connect(site, port=wire.port, connect_timeout=0.2))

    async def test_what_a_stranger_says_instead_is_made_harmless(
        self, site: Site, connect: Connect
    ) -> None:
        """Something that is no SSH server gets no further than a plain sentence."""

        async def babble(stream: SocketStream) -> None:
            async with stream:
                with suppress(anyio.BrokenResourceError):
                    while True:
                        await stream.send(b"\x1b]0;owned\x07\x1b[31m" + b"x" * 1000 + b"\r\n")

        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, babble)
            with pytest.raises(ChannelLost) as caught:
                await reach(connect(site, port=listener.extra(SocketAttribute.local_port)))

            assert str(caught.value).isprintable()
            assert "owned" not in str(caught.value)
            tasks.cancel_scope.cancel()

    async def test_without_a_client_nothing_is_tried(
        self, site: Site, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The sentence says what to install."""
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(ProviderError, match="install it"):
            await reach(connect(site))

    @pytest.mark.parametrize(
        "route",
        [
            Route("-oProxyCommand=touch owned", 22),
            Route("host; touch owned", 22),
            Route("127.0.0.1", 22, user="-oProxyCommand=touch owned"),
            Route("127.0.0.1", 0),
            Route("", 22),
        ],
    )
    async def test_what_is_no_address_reaches_no_program(
        self, site: Site, connect: Connect, route: Route
    ) -> None:
        """An address that a program would obey is refused here."""
        with pytest.raises(ChannelLost, match="not an address"):
            await reach(connect(site, routes=[route]))

    async def test_without_a_route_there_is_no_way(self, site: Site, connect: Connect) -> None:
        """The sentence says that none is known."""
        with pytest.raises(ChannelLost, match="no route"):
            await reach(connect(site, routes=[]))


class TestLoss:
    """A connection that breaks is told to who used it, and made anew for who comes next."""

    async def test_a_script_under_way_learns_of_it(
        self, each_site: Site, connect: Connect, each_wire: Wire
    ) -> None:
        """Its end is unknown; the next script runs."""
        async with connect(each_site, port=each_wire.port) as channel:
            await break_with(channel, each_wire.cut)

            assert await exit_code(channel, "exit 6") == 6

    async def test_all_who_come_next_share_one_new_connection(
        self, site: Site, connect: Connect, wire: Wire
    ) -> None:
        """However many they are, the machine sees one more connection."""

        async def ask() -> None:
            assert await exit_code(channel, "exit 6") == 6

        async with connect(site, port=wire.port) as channel:
            await break_with(channel, wire.cut)
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(ask)

        assert wire.accepted == 2

    async def test_while_there_is_no_way_calls_say_so(
        self, site: Site, connect: Connect, wire: Wire
    ) -> None:
        """And once there is one again, they work."""
        async with connect(site, port=wire.port) as channel:
            await break_with(channel, wire.close_door)
            with pytest.raises(ChannelLost, match="127"):
                await exit_code(channel, "true")

            wire.open_door()

            assert await exit_code(channel, "exit 6") == 6

    @pytest.mark.parametrize("anyio_backend", ["trio"])  # ssh notices, for seconds, on any loop
    async def test_a_frozen_connection_is_noticed(self, sshd: Site, connect: Connect) -> None:
        """Nobody closes anything, and yet the script's end becomes unknown."""
        with Wire(sshd.server.port) as wire:
            async with (
                connect(sshd, port=wire.port, keepalive=1) as channel,
                channel.execute("cat") as execution,
            ):
                wire.freeze()
                with anyio.fail_after(30), pytest.raises(ChannelLost, match="not responding"):
                    await execution.wait()

    async def test_a_killed_ssh_is_replaced(self, site: Site, connect: Connect) -> None:
        """Its control socket, which it left behind, is in nobody's way."""
        async with connect(site) as channel:
            await break_with(channel, lambda: os.kill(masters()[0], signal.SIGKILL))

            assert await exit_code(channel, "exit 6") == 6

    async def test_abandoned_scripts_do_not_use_up_the_machine(
        self, sshd_with: MakeSite, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where they hold all sessions of a connection, another connection is made."""
        monkeypatch.setattr(ssh, "_REFUSED", (0.01,))
        site = sshd_with("MaxSessions 2")
        async with connect(site) as channel, channel.execute("cat") as kept:
            async with channel.execute("trap '' PIPE; exec sleep 1000"):
                pass

            assert await exit_code(channel, "exit 6") == 6
            await kept.stdin.aclose()
            assert await kept.wait() == 0

            assert await exit_code(channel, "exit 7") == 7


class TestEnd:
    """Nothing is left of a channel once its block has ended."""

    async def test_what_runs_is_told(self, site: Site, connect: Connect) -> None:
        """Scripts under way lose their channel, and new ones find it closed."""
        async with connect(site) as channel, channel.execute("cat") as execution:
            await channel.aclose()
            with pytest.raises(ChannelLost):
                await execution.wait()

            with pytest.raises(ChannelLost, match="closed"):
                await exit_code(channel, "true")

    @pytest.mark.parametrize("moment", [0.0, 0.005, 0.05, 0.3])
    async def test_cancelled_while_connecting(
        self, site: Site, connect: Connect, wire: Wire, moment: float
    ) -> None:
        """No process and no socket outlive it; the fixture looks."""
        wire.freeze()

        with anyio.move_on_after(moment) as scope:
            await reach(connect(site, port=wire.port))

        assert scope.cancelled_caught
        assert masters() == []

    async def test_what_was_private_stays_so(
        self, site: Site, connect: Connect, sockets: Path
    ) -> None:
        """The socket is this user's alone, and ssh inherits nothing that it need not have."""
        async with connect(site):
            (control,) = sockets.iterdir()
            environment = Path(f"/proc/{masters()[0]}/environ").read_bytes()

            assert stat.S_IMODE(control.stat().st_mode) == 0o700
            assert environment.startswith(b"PATH=")
            assert environment.count(b"\0") == 1
            assert os.getsid(masters()[0]) != os.getsid(0), "a Ctrl-C is not for ssh"

    async def test_nobodys_configuration_takes_part(self, site: Site, connect: Connect) -> None:
        """What a user's own file says, programs to run included, is not for leased machines."""
        async with connect(site):
            command = command_of(masters()[0])

        assert command[command.index("-F") + 1] == "none"

    @pytest.mark.parametrize("name", ["with space", "per%cent ${HOME}", "long" * 40])
    async def test_any_folder_will_do(
        self, site: Site, connect: Connect, tmp_path: Path, name: str
    ) -> None:
        """Names that ssh would take apart, and those too long for a socket, do no harm."""
        folder = tmp_path / name
        folder.mkdir()

        async with connect(site, folder=folder) as channel:
            control = Path(command_of(masters()[0])[command_of(masters()[0]).index("-S") + 1])
            assert await exit_code(channel, "exit 3") == 3
            assert len(os.fsencode(control)) + 17 < 100

        assert not control.parent.exists()

    async def test_a_short_folder_holds_the_socket_itself(
        self, site: Site, connect: Connect, sockets: Path
    ) -> None:
        """What belongs to a lease is in the lease's folder, where that can be."""
        folder = sockets / "lease"
        folder.mkdir()

        async with connect(site, folder=folder):
            assert len(list(folder.glob("gb-*/control"))) == 1

        assert list(folder.glob("gb-*")) == []
        shutil.rmtree(folder)


class TestKey:
    """One key per lease, made by the system's own program."""

    async def test_it_is_private_and_lets_in(
        self, sshd: Site, tmp_path: Path, lease_folder: Path
    ) -> None:
        """The machine that was told the public half lets the private half in."""
        key = await LeaseKey.make(tmp_path / "new")
        authorized = sshd.server.home.parent / "authorized_keys"
        authorized.write_text(f"{sshd.key.public}\n{key.public}\n")

        assert key.public.startswith("ssh-ed25519 ")
        assert stat.S_IMODE(key.private.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.private.parent.stat().st_mode) == 0o700
        async with open_channel([sshd.server.route], key=key, folder=lease_folder) as channel:
            assert await exit_code(channel, "exit 2") == 2

    async def test_a_key_that_is_there_is_not_replaced(self, tmp_path: Path) -> None:
        """A second one in the same folder is refused, in a sentence."""
        await LeaseKey.make(tmp_path)

        with pytest.raises(ProviderError, match="made no key"):
            await LeaseKey.make(tmp_path)

    async def test_without_a_client_one_sentence_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It condemns the provider for now, and not the machine."""
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(ProviderError, match="no ssh and no ssh-keygen: install") as caught:
            await LeaseKey.make(tmp_path)

        assert (caught.value.kind, caught.value.scope) == (ErrorKind.BAD_REQUEST, Scope.PROVIDER)
