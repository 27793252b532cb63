"""The provider contract: how to teach gpubroker to rent from somewhere new.

A provider plugin is one object with ``async`` methods marked `hookimpl`, a ``facts`` attribute,
and a factory named by an entry point::

    # pyproject.toml of your distribution
    [project.entry-points.gpubroker]
    acme = "gpubroker_acme:create"

    # gpubroker_acme.py
    from gpubroker import AccountSettings, Emit, Machine, Offer, Price, ProviderFacts, hookimpl

    class Acme:
        contract = 1
        facts = ProviderFacts(paid=True)

        @hookimpl
        async def quote(self, requirements): ...

    def create(settings: AccountSettings, emit: Emit) -> Acme:
        return Acme()

The broker calls the factory once per broker and account, with that account's settings and a
callback for events; the plugin reads nothing else from its surroundings, the environment least
of all. If the object is an async context manager it is entered before the first hook and left
after the last one, in one event loop: the place for an HTTP client.

Hooks may leave out arguments that they do not need. Each call has a deadline and may be
cancelled at any ``await``; the broker then treats the answer as unknown. A hook that fails
raises `gpubroker.ProviderError`; any other exception is taken as a fault of the plugin. A plugin
must never block the event loop: one that does is named.

`gpubroker new-provider` begins a plugin that works; docs/providers.md goes through it part by part.

This is version 1 of the contract, the first one. A plugin says in its attribute ``contract`` which
version it was written for; one that does not say was written for this first one. A plugin for a
version that this gpubroker does not know is not opened, and `gpubroker providers` says which of the
two to update. The version grows when a plugin that was right would become wrong, and for no new
optional hook, fact or value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import pluggy

from gpubroker.model.charges import Charge
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.jobs import Job
from gpubroker.model.machines import Machine, Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.model.results import Outcome

if TYPE_CHECKING:
    from gpubroker.transport.channel import Channel
    from gpubroker.transport.job_io import JobIO

CONTRACT_VERSION: Final = 1
"""The version of the contract in this module."""

OLDEST_CONTRACT: Final = 1
"""The oldest version that plugins may still be written for."""

_spec = pluggy.HookspecMarker("gpubroker")
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker("gpubroker")

Emit = Callable[[str, str], None]
"""Reports an event to the broker: a short kind (``"retry"``) and one sentence. No secrets."""


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """The settings of one account, as its provider's factory gets them.

    Attributes:
        name: the provider's name.
        options: every setting of this provider but the key, as text. Shown by no repr either,
            since a plugin may keep a token of its own there.
        key: the account key, or ``None``. Shown by no repr.
        url: where the provider's API is, when it is not at its usual address (an emulator).
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    key: str | None = field(default=None, repr=False)
    url: str | None = None


class ProviderPlugin(Protocol):
    """What a factory must return at the least; the hooks are found by their marks."""

    @property
    def facts(self) -> ProviderFacts:
        """What the provider declares about itself."""
        ...


# --------------------------------------------------------------------------------------------
# In the order in which the broker calls them
# --------------------------------------------------------------------------------------------


@_spec(firstresult=True)
async def quote(requirements: Requirements) -> Sequence[Offer]:
    """What could be rented now for `requirements`, at which price.

    Called: for every request, for all providers at once, each with its own deadline.

    Return: offers with everything the provider knows; an unknown part stays ``None``. It may
    return too much, since the broker checks every requirement again; but filter on the
    provider's side where it can, and keep to a sensible number. Prices are for the whole
    machine, exact (`Money` from text or ``Decimal``, never through ``float`` arithmetic), with the
    disk priced for ``requirements.disk_gb``. Nothing to rent is an empty list.

    Raise: `ProviderError`; the other providers' offers are used without this one's.

    May be called again: any number of times, at any moment.
    """
    raise NotImplementedError


@_spec(firstresult=True)
async def provision(offer: Offer, order: Order) -> Machine:
    """Rent `offer`. Return as soon as the vendor accepted; never wait for the machine to boot.

    Called: once per attempt, after the intent and the money are on record. No layer may send
    the create again: not the plugin, not its HTTP client.

    May assume: ``offer`` is one that this plugin's ``quote`` returned. ``order.mark`` must be part of
    the create request itself, so that ``inventory`` can report it even if the answer is lost.
    Refuse a price above ``order.price_ceiling`` where the vendor lets you.

    Return: the machine, with the vendor's id.

    Raise: `ProviderError` with kind and scope when the vendor clearly refused, with
    ``machine_id`` if the answer names a machine all the same; `CreateUnknown` whenever a machine
    may exist although no answer says so (timeout, connection cut, 5xx, unreadable answer).

    Cancelled: counts as `CreateUnknown`.
    """
    raise NotImplementedError


@_spec(firstresult=True)
async def inventory() -> Sequence[Machine]:
    """Every machine of the account, this broker's or not, each with its mark where it has one.

    Required of providers whose machines are paid for.

    Called: while machines boot, are released or are swept; one call serves all of them, not
    more often than ``facts.poll_interval``.

    Return: all of them, from all pages. A machine whose row cannot be understood is still
    returned, as well as it can be. Tombstones may be included, as ``MachineState.GONE``.

    Raise: `ProviderError` when the list may be incomplete, for whatever reason. An empty list
    means "this account has no machine" and is believed.

    May be called again: any number of times.
    """
    raise NotImplementedError


@_spec(firstresult=True)
async def run(machine: Machine, job: Job, io: JobIO, channel: Channel | None) -> Outcome:
    """Run `job` on `machine`: place its files, run it, stream its output, bring outputs back.

    Called: on a machine that is ready, one job at a time, and beside it the servers that its lease
    runs: ``io.purpose`` is ``"service"``. `channel` is the way there
    where ``facts.ssh`` is declared; then `gpubroker.transport.run_job` does all of this. It is
    ``None`` for a machine whose ``ssh`` is false: that runs the jobs of its order by itself, is asked for
    them in that order, and ``io.purpose`` says for which.

    May assume: ``io.job_id`` is new, unless ``io.begun``: then another process started the job,
    which only a provider with ``facts.reattaches`` is asked for. ``io.env`` is the complete environment that the job asked for,
    secrets included. Use `io` for everything that comes back; it checks names and sizes.

    Return: the outcome. A non-zero exit is an outcome, not an error.

    Raise: `ProviderError`; the kind `HOST_BROKEN` means that the machine is lost.

    Cancelled: end the job, unless ``io.leave_running``. The machine is usually released right after.
    """
    raise NotImplementedError


@_spec(firstresult=True)
async def release(machine: Machine) -> None:
    """End billing for `machine`: destroy it; never stop it.

    Called: until an inventory proves it gone, so usually more than once, from any process, and
    for machines that may be gone already: all of these return quietly. Only ``machine.id`` is
    certain; what ``details`` holds may be from long ago, or be missing.

    Return: when the vendor accepted. It need not be gone yet.

    Raise: `ProviderError`, meaning "not yet". The broker tries again, for ever.
    """
    raise NotImplementedError


# --------------------------------------------------------------------------------------------
# Optional
# --------------------------------------------------------------------------------------------


@_spec(firstresult=True)
async def logs(machine: Machine) -> str:
    """The last part of what `machine` printed, read through the vendor's authenticated API.

    Called: while a machine boots that is reached over SSH, every few seconds, until the log shows
    ``order.nonce`` with the machine's host keys. Without this hook, or where the log never shows
    them, the key that the machine presents first is believed, and secrets are not sent to it.

    Return: text; the empty text while there is none yet.

    Raise: `ProviderError`; the log is asked for again.
    """
    raise NotImplementedError


@_spec(firstresult=True)
async def charges(since: float, until: float) -> Sequence[Charge]:
    """What the vendor billed for each machine that lived between two moments (Unix time).

    Called: ``facts.charges_after`` seconds after a release, to put the real cost on record.

    Return: one charge per machine, over its whole life. A machine that is left out is not known
    to have cost anything yet.

    Raise: `ProviderError`; asked again later.
    """
    raise NotImplementedError


@_spec(firstresult=True)
async def balance() -> Money:
    """USD that the account has left to spend.

    Called: when a person asks. Raise: `ProviderError`.
    """
    raise NotImplementedError
