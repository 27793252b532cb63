from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import CreateUnknown, ErrorKind, ProviderError, Scope
from gpubroker.model.offers import Offer
from gpubroker.policy.fallback import Step, after, condemned
from gpubroker.testing import offer

ELSEWHERE, STOP = Step.ELSEWHERE, Step.STOP

#: kind of failure -> what follows while another provider is left, and what when none is.
STEPS = {
    ErrorKind.CAPACITY: (ELSEWHERE, ELSEWHERE),
    ErrorKind.QUOTA: (ELSEWHERE, ELSEWHERE),
    ErrorKind.CREDIT: (ELSEWHERE, STOP),
    ErrorKind.AUTH: (ELSEWHERE, STOP),
    ErrorKind.BAD_REQUEST: (STOP, STOP),
    ErrorKind.RATE_LIMIT: (ELSEWHERE, ELSEWHERE),
    ErrorKind.TRANSIENT: (ELSEWHERE, ELSEWHERE),
    ErrorKind.HOST_BROKEN: (ELSEWHERE, ELSEWHERE),
    ErrorKind.CREATE_UNKNOWN: (ELSEWHERE, ELSEWHERE),
    ErrorKind.PLUGIN: (ELSEWHERE, ELSEWHERE),
}

FAILED = replace(offer("RTX 4090", id="failed", region="DE", host="h1"), provider="acme")
SAME_HOST = replace(offer("RTX 3090", id="same host", region="US", host="h1"), provider="acme")
SAME_MODEL = replace(offer("RTX 4090", id="same model", region="US", host="h2"), provider="acme")
SAME_REGION = replace(offer("RTX 3090", id="same region", region="DE", host="h3"), provider="acme")
UNLIKE = replace(offer("RTX 3090", id="unlike", region="US", host="h4"), provider="acme")
ELSEWHERE_ALIKE = replace(FAILED, provider="other")

OTHERS = (FAILED, SAME_HOST, SAME_MODEL, SAME_REGION, UNLIKE, ELSEWHERE_ALIKE)

#: scope of the failure -> the offers that it rules out.
CONDEMNED = {
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


class TestSteps:
    @pytest.mark.parametrize("scope", Scope)
    @pytest.mark.parametrize("kind", ErrorKind)
    def test_each_kind_of_failure_has_its_step(self, kind: ErrorKind, scope: Scope) -> None:
        """The table above is the whole decision; the scope has no part in it."""
        with_others, alone = STEPS[kind]

        assert after(failure(kind, scope), others=True) is with_others
        assert after(failure(kind, scope), others=False) is alone

    def test_a_lost_answer_does_not_end_the_request(self) -> None:
        """The machine that may exist is looked after; the job goes on elsewhere."""
        assert after(CreateUnknown("cut"), others=False) is ELSEWHERE


class TestCondemned:
    @pytest.mark.parametrize("scope", Scope)
    def test_each_scope_rules_out_what_it_names(self, scope: Scope) -> None:
        """The table above: which offers fall with the failed one."""
        fallen = {o.id for o in OTHERS[:-1] if condemned(failure(scope=scope), FAILED, o)}

        assert fallen == CONDEMNED[scope]

    @pytest.mark.parametrize("scope", Scope)
    @pytest.mark.parametrize("kind", [ErrorKind.AUTH, ErrorKind.CREDIT])
    def test_a_failure_of_the_account_rules_all_of_it_out(
        self, kind: ErrorKind, scope: Scope
    ) -> None:
        """A refused key and an empty account condemn every offer, whatever scope was said."""
        fallen = {o.id for o in OTHERS[:-1] if condemned(failure(kind, scope), FAILED, o)}

        assert fallen == CONDEMNED[Scope.ACCOUNT]

    @pytest.mark.parametrize("scope", [Scope.HOST, Scope.REGION])
    def test_what_is_not_stated_is_nothing_in_common(self, scope: Scope) -> None:
        """Two offers of unknown host or region may have nothing to do with each other."""
        first = replace(offer(id="a", host=None, region=None), provider="acme")
        second = replace(first, id="b")

        assert condemned(failure(scope=scope), first, first)
        assert not condemned(failure(scope=scope), first, second)

    @given(kinds, scopes, offers)
    def test_the_failed_offer_itself_is_never_tried_again(
        self, kind: ErrorKind, scope: Scope, failed: Offer
    ) -> None:
        """Whatever the failure."""
        assert condemned(failure(kind, scope), failed, failed)

    @given(kinds, scopes, offers, offers)
    def test_no_failure_rules_another_provider_out(
        self, kind: ErrorKind, scope: Scope, failed: Offer, other: Offer
    ) -> None:
        """One provider's trouble leaves the others alone."""
        if other.provider != failed.provider:
            assert not condemned(failure(kind, scope), failed, other)
