"""From requirements to a machine in hand: quote, plan, reserve, create, wait; or the next offer.

Everything decided here is decided by `gpubroker.policy`; this module awaits things in its order
and keeps the record of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import anyio

from gpubroker.errors import (
    AcquireStopped,
    AttemptsExhausted,
    BudgetExceeded,
    DeadlineExceeded,
    ErrorKind,
    NoOfferFits,
    ProviderError,
    Scope,
)
from gpubroker.ledger.ledger import OverLimit
from gpubroker.ledger.rows import Limit
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.quoting import ask_all
from gpubroker.lifecycle.readiness import wait_until_running
from gpubroker.lifecycle.release import resolve_unknown
from gpubroker.lifecycle.supervise import Supervisor
from gpubroker.model.decisions import (
    Attempt,
    AttemptState,
    Constraint,
    DecisionRecord,
)
from gpubroker.model.events import EventKind
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.machines import Order
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy.fallback import Step, after, condemned
from gpubroker.policy.plan import Ranking, Terms, cheapest, plan
from gpubroker.policy.pricing import lifetime_within, spent, worst_case


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One request for a machine.

    Attributes:
        providers: names of those that may be asked.
        budgets: limits that the worst case must fit, besides what this request may spend.
        allowance: USD for this request, all attempts together; ``None`` is no limit.
        lifetime: seconds that the machine may live, or ``None`` for the default.
        needed: seconds that the job needs at the least.
        deadline: seconds that getting a machine may take.
        earlier: the record of a machine that was lost under the same job. Its cost counts
            against the same allowance, and its host is not tried again.
    """

    requirements: Requirements
    providers: frozenset[str]
    ranking: Ranking = cheapest
    allowance: Money | None = None
    budgets: Sequence[Limit] = ()
    lifetime: float | None = None
    needed: float = 0.0
    deadline: float = 1800.0
    tags: tuple[str, ...] = ()
    earlier: DecisionRecord | None = None


class Acquisition:
    """One request under way. `record` is true at every moment of it."""

    def __init__(self, parts: Parts, supervisor: Supervisor, wish: Wish) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._wish = wish
        self.record = wish.earlier or DecisionRecord(
            id=parts.new_id("request"), wanted=str(wish.requirements), asked_at=parts.now()
        )
        self._request_id = self.record.id

    async def machine(self) -> Hold:
        """A running machine.

        Raises:
            AcquireError: there is none to be had; the error carries the record.
        """
        try:
            with anyio.move_on_after(self._wish.deadline) as scope:
                return await self._first_that_works()
            assert scope.cancelled_caught
            self._fail(DeadlineExceeded, f"no machine within {self._wish.deadline:g} s")
        finally:
            # Also on the way out of a cancellation: what was tried is worth keeping. It costs no
            # await, and a ledger that cannot take it must not hide the error.
            self._keep_record()

    async def _first_that_works(self) -> Hold:  # noqa: RET503 - `_fail` never returns
        failed = self._lost_before()
        offers = await self._plan()
        for index, offer in enumerate(offers):
            if any(condemned(failure, tried, offer) for failure, tried in failed):
                continue
            try:
                hold = await self._attempt(offer)
            except ProviderError as failure:
                failed.append((failure, offer))
                others = any(o.provider != offer.provider for o in offers[index + 1 :])
                if after(failure, others=others) is Step.STOP:
                    self._fail(AcquireStopped, f"{offer.provider}: {failure}", failure)
            except OverLimit as over:
                if offer is offers[-1] and not failed:
                    self._fail(BudgetExceeded, str(over))
            else:
                self._explain_winner(offer)
                return hold
        self._fail(AttemptsExhausted, self._attempts_text(), failed[-1][0] if failed else None)

    def _lost_before(self) -> list[tuple[ProviderError, Offer]]:
        """The machines that were won and lost earlier, as failures of their hosts."""
        lost = {a.offer_id for a in self.record.attempts if a.state is AttemptState.WON}
        failure = ProviderError(
            "the machine was lost", kind=ErrorKind.HOST_BROKEN, scope=Scope.HOST
        )
        return [(failure, v.offer) for v in self.record.verdicts if v.offer.id in lost]

    async def _plan(self) -> list[Offer]:
        """The offers to try, best first."""
        quotes = await ask_all(self._parts, self._wish.requirements, self._wish.providers)
        facts = {name: provider.facts for name, provider in self._parts.providers.items()}
        left = await self._left()
        terms = Terms(self._wish.lifetime, self._wish.needed, left)
        verdicts = plan(
            quotes.offers,
            self._wish.requirements,
            facts,
            terms,
            self._parts.now(),
            self._wish.ranking,
        )
        self.record = replace(self.record, verdicts=verdicts, problems=tuple(quotes.problems))
        ranked = list(self.record.ranked)
        if not ranked:
            reasons = {v.rejection.constraint for v in verdicts if v.rejection is not None}
            if Constraint.BUDGET in reasons:
                self._fail(BudgetExceeded, f"{left} may still be spent, and nothing fits that")
            self._fail(NoOfferFits, self._no_offer_text())
        return ranked

    async def _left(self) -> Money | None:
        """USD that may still be spent, by the tightest limit; the reservation checks it again."""
        limits = self._limits()
        if not limits:
            return None
        taken = await self._parts.ledger(
            lambda ledger: [limit.amount - ledger.committed(limit) for limit in limits]
        )
        return max(Money(0), min(taken, key=lambda money: money.amount), key=lambda m: m.amount)

    def _limits(self) -> list[Limit]:
        own = self._wish.allowance
        mine = (
            [] if own is None else [Limit("budget of this job", own, request_id=self._request_id)]
        )
        return [*mine, *self._wish.budgets]

    async def _attempt(self, offer: Offer) -> Hold:
        """One try at one offer; whatever way it ends, it ends on record."""
        started, state = self._parts.now(), AttemptState.ABANDONED
        failure: ProviderError | None = None
        held: Hold | None = None
        reason = "the caller left"
        try:
            hold = held = await self._intend(offer)
            self._parts.emit(
                EventKind.ATTEMPT,
                f"renting {offer.title} from {offer.provider} at {offer.price.hourly}/h",
                provider=offer.provider,
                lease_id=hold.row.id,
            )
            await self._create(hold)
            await wait_until_running(self._parts, hold)
            state, reason = AttemptState.WON, ""
            return hold
        except ProviderError as error:
            failure, state, reason = error, AttemptState.FAILED, str(error)
            raise
        except OverLimit as error:
            state, reason = AttemptState.REFUSED_BUDGET, str(error)
            raise
        finally:
            if held is not None and state is not AttemptState.WON:
                self._supervisor.request_release(held, reason)
            self._note_attempt(offer, held, started, state, failure, reason)

    async def _intend(self, offer: Offer) -> Hold:
        """Reserve the worst case and write the intent. Nothing leaves before this is durable."""
        parts, wish = self._parts, self._wish
        provider = parts.providers[offer.provider]
        left = await self._left()
        lifetime = lifetime_within(
            offer.price, provider.facts, wanted=wish.lifetime, needed=wish.needed, left=left
        )
        now = parts.now()
        if lifetime is None:
            asked = worst_case(offer.price, wish.lifetime or 60.0, provider.facts)
            raise OverLimit(Limit("budget", left or Money(0)), Money(0), asked)
        row = LeaseRow(
            id=parts.new_id("lease"),
            request_id=self._request_id,
            provider=provider.name,
            state=LeaseState.REQUESTED,
            epoch=1,
            owner=parts.identity.id,
            mark=str(parts.new_mark()),
            title=offer.title,
            offer_id=offer.id,
            machine_id=None,
            hourly=offer.price.hourly,
            quantum=provider.facts.billing_quantum,
            reserved=worst_case(offer.price, lifetime, provider.facts),
            spent=Money(0),
            created_at=now,
            deadline=now + lifetime,
            tags=wish.tags,
        )
        limits = self._limits()
        await self._supervisor.beat()
        await parts.ledger(lambda ledger: ledger.reserve(row, limits))
        return Hold(row, provider, offer)

    async def _create(self, hold: Hold) -> None:
        requirements = self._wish.requirements
        order = Order(
            mark=hold.row.mark,
            lease_id=hold.row.id,
            image=requirements.image,
            disk=requirements.disk_gb,
            ports=requirements.ports,
            env=requirements.env,
            price_ceiling=hold.offer.price.hourly,
            deadline=hold.row.deadline,
        )
        self._supervisor.create(hold, order)
        await hold.answered.wait()
        if hold.row.state is LeaseState.UNKNOWN:
            _, hold.machine = await resolve_unknown(self._parts, hold.row, hold.update)
        if hold.machine is None:
            raise hold.failure or ProviderError(
                "the lease was taken over", kind=ErrorKind.CREATE_UNKNOWN, scope=Scope.OFFER
            )
        self._parts.emit(
            EventKind.ACCEPTED,
            f"{hold.provider.name} accepted: {hold.machine.id}",
            provider=hold.provider.name,
            lease_id=hold.row.id,
        )

    # ---- the record -----------------------------------------------------------------------

    def _note_attempt(
        self,
        offer: Offer,
        hold: Hold | None,
        started: float,
        state: AttemptState,
        failure: ProviderError | None,
        reason: str,
    ) -> None:
        now = self._parts.now()
        billed = hold is not None and hold.row.state is not LeaseState.REFUSED
        attempt = Attempt(
            number=len(self.record.attempts) + 1,
            provider=offer.provider,
            offer_id=offer.id,
            title=offer.title,
            hourly=offer.price.hourly,
            state=state,
            started_at=started,
            ended_at=now,
            lease_id=None if hold is None else hold.row.id,
            kind=None if failure is None else failure.kind,
            scope=None if failure is None else failure.scope,
            reason=reason,
            cost=spent(hold.row, now) if billed and hold is not None else Money(0),
        )
        self.record = replace(self.record, attempts=(*self.record.attempts, attempt))
        if state is AttemptState.FAILED:
            self._parts.emit(
                EventKind.FAILED, reason, provider=offer.provider, lease_id=attempt.lease_id
            )

    def _explain_winner(self, offer: Offer) -> None:
        fitting = len(self.record.ranked)
        others = f"the cheapest of {fitting} that fit" if fitting > 1 else "the only one that fits"
        if len(self.record.attempts) > 1:
            others = f"the first that worked, after {len(self.record.attempts) - 1} that did not"
        why = f"{offer.title} from {offer.provider} at {offer.price.hourly}/h: {others}"
        self.record = replace(self.record, why=why)

    def _attempts_text(self) -> str:
        lines = [
            f"{a.provider} {a.title} ({a.offer_id}): {a.kind or a.state}"
            f"{f' [{a.scope}]' if a.scope else ''}: {a.reason}"
            for a in self.record.attempts
        ]
        return "every offer that fits was tried and failed: " + "; ".join(lines)

    def _no_offer_text(self) -> str:
        if not self.record.verdicts:
            failed = {problem.provider for problem in self.record.problems}
            asked = sorted(self._wish.providers - failed)
            said = [f"{p.provider}: {p.message}" for p in self.record.problems]
            if asked:
                said.insert(
                    0, f"{', '.join(asked)} offered nothing that meets {self.record.wanted}"
                )
            return "; ".join(said) or "no provider takes part; see `gpubroker providers`"
        nearest = self.record.verdicts[0]
        count = len(self.record.verdicts)
        return (
            f"none of {count} offers fits; the cheapest, {nearest.offer.title}: {nearest.rejection}"
        )

    def _fail(
        self,
        kind: type[
            NoOfferFits | AttemptsExhausted | AcquireStopped | BudgetExceeded | DeadlineExceeded
        ],
        message: str,
        cause: Exception | None = None,
    ) -> NoReturn:
        self.record = replace(self.record, why=message)
        raise kind(message, self.record) from cause

    def _keep_record(self) -> None:
        record = self.record
        try:
            self._parts.ledger.at_once(lambda ledger: ledger.put_record(record))
        except Exception as error:  # noqa: BLE001
            self._parts.emit(EventKind.ALARM, f"the decision record could not be kept: {error}")
