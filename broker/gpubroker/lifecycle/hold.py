"""A lease in this broker's hands: its row, its machine, and who must be told of changes."""

from __future__ import annotations

import anyio

from gpubroker.errors import ProviderError
from gpubroker.lifecycle.link import Link
from gpubroker.model.leases import LeaseRow, ReleaseState
from gpubroker.model.machines import Machine
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.plugins import Provider
from gpubroker.transport.channel import Channel


class Hold:
    """One lease that this broker made.

    Attributes:
        row: the newest version that this broker has read or written.
        image: the container image that was asked for.
        machine: what the vendor made; ``None`` until the create is answered.
        failure: why there is no machine, once the create was answered without one.
        answered: set once the create was answered, or can be answered no more.
        link: the way to it over SSH, where its provider's machines are reached so.
        release_reason: why its release was asked for. Absorbing: once set, the lease is of no
            further use to its holder, whatever the ledger says by then.
        allowance: USD for the request that it is part of; ``None`` is no limit.
        drain_reason: why it is to be given up as soon as no job runs on it; empty if it is not.
        lost: it was asked for because the machine went away by itself.
        unattended: a sweep has adopted it with its job: nobody here waits for either.
        left: this broker lets go of it, and leaves it to whoever finds it.
        unended: a job was given up on it whose end nobody has seen, and which may run still.
        ends_at: when its lifetime is over, by the event loop's clock, which nobody sets back.
        running: ids of what is under way on it: jobs, set-up, probes and servers.
        life_ends: Unix time beyond which its deadline is never moved.
    """

    def __init__(
        self,
        row: LeaseRow,
        provider: Provider,
        offer: Offer,
        image: str | None = None,
        allowance: Money | None = None,
        *,
        now: float | None = None,
    ) -> None:
        self.row = row
        self.allowance = allowance
        self.drain_reason = ""
        self.ends_at = anyio.current_time() + row.deadline - (now or row.created_at)
        self.life_ends = row.deadline
        self.running: set[str] = set()
        self.image = image
        self.provider = provider
        self.offer = offer
        self.machine: Machine | None = None
        self.failure: ProviderError | None = None
        self.answered = anyio.Event()
        self.link: Link | None = None
        self.release_reason: str | None = None
        self.lost = False
        self.unattended = False
        self.left = False
        self.unended = False
        self._acknowledged = anyio.Event()
        self._proven = anyio.Event()
        self._users: dict[anyio.CancelScope, None] = {}

    def __repr__(self) -> str:
        return f"<Hold {self.row.id} {self.row.state} on {self.row.provider}>"

    def update(self, row: LeaseRow) -> None:
        """Take note of a newer version of the row."""
        self.row = row
        if row.release_state in (ReleaseState.ACKNOWLEDGED, ReleaseState.PROVEN):
            self._acknowledged.set()
        if row.release_state is ReleaseState.PROVEN:
            self._proven.set()

    def extended(self, row: LeaseRow, now: float) -> None:
        """Take note of a later deadline, at Unix time `now`."""
        self.update(row)
        self.ends_at = anyio.current_time() + row.deadline - now

    def interrupt(self) -> None:
        """End whatever uses the machine: it is being given up."""
        for scope in tuple(self._users):
            scope.cancel()

    def leave(self) -> None:
        """Let go of it without giving it up: its job goes on, for somebody else to deliver."""
        self.left = True
        self.interrupt()

    def wait_no_more(self) -> None:
        """Another process sees to it: what comes of it is not waited for here."""
        self._acknowledged.set()
        self._proven.set()

    def use(self, scope: anyio.CancelScope) -> None:
        """Have `scope` cancelled when the lease is given up."""
        self._users[scope] = None
        if self.release_reason is not None or self.left:
            scope.cancel()

    def disuse(self, scope: anyio.CancelScope) -> None:
        """Undo `use`."""
        self._users.pop(scope, None)

    @property
    def channel(self) -> Channel | None:
        """The way to the machine, where there is one and it has answered."""
        return None if self.link is None else self.link.channel

    @property
    def done(self) -> bool:
        """Whether there is nothing left to be done about it."""
        return self.row.release_state is ReleaseState.PROVEN

    @property
    def release_state(self) -> ReleaseState:
        """How far giving it up has come."""
        state = self.row.release_state
        asked = state is ReleaseState.HELD and self.release_reason is not None
        return ReleaseState.REQUESTED if asked else state

    async def acknowledged(self) -> None:
        """Wait until the provider accepted the destroy."""
        await self._acknowledged.wait()

    async def proven(self) -> None:
        """Wait until it is proven gone."""
        await self._proven.wait()
