"""What follows each failure: the table below is the specification."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.model.decisions import Constraint
from gpubroker.model.facts import ProviderFacts
from gpubroker.model.offers import Offer
from gpubroker.model.requirements import Requirements
from gpubroker.policy.cooldown import condemned, cool_down
from gpubroker.policy.fallback import after
from gpubroker.policy.plan import Market, Terms, plan
from gpubroker.policy.retry import Retry, Step, here, stop
from gpubroker.testing import offer

ELSEWHERE, STOP = Step.ELSEWHERE, Step.STOP
WHOSE = "elsewhere if the whole provider refuses it, and a stop if it is about one offer"
NOW: Final = 1_000_000.0

SAYS, ALL = "as its scope says", "the whole account"
LAST, OUT, FREE = "tried last", "ruled out", "not left alone"


@dataclass(frozen=True)
class Row:
    """What follows failures of one kind, at every scope.

    Attributes:
        here: how often the same offer is tried again first.
        then: what follows while another provider is left. alone: when none is.
        condemns: what is left alone. seconds: for how long. meanwhile: what that means.
    """

    here: int
    then: Step | str
    alone: Step
    condemns: str
    seconds: float
    meanwhile: str


K = ErrorKind
# fmt: off
TABLE: Final = {
    #                     here  then       alone      condemns  seconds  meanwhile
    K.CAPACITY:       Row(0,    ELSEWHERE, ELSEWHERE, SAYS,       60,    LAST),
    K.QUOTA:          Row(0,    ELSEWHERE, ELSEWHERE, SAYS,      600,    LAST),
    K.CREDIT:         Row(0,    ELSEWHERE, STOP,      ALL,       600,    LAST),
    K.AUTH:           Row(0,    ELSEWHERE, STOP,      ALL,       600,    LAST),
    K.BAD_REQUEST:    Row(0,    WHOSE,     STOP,      SAYS,        0,    FREE),
    K.RATE_LIMIT:     Row(4,    ELSEWHERE, ELSEWHERE, SAYS,       30,    LAST),
    K.TRANSIENT:      Row(2,    ELSEWHERE, ELSEWHERE, SAYS,       30,    LAST),
    K.HOST_BROKEN:    Row(0,    ELSEWHERE, ELSEWHERE, SAYS,     3600,    OUT),
    K.CREATE_UNKNOWN: Row(0,    ELSEWHERE, ELSEWHERE, SAYS,      300,    LAST),
    K.PLUGIN:         Row(0,    ELSEWHERE, ELSEWHERE, SAYS,       60,    LAST),
}
# fmt: on

FAILED = replace(offer("RTX 4090", id="failed", region="DE", host="h1"), provider="acme")
SAME_HOST = replace(offer("RTX 3090", id="same host", region="US", host="h1"), provider="acme")
SAME_MODEL = replace(offer("RTX 4090", id="same model", region="US", host="h2"), provider="acme")
SAME_REGION = replace(offer("RTX 3090", id="same region", region="DE", host="h3"), provider="acme")
UNLIKE = replace(offer("RTX 3090", id="unlike", region="US", host="h4"), provider="acme")
ALIKE_ELSEWHERE = replace(FAILED, id="alike elsewhere", provider="other")
OFFERS: Final = (FAILED, SAME_HOST, SAME_MODEL, SAME_REGION, UNLIKE, ALIKE_ELSEWHERE)

#: scope of the failure -> the offers that fall with the failed one.
FALLEN: Final = {
    Scope.OFFER: {FAILED.id},
    Scope.HOST: {FAILED.id, SAME_HOST.id},
    Scope.MODEL: {FAILED.id, SAME_MODEL.id},
    Scope.REGION: {FAILED.id, SAME_REGION.id},
    Scope.PROVIDER: {FAILED.id, SAME_HOST.id, SAME_MODEL.id, SAME_REGION.id, UNLIKE.id},
    Scope.ACCOUNT: {FAILED.id, SAME_HOST.id, SAME_MODEL.id, SAME_REGION.id, UNLIKE.id},
}

kinds = st.sampled_from(ErrorKind)
scopes = st.sampled_from(Scope)


def of(gpu: str | None, region: str | None, host: str | None, name: str, provider: str) -> Offer:
    return replace(offer(gpu, id=name, region=region, host=host), provider=provider)


offers = st.builds(
    of,
    gpu=st.sampled_from(["RTX 4090", "H100", None]),
    region=st.sampled_from(["DE", "US", None]),
    host=st.sampled_from(["h1", "h2", None]),
    name=st.sampled_from(["a", "b", "c"]),
    provider=st.sampled_from(["acme", "other"]),
)


def failure(kind: ErrorKind = ErrorKind.CAPACITY, scope: Scope = Scope.OFFER) -> ProviderError:
    return ProviderError("no", kind=kind, scope=scope)


class TestTheTable:
    @pytest.mark.parametrize("scope", Scope)
    @pytest.mark.parametrize("kind", ErrorKind)
    def test_each_kind_at_each_scope_is_followed_by_what_the_table_says(
        self, kind: ErrorKind, scope: Scope
    ) -> None:
        """How often here, then where to, what is left alone, for how long and how strictly."""
        row, failed, retry = TABLE[kind], failure(kind, scope), Retry()

        for count in range(1, row.here + 1):
            assert after(failed, count, retry, others=True) is Step.HERE
            assert after(failed, count, retry, others=False) is Step.HERE
        whole = scope in (Scope.PROVIDER, Scope.ACCOUNT)
        then = (ELSEWHERE if whole else STOP) if row.then == WHOSE else row.then
        assert after(failed, row.here + 1, retry, others=True) is then
        assert after(failed, row.here + 1, retry, others=False) is row.alone

        thing = condemned(failed, FAILED)
        cooldown = cool_down(failed, "acme", thing, (), retry, NOW)
        fallen = {o.id for o in OFFERS if cooldown.covers(o)}
        assert fallen == FALLEN[Scope.ACCOUNT if row.condemns is ALL else scope]
        assert cooldown.until - NOW == row.seconds

        facts = ProviderFacts(paid=True)
        market = Market(
            offers=[OFFERS],
            facts={"acme": facts, "other": facts},
            cooldowns=[cooldown],
            now=NOW + 0.001,
        )
        verdicts = plan(market, [Requirements()], Terms())
        ruled_out = {v.offer.id for v in verdicts if v.rejection is not None}
        ranked = [v.offer.id for v in verdicts if v.rejection is None]
        match row.meanwhile:
            case str(how) if how is LAST:
                assert ruled_out == set()
                assert set(ranked[-len(fallen) :]) == fallen
            case str(how) if how is OUT:
                assert ruled_out == fallen
                assert all(
                    v.rejection.constraint is Constraint.COOLING_DOWN
                    for v in verdicts
                    if v.rejection is not None
                )
            case _:
                assert verdicts == plan(replace(market, cooldowns=()), [Requirements()], Terms())

    def test_every_kind_and_scope_is_in_the_table(self) -> None:
        """A new kind or scope must say here what follows it."""
        assert set(TABLE) == set(ErrorKind)
        assert set(FALLEN) == set(Scope)


class TestSteps:
    def test_a_lost_answer_does_not_end_the_request(self) -> None:
        """The machine that may exist is looked after; the job goes on elsewhere."""
        assert after(CreateUnknown("cut"), 1, Retry(), others=False) is ELSEWHERE

    @given(kinds.filter(lambda kind: kind is not K.CREATE_UNKNOWN), st.integers(1, 100))
    def test_a_rule_that_says_stop_stops(self, kind: ErrorKind, failures: int) -> None:
        """At once, and with nothing else tried, unless another account may still do the job."""
        step = after(failure(kind), failures, Retry({kind: stop()}), others=True)

        assert step is (ELSEWHERE if kind in (K.AUTH, K.CREDIT) else STOP)
        assert after(failure(kind), failures, Retry({kind: stop()}), others=False) is STOP

    @given(kinds, scopes, st.integers(1, 100), st.booleans())
    def test_the_scope_has_a_part_in_the_step_of_bad_requests_alone(
        self, kind: ErrorKind, scope: Scope, failures: int, others: bool
    ) -> None:
        """Of all other failures it says what is condemned, and nothing else."""
        assume(kind is not K.BAD_REQUEST)
        assert after(failure(kind, scope), failures, Retry(), others=others) is after(
            failure(kind), failures, Retry(), others=others
        )

    def test_tries_here_come_before_the_stop(self) -> None:
        """``here(2) | stop()`` stops at the third failure."""
        retry = Retry({K.CAPACITY: here(2) | stop()})

        steps = [after(failure(), count, retry, others=True) for count in (1, 2, 3)]

        assert steps == [Step.HERE, Step.HERE, STOP]


class TestCondemned:
    @pytest.mark.parametrize("scope", [Scope.HOST, Scope.REGION, Scope.MODEL])
    def test_what_is_not_stated_is_nothing_in_common(self, scope: Scope) -> None:
        """Two offers of unknown host, region or model may have nothing to do with each other."""
        first = replace(offer(None, id="a", host=None, region=None), provider="acme")
        second = replace(first, id="b")
        failed = failure(scope=scope)

        cooldown = cool_down(failed, "acme", condemned(failed, first), (), Retry(), NOW)

        assert cooldown.covers(first)
        assert not cooldown.covers(second)

    @given(kinds, scopes, offers)
    def test_the_failed_offer_is_always_among_the_condemned(
        self, kind: ErrorKind, scope: Scope, failed: Offer
    ) -> None:
        """Whatever the failure."""
        error = failure(kind, scope)
        thing = condemned(error, failed)

        assert cool_down(error, failed.provider, thing, (), Retry(), NOW).covers(failed)

    @given(kinds, scopes, offers, offers)
    def test_no_failure_condemns_another_provider(
        self, kind: ErrorKind, scope: Scope, failed: Offer, other: Offer
    ) -> None:
        """One provider's trouble leaves the others alone."""
        error = failure(kind, scope)
        cooldown = cool_down(error, failed.provider, condemned(error, failed), (), Retry(), NOW)

        if other.provider != failed.provider:
            assert not cooldown.covers(other)
