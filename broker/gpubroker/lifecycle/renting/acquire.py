"""From requirements to a machine in hand: round after round of quotes, a plan, and attempts.

Everything decided here is decided by `gpubroker.policy`; this module awaits things in its order
and keeps the record of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NoReturn

import anyio

from gpubroker.errors import (
    AcquireError,
    AcquireStopped,
    AttemptsExhausted,
    BudgetExceeded,
    DeadlineExceeded,
    ErrorKind,
    NoOfferFits,
    ProviderError,
)
from gpubroker.ledger.ledger import NoPlace, OverLimit
from gpubroker.lifecycle.hold import Hold
from gpubroker.lifecycle.parts import Parts
from gpubroker.lifecycle.releasing.supervise import Supervisor
from gpubroker.lifecycle.renting.attempt import Conditions, bring_up, intend, money_left
from gpubroker.lifecycle.renting.quoting import ask_all
from gpubroker.model.decisions import (
    Attempt,
    AttemptState,
    Constraint,
    DecisionRecord,
    ProviderProblem,
    Verdict,
)
from gpubroker.model.events import EventKind
from gpubroker.model.jobs import Job
from gpubroker.model.leases import LeaseState, OnOwnerDeath, ReleaseState
from gpubroker.model.money import Money
from gpubroker.model.offers import Offer
from gpubroker.model.pools import PoolShare
from gpubroker.model.requirements import Requirements
from gpubroker.policy.budget import Claim, limits, machine_limits
from gpubroker.policy.cooldown import cooling
from gpubroker.policy.fallback import after, rules_out
from gpubroker.policy.plan import Market, Terms, plan
from gpubroker.policy.policy import Policy
from gpubroker.policy.pricing import CREATE_DEADLINE, lifetime_within, spent
from gpubroker.policy.retry import Step
from gpubroker.policy.waiting import next_round
from gpubroker.settings import NO_BUDGET


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One request for a machine.

    Attributes:
        wanted: the requirements, or several in order of preference.
        providers: names of those that may be asked. off: the others, and why.
        allowance: USD for this request, all attempts together; ``None`` is no limit.
        lifetime: seconds that the machine may live, or ``None`` for the default.
        needed: seconds that the job needs at the least.
        secrets: secrets are meant for the machine: its identity must be proven.
        job: the only one that the machine is for; ``None`` where more may come.
        reached: there must be a way to the machine: not all it is to do can be handed over.
        earlier: the record of a machine that was lost under the same job. Its cost counts
            against the same allowance.
        on_owner_death: what becomes of the machine when this broker dies.
        share: of which pool the machine becomes part, if of any.
    """

    wanted: tuple[Requirements, ...]
    providers: frozenset[str]
    policy: Policy
    allowance: Money | None = None
    lifetime: float | None = None
    needed: float = 0.0
    tags: tuple[str, ...] = ()
    secrets: bool = False
    job: Job | None = None
    reached: bool = False
    earlier: DecisionRecord | None = None
    on_owner_death: OnOwnerDeath = "release"
    share: PoolShare | None = None
    off: Mapping[str, str] = field(default_factory=dict[str, str])


async def _means(parts: Parts, claim: Claim) -> tuple[Money | None, dict[str, Money]]:
    """USD that may still be spent on a lease, and the same where a provider has limits of its own."""
    left_with: dict[str, Money] = {}
    for name in parts.budget.provider:
        left = await money_left(parts, limits(parts.budget, replace(claim, provider=name)))
        if left is not None:
            left_with[name] = left
    return await money_left(parts, limits(parts.budget, claim)), left_with


async def survey(
    parts: Parts, wish: Wish, request_id: str
) -> tuple[tuple[Verdict, ...], tuple[ProviderProblem, ...]]:
    """Ask all providers, and judge every offer: the verdicts, and who gave no usable answer."""
    claim = Claim(at=parts.now(), request_id=request_id, tags=wish.tags, allowance=wish.allowance)
    left, left_with = await _means(parts, claim)
    await parts.recall.read(parts.ledger)
    quotes = await ask_all(parts, wish.wanted, wish.providers, wish.policy)
    now = parts.now()
    market = Market(
        offers=quotes.offers,
        facts={name: provider.facts for name, provider in parts.providers.items()},
        cooldowns=parts.recall.cooldowns,
        memory=parts.recall.memory(now),
        now=now,
    )
    terms = Terms(wish.lifetime, wish.needed, left, wish.reached, left_with)
    verdicts = plan(market, wish.wanted, terms, wish.policy.rank, wish.policy.work)
    return verdicts, tuple(quotes.problems)


async def look(parts: Parts, wish: Wish) -> DecisionRecord:
    """What would be tried now, and in which order. Rents nothing, writes nothing."""
    # No request has an empty id, so that nothing is spent of its allowance.
    verdicts, problems = await survey(parts, wish, "")
    wanted = ", or ".join(map(str, wish.wanted))
    return DecisionRecord(
        id="", wanted=wanted, asked_at=parts.now(), verdicts=verdicts, problems=problems
    )


class Acquisition:
    """One request under way. `record` is true at every moment of it."""

    def __init__(self, parts: Parts, supervisor: Supervisor, wish: Wish) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._wish = wish
        self._policy = wish.policy
        self.record = wish.earlier or DecisionRecord(
            id=parts.new_id("request"),
            wanted=", or ".join(map(str, wish.wanted)),
            asked_at=parts.now(),
        )
        self._before = len(self.record.attempts)
        self._ruled_out: set[str] = set()
        self._given_up: list[Hold] = []

    async def machine(self) -> tuple[Hold, Requirements]:
        """A running machine, and which of the requirements it meets.

        Raises:
            AcquireError: there is none to be had; the error carries the record.
        """
        try:
            with anyio.move_on_after(self._policy.acquire_timeout) as scope:
                return await self._rounds()
            assert scope.cancelled_caught
            limit = self._policy.acquire_timeout
            self._fail(DeadlineExceeded, f"no machine within {limit:g} s")
        finally:
            # Also on the way out of a cancellation: what was tried is worth keeping. It costs no
            # await, and a ledger that cannot take it must not hide the error.
            self._keep_record()

    async def _rounds(self) -> tuple[Hold, Requirements]:
        """Ask the market until a machine runs, or the time for waiting is over."""
        began, rounds = anyio.current_time(), 0
        while True:
            rounds += 1
            try:
                return await self._round()
            except (NoOfferFits, AttemptsExhausted, BudgetExceeded) as error:
                if isinstance(error, BudgetExceeded) and not isinstance(error.__cause__, NoPlace):
                    raise  # waiting brings no money, but places
                if self._wish.share is not None and isinstance(error, BudgetExceeded):
                    raise  # a pool looks itself whether there is a place
                pause = next_round(
                    rounds,
                    anyio.current_time() - began,
                    self._policy.wait,
                    self._parts.recall.cooldowns,
                    self._parts.now(),
                    self._parts.source,
                )
                if pause is None or self._attempts_made() >= self._policy.retry.max_attempts:
                    raise
                self._parts.emit(EventKind.WAITING, f"{error}; asking again in {pause:.0f} s")
                await anyio.sleep(pause)

    async def _round(self) -> tuple[Hold, Requirements]:  # noqa: RET503 - `_fail` never returns
        last: ProviderError | None = None
        full: dict[str | None, NoPlace] = {}
        verdicts = await self._plan()
        for index, verdict in enumerate(verdicts):
            offer = verdict.offer
            if last is not None and self._condemned(offer):
                continue
            if None in full or offer.provider in full:
                continue
            if self._parts.is_taken(offer):
                continue
            others = any(
                v.offer.provider != offer.provider and not self._condemned(v.offer)
                for v in verdicts[index + 1 :]
            )
            try:
                hold = await self._tries(offer, self._wish.wanted[verdict.alternative], others)
            except ProviderError as failure:
                last = failure
                if self._attempts_made() >= self._policy.retry.max_attempts:
                    break
            except OverLimit as over:
                if verdict is verdicts[-1] and last is None and not full:
                    self._fail(BudgetExceeded, str(over))
            except NoPlace as taken:
                full[taken.limit.provider] = taken
            else:
                self._explain_winner(offer)
                return hold, self._wish.wanted[verdict.alternative]
        if full and last is None:
            first = next(iter(full.values()))
            self._fail(BudgetExceeded, str(first), first)
        self._fail(AttemptsExhausted, self._attempts_text(), last)

    async def _plan(self) -> list[Verdict]:
        """The offers to try, best first."""
        verdicts, problems = await survey(self._parts, self._wish, self.record.id)
        self.record = replace(self.record, verdicts=verdicts, problems=problems)
        ranked = [verdict for verdict in verdicts if verdict.rejection is None]
        if not ranked:
            short = [
                v.rejection
                for v in verdicts
                if v.rejection is not None and v.rejection.constraint is Constraint.BUDGET
            ]
            if short and self._in_the_way():
                await self._until_given_up()
                if not self._in_the_way():
                    return await self._plan()
            if short:
                self._fail(BudgetExceeded, f"nothing fits what may still be spent: {short[0]}")
            self._fail(NoOfferFits, self._no_offer_text())
        return ranked

    def _condemned(self, offer: Offer) -> bool:
        """Whether something that has failed in this very request speaks against `offer`."""
        if offer.provider in self._ruled_out:
            return True
        now = self._parts.now()
        found = cooling(offer, self._parts.recall.cooldowns, now)
        return found is not None and found.since >= self.record.asked_at

    # ---- attempts -------------------------------------------------------------------------

    async def _tries(self, offer: Offer, requirements: Requirements, others: bool) -> Hold:
        """Try one offer as often as the policy says.

        Raises:
            ProviderError: it is time to go on elsewhere.
            AcquireStopped: it is time to stop.
        """
        parts, retry = self._parts, self._policy.retry
        failures: Counter[ErrorKind] = Counter()
        while True:
            try:
                with self._taking(offer) as take:
                    return take(await self._attempt(offer, requirements))
            except ProviderError as failure:
                failures[failure.kind] += 1
                count = failures[failure.kind]
                step = after(failure, count, retry, others=others)
                if step is Step.HERE and self._attempts_made() < retry.max_attempts:
                    pause = retry.pause(failure.kind, count, failure.retry_after, parts.source)
                    parts.emit(EventKind.WAITING, f"{failure}; again in {pause:.1f} s")
                    await anyio.sleep(pause)
                    continue
                parts.recall.attempt_failed(failure, offer, requirements.image, retry, parts.now())
                if rules_out(failure):
                    self._ruled_out.add(offer.provider)
                if step is Step.STOP:
                    self._fail(AcquireStopped, f"{offer.provider}: {failure}", failure)
                raise

    @contextmanager
    def _taking(self, offer: Offer) -> Generator[Callable[[Hold], Hold]]:
        """Keep this broker's other requests from trying, in vain, for the same thing."""
        key, taken = (offer.provider, offer.id), self._parts.taken
        if not offer.single:
            yield lambda hold: hold
            return

        def take(hold: Hold) -> Hold:
            taken[key] = hold
            return hold

        taken[key] = None
        try:
            yield take
        finally:
            if taken[key] is None:
                del taken[key]

    async def _attempt(self, offer: Offer, requirements: Requirements) -> Hold:
        """One try at one offer; whatever way it ends, it ends on record."""
        parts, wish = self._parts, self._wish
        started, state = parts.now(), AttemptState.ABANDONED
        failure: ProviderError | None = None
        held: Hold | None = None
        reason = "the caller left"
        conditions = Conditions(
            request_id=self.record.id,
            lifetime=wish.lifetime,
            needed=wish.needed,
            allowance=wish.allowance,
            timeout=self._policy.attempt_timeout,
            tags=wish.tags,
            secrets=wish.secrets,
            job=wish.job,
            on_owner_death=wish.on_owner_death,
            share=wish.share,
        )
        tried = True
        try:
            await self._make_room(offer)
            hold = held = await intend(
                parts, self._supervisor, offer, requirements.image, conditions
            )
            parts.emit(
                EventKind.ATTEMPT,
                f"renting {offer.title} from {offer.provider} at {offer.price.hourly}/h",
                provider=offer.provider,
                lease_id=hold.row.id,
            )
            await bring_up(parts, self._supervisor, hold, requirements, conditions)
            state, reason = AttemptState.WON, ""
            now = parts.now()
            parts.recall.attempt_worked(offer, requirements.image, now - started, now)
            return hold
        except ProviderError as error:
            failure, state, reason = error, AttemptState.FAILED, str(error)
            raise
        except OverLimit as error:
            state, reason = AttemptState.REFUSED_BUDGET, str(error)
            raise
        except NoPlace:
            tried = False
            raise
        finally:
            if held is not None and state is not AttemptState.WON:
                self._supervisor.request_release(held, reason)
                self._given_up.append(held)
            if tried:
                self._note_attempt(offer, held, started, state, failure, reason)

    def _in_the_way(self) -> list[Hold]:
        """What has failed here, and has not been given up yet: it takes up a place, and money."""
        given_up = (ReleaseState.ACKNOWLEDGED, ReleaseState.PROVEN)
        return [hold for hold in self._given_up if hold.release_state not in given_up]

    async def _until_given_up(self) -> None:
        with anyio.move_on_after(CREATE_DEADLINE):
            for hold in self._given_up:
                await hold.acknowledged()

    async def _make_room(self, offer: Offer) -> None:
        """Wait for what has just failed to be given up, where it leaves too little for an offer."""
        budget, tags = self._parts.budget, self._wish.tags
        limited = self._wish.share is not None or machine_limits(budget, budget.provider, tags)
        if self._in_the_way() and (limited or await self._is_short(offer)):
            await self._until_given_up()

    async def _is_short(self, offer: Offer) -> bool:
        """Whether what is left does not pay for an offer as it would if nothing had been tried."""
        parts, wish = self._parts, self._wish
        claim = Claim(
            at=parts.now(),
            request_id=self.record.id,
            provider=offer.provider,
            tags=wish.tags,
            allowance=wish.allowance,
        )
        left = await money_left(parts, limits(parts.budget, claim))
        facts = parts.providers[offer.provider].facts

        def within(money: Money | None) -> float | None:
            return lifetime_within(
                offer.price, facts, wanted=wish.lifetime, needed=wish.needed, left=money
            )

        return within(left) != within(None)

    def _attempts_made(self) -> int:
        return len(self.record.attempts) - self._before

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
        name = self._policy.rank.name
        others = f"first of {fitting} by {name}" if fitting > 1 else "the only one that fits"
        if self._attempts_made() > 1:
            others = f"the first that worked, after {self._attempts_made() - 1} that did not"
        why = f"{offer.title} from {offer.provider} at {offer.price.hourly}/h: {others}"
        self.record = replace(self.record, why=why)

    def _attempts_text(self) -> str:
        lines = [
            f"{a.provider} {a.title} ({a.offer_id}): {a.kind or a.state}"
            f"{f' [{a.scope}]' if a.scope else ''}: {a.reason}"
            for a in self.record.attempts
        ]
        if not lines:
            return "this broker has every offer that fits already"
        return "every offer that fits was tried and failed: " + "; ".join(lines)

    def _no_offer_text(self) -> str:
        wanted, verdicts = self._wish.wanted, self.record.verdicts
        off = {
            name: why
            for name, why in self._wish.off.items()
            if any(name in r.providers or not r.providers for r in wanted)
        }
        unanswered = [f"{p.provider}: {p.message}" for p in self.record.problems]
        unanswered += [
            f"{name} is {why}, and rents nothing without a limit"
            for name, why in off.items()
            if why == NO_BUDGET
        ]
        if verdicts:
            nearest = verdicts[0]
            count, title = len(verdicts), nearest.offer.title
            seen = f"none of {count} offers fits; the cheapest, {title}: {nearest.rejection}"
            return "; ".join([seen, *unanswered])
        failed = {problem.provider for problem in self.record.problems}
        asked = sorted(
            name
            for name in self._wish.providers - failed
            if any(name in r.providers or not r.providers for r in wanted)
        )
        if asked:
            nothing = f"{', '.join(asked)} offered nothing that meets {self.record.wanted}"
            return "; ".join([nothing, *unanswered])
        if failed:
            return "; ".join(unanswered)
        named = sorted({name for r in wanted for name in r.providers})
        absent = f"{', '.join(named)} takes no part" if named else "no provider takes part"
        return "; ".join([absent, *unanswered, "see `gpubroker providers`"])

    def _fail(
        self, kind: type[AcquireError], message: str, cause: Exception | None = None
    ) -> NoReturn:
        self.record = replace(self.record, why=message)
        raise kind(message, self.record) from cause

    def _keep_record(self) -> None:
        record, recall = self.record, self._parts.recall
        cooldowns, experiences = recall.unwritten()
        try:
            self._parts.ledger.at_once(
                lambda ledger: ledger.put_record(record, cooldowns, experiences)
            )
            recall.written()
        except Exception as error:  # noqa: BLE001
            self._parts.emit(EventKind.ALARM, f"the decision record could not be kept: {error}")
