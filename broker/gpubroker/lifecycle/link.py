"""The way to a leased machine over SSH: found, made sure of, kept, and closed with the lease.

A machine that is not reached so shows in its log that it has begun.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Self

import anyio

from gpubroker.errors import ChannelLost, ErrorKind, ProviderError, Scope
from gpubroker.model.machines import Machine, Route
from gpubroker.model.results import HostIdentity
from gpubroker.plugins import Provider
from gpubroker.transport.channel import Channel

if TYPE_CHECKING:
    from gpubroker.lifecycle.lease_files import KeptLease, KeptReach
    from gpubroker.transport.ssh import LeaseKey

HEARTBEAT = 60.0
"""Seconds between two signs of life that a machine's dead-man switch is given."""

#: Seconds that a machine gets to show that it is there.
_QUICK = 15.0

_BEAT = 'mkdir -p "$HOME/.gpubroker" && : > "$HOME/.gpubroker/heartbeat"'
_NONCE = 'head -c 200 "$HOME/.gpubroker/nonce"'


class Link:
    """The way to one machine.

    Attributes:
        key: lets this broker in, and nobody else.
        nonce: what the machine prints beside its host keys.
        secrets: secrets are meant for it, so that its identity must be proven.
        channel: the way there, once there is one.
        host_identity: how it was made sure that the machine is the one that was rented.
    """

    #: How that had been made sure of before, where another broker did.
    _known_by: HostIdentity | None = None

    def __init__(self, folder: Path, key: LeaseKey, nonce: str, *, secrets: bool) -> None:
        self.key = key
        self.nonce = nonce
        self.secrets = secrets
        self.channel: Channel | None = None
        self.host_identity: HostIdentity | None = None
        self._folder = folder
        self._host_keys: tuple[str, ...] = ()
        self._routes: Sequence[Route] = ()
        self._open: Channel | None = None
        self._failure: ProviderError | None = None
        self._wanted = anyio.Event()
        self._tried = anyio.Event()

    @classmethod
    async def make(cls, *, secrets: bool) -> Self:
        """A new key in a folder of its own.

        Raises:
            ProviderError: this system has no SSH client.
        """
        from gpubroker.transport.ssh import LeaseKey

        folder = Path(tempfile.mkdtemp(prefix="gpubroker-"))
        try:
            key = await LeaseKey.make(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # From the system, and not repeatable as ids are: it proves whose machine answers.
        return cls(folder, key, f"nonce-{token_hex(12)}", secrets=secrets)

    @classmethod
    def restore(cls, kept: KeptLease, reach: KeptReach) -> Self:
        """The way to a machine that another broker rented; it must show the same host keys.

        Raises:
            OSError: the key cannot be written.
        """
        from gpubroker.transport.ssh import LeaseKey

        folder = Path(tempfile.mkdtemp(prefix="gpubroker-"))
        key = LeaseKey.restore(folder, kept.private_key, kept.public_key)
        link = cls(folder, key, kept.nonce, secrets=False)
        link._host_keys, link._known_by = reach.host_keys, reach.host_identity
        return link

    @property
    def host_keys(self) -> tuple[str, ...]:
        """The host keys that are believed, as far as there are any yet."""
        from gpubroker.transport.ssh.known_hosts import KnownHosts

        return self._host_keys or KnownHosts(self._folder, ()).keys

    def discard(self) -> None:
        """Remove the key, and whatever lies with it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # ---- from a machine that runs to a machine that answers -------------------------------

    async def reach(self, provider: Provider, machine: Machine, running_for: float) -> str:
        """Try once to reach the machine.

        Args:
            running_for: seconds since the provider first said that it runs.

        Returns:
            Why it cannot be reached yet; nothing once it has answered.

        Raises:
            ProviderError: it is not the machine that was rented, or cannot be shown to be.
        """
        if not machine.ssh:
            said = await self._log(provider, machine)
            return "" if self.nonce in said else "its log does not show that it has begun"
        if not machine.routes:
            return "the provider does not say yet where it is reached"
        if not self._host_keys:
            await self._identify(provider, machine)
        patient = running_for < provider.facts.identity_timeout
        if not self._host_keys and patient:
            return "its log does not show its host keys yet"
        if not self._host_keys and self.secrets:
            raise _not_ours(
                f"its log did not show its host keys within {provider.facts.identity_timeout:g} s,"
                " and secrets are only sent to a machine whose identity is proven"
            )
        try:
            channel = await self._connect(machine.routes)
            if not self._host_keys:
                await self._compare(channel)
        except ChannelLost as error:
            return str(error)
        seen = HostIdentity.PINNED if self._host_keys else HostIdentity.FIRST_USE
        self.host_identity = self._known_by or seen
        self.channel = channel
        return ""

    async def _identify(self, provider: Provider, machine: Machine) -> None:
        from gpubroker.transport.host_identity import host_keys

        self._host_keys = host_keys(await self._log(provider, machine), self.nonce)

    @staticmethod
    async def _log(provider: Provider, machine: Machine) -> str:
        """What it printed, as far as that is to be had now."""
        with suppress(ProviderError):
            return await provider.logs(machine)
        return ""

    async def _connect(self, routes: Sequence[Route]) -> Channel:
        """Have the keeping task connect: a channel is opened and closed in one task."""
        if self._open is not None:
            return self._open  # it mends itself
        self._routes, self._failure, self._tried = routes, None, anyio.Event()
        self._wanted.set()
        await self._tried.wait()
        if self._failure is not None:
            raise self._failure
        assert self._open is not None
        return self._open

    async def _compare(self, channel: Channel) -> None:
        """Make sure that whoever answered first has at least seen our order."""
        said = await _answer(channel, _NONCE)
        if said.strip() != self.nonce.encode():
            raise _not_ours("whoever answers there does not know what the machine was told")

    async def answers(self, provider: Provider, machine: Machine | None) -> bool:
        """Whether the machine can be asked now, whatever a listing says of it."""
        with anyio.move_on_after(_QUICK), suppress(ProviderError):
            if self.channel is not None:
                await _answer(self.channel, ":")
                return True
            if machine is not None and not machine.ssh:
                return self.nonce in await provider.logs(machine)
        return False

    # ---- keeping it -----------------------------------------------------------------------

    async def keep(self, given_up: anyio.CancelScope) -> None:
        """Connect when asked to, give signs of life, and clean up once the lease is given up."""
        from gpubroker.transport.ssh import open_channel

        try:
            with given_up:
                while True:
                    await self._wanted.wait()
                    self._wanted = anyio.Event()
                    try:
                        async with open_channel(
                            self._routes,
                            key=self.key,
                            host_keys=self._host_keys,
                            folder=self._folder,
                        ) as channel:
                            self._open = channel
                            self._tried.set()
                            await _beat(channel)
                    except ProviderError as error:
                        self._failure = error
                    finally:
                        self._tried.set()
        finally:
            self._failure = self._failure or ChannelLost("the lease was given up")
            self._tried.set()
            self.discard()


async def _beat(channel: Channel) -> None:
    while True:
        # Whoever uses the channel meets the same fault and says so; it stays open for them.
        with suppress(ProviderError):
            await _answer(channel, _BEAT)
        await anyio.sleep(HEARTBEAT)


async def _answer(channel: Channel, script: str) -> bytes:
    """The first 4 KiB of what a short script prints."""
    said = b""
    with anyio.move_on_after(60.0) as scope:
        async with channel.execute(script) as execution:
            # A script that is gone already is one that has said all it had to say.
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await execution.stdin.aclose()
                while len(said) < 4096:
                    said += await execution.stdout.receive()
    if scope.cancelled_caught:
        raise ChannelLost("the machine did not answer for 60 s")
    return said


def _not_ours(message: str) -> ProviderError:
    return ProviderError(message, kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST)
