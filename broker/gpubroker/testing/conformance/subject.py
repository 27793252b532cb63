"""What a conformance test is about: one plugin, one account, and the vendor's own view of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpubroker.hookspecs import AccountSettings
from gpubroker.model.money import Money
from gpubroker.model.requirements import Requirements
from gpubroker.plugins import Factory

if TYPE_CHECKING:
    from gpubroker.testing.conformance.real import RealAccount

Do = Callable[[], object]
"""Makes something happen at the vendor, and returns once it will."""


class NotDeclared(Exception):
    """A check does not apply to a subject, and why: a test that meets it is skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorBooks:
    """What the vendor itself knows: the other side of every promise. Never asked of the plugin.

    Attributes:
        running: ids of the machines that exist and bill at this moment, shown to anybody or not.
            ``None`` on a real account, whose books nobody can see: there the plugin's own list is
            believed about the machines that a check has ordered.
        creates: how many requests to create a machine have arrived so far.
        targets: the path and the query of every request so far, in order.
        orders: the body of every request to create a machine so far, in order, as text.
        hourly: USD per hour that a machine that runs really costs, by its id.
        billed: USD that a machine has cost in all, by its id, as its final bill has it.
        balance: USD that the account has left.
    """

    running: Callable[[], Collection[str]] | None
    creates: Callable[[], int] | None = None
    targets: Callable[[], Sequence[str]] | None = None
    orders: Callable[[], Sequence[str]] | None = None
    hourly: Callable[[str], Money] | None = None
    billed: Callable[[str], Money] | None = None
    balance: Callable[[], Money] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubles:
    """What can be made to go wrong at the vendor. What is left out is not checked.

    Attributes:
        calm: undo all of these; called after each check, however it ended.
        lost_creates: by a name for people: the next create is carried out, and no answer that
            could be understood says so (a cut connection, a 502, half of the JSON).
        billing_refusal: the next create is refused, and the refusal names a machine that bills.
        broken_listings: by name: from now on, what ``inventory`` reads fails, or lacks machines
            in a way that can be told.
        slow_boot: the next machine takes a minute to boot.
        others: make machines that this broker did not order, one with somebody else's words
            for a mark and one with none, and return their ids.
        echoes: by name: from now on every answer is a refusal that quotes the account key.
        newer: from now on answers have parts and words that nobody knows yet.
    """

    calm: Do = lambda: None
    lost_creates: Mapping[str, Do] = field(default_factory=dict[str, Do])
    billing_refusal: Do | None = None
    broken_listings: Mapping[str, Do] = field(default_factory=dict[str, Do])
    slow_boot: Do | None = None
    others: Callable[[], Collection[str]] | None = None
    echoes: Mapping[str, Do] = field(default_factory=dict[str, Do])
    newer: Do | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A provider to be checked, on an emulator or a scripted vendor of its own.

    What is declared here must be so: a hook that a plugin lost must fail a check, and not
    silently skip it.

    Attributes:
        name: the provider's name.
        factory: what the plugin's entry point names.
        settings: the account's settings, as the broker would hand them over.
        wanted: arguments of `gpubroker.Requirements` that the vendor always has a machine for.
            The cheapest of them is what checks rent.
        books: the vendor's own.
        troubles: what can be made to go wrong.
        paid, ssh: as the plugin's facts must say. logs, charges, balance: it has this hook.
        spot: it offers interruptible machines.
        doubles: it sells the same GPU one and two at a time.
        bills_disk: more disk costs more.
        runs_jobs: it runs the jobs of an order by itself where it can, without SSH.
        announces: the log of a machine that runs shows the order's nonce.
        ends_itself: a machine there ends by itself at the order's deadline, which its create names
            as Unix time or in ISO 8601.
        unknown_id: what an id looks like, of a machine that never was; ``None`` where any could
            be somebody's.
        account: the real account that this is, and what may be spent there.
        patience: seconds that anything may take which a vendor does later: to list a machine, to
            boot it, to end it.
    """

    name: str
    factory: Factory
    settings: AccountSettings
    wanted: Mapping[str, Any]
    books: VendorBooks
    unknown_id: str | None
    troubles: Troubles = field(default_factory=Troubles)
    paid: bool = True
    ssh: bool = False
    logs: bool = False
    charges: bool = False
    balance: bool = False
    spot: bool = False
    doubles: bool = False
    bills_disk: bool = False
    runs_jobs: bool = False
    announces: bool = False
    ends_itself: bool = False
    account: RealAccount | None = None
    patience: float = 10.0

    def requirements(self, **changes: Any) -> Requirements:
        """What is rented by default, with some parts of it changed."""
        return Requirements(**{**self.wanted, **changes})

    def need(self, declared: object, what: str) -> None:
        """Leave a check that does not apply.

        Raises:
            NotDeclared: `declared` is empty or false.
        """
        if not declared:
            raise NotDeclared(f"{self.name}: {what}")

    def creates(self) -> int:
        """How many creates have arrived so far; always 0 where nobody counts them."""
        return 0 if self.books.creates is None else self.books.creates()


SubjectMaker = Callable[[], AbstractContextManager[Subject]]
"""Makes a vendor and a subject on it, for one check; leaving it, the vendor ends."""
