from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.errors import ErrorKind, ProviderError, Scope
from gpubroker.model.offers import Offer
from gpubroker.policy.cooldown import LONGEST, Cooldown, cool_down, cooling, provider_cooling
from gpubroker.policy.retry import Retry, elsewhere
from gpubroker.testing import offer

NOW: Final = 1_000_000.0
THING: Final = (Scope.HOST, "h1")
HOUR: Final = Retry({ErrorKind.HOST_BROKEN: elsewhere(cooldown=3600.0)})

kinds = st.sampled_from(ErrorKind)
pauses = st.floats(0, 1e6)


def failure(
    kind: ErrorKind = ErrorKind.HOST_BROKEN, retry_after: float | None = None
) -> ProviderError:
    return ProviderError("never booted", kind=kind, scope=Scope.HOST, retry_after=retry_after)


def there(host: str | None = "h1", provider: str = "acme") -> Offer:
    return replace(offer(host=host), provider=provider)


def failing(*, times: int, every: float, retry: Retry = HOUR) -> Cooldown:
    """The cooldown after so many failures, each so long after the end of the one before."""
    now, cooldown = NOW, cool_down(failure(), "acme", THING, (), retry, NOW)
    for _ in range(times - 1):
        now = cooldown.until + every
        cooldown = cool_down(failure(), "acme", THING, [cooldown], retry, now)
    return cooldown


class TestLength:
    @pytest.mark.parametrize(
        ("times", "hours"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 24), (7, 24), (50, 24)]
    )
    def test_it_doubles_with_each_further_failure_up_to_a_day(
        self, times: int, hours: float
    ) -> None:
        """1, 2, 4, 8, 16 hours, then a day, and never more."""
        cooldown = failing(times=times, every=1.0)

        assert cooldown.until - cooldown.since == hours * 3600
        assert cooldown.failures == times

    def test_what_was_quiet_for_as_long_as_it_rested_starts_afresh(self) -> None:
        """An hour's cooldown, then an hour without trouble: the next failure is a first one."""
        assert failing(times=2, every=3600.0).failures == 2
        assert failing(times=2, every=3601.0).failures == 1

    def test_what_worked_in_between_starts_afresh(self) -> None:
        """A success ends a cooldown and its count."""
        first = failing(times=3, every=1.0)
        mended = first.ended(first.since + 10)

        again = cool_down(failure(), "acme", THING, [mended], HOUR, first.since + 11)

        assert mended.until == first.since + 10
        assert (again.failures, again.until - again.since) == (1, 3600.0)

    def test_a_wait_that_the_provider_asked_for_is_the_least(self) -> None:
        """But five minutes of it at the most."""
        retry = Retry({ErrorKind.RATE_LIMIT: elsewhere(cooldown=30.0)})

        def rest(asked: float) -> float:
            error = failure(ErrorKind.RATE_LIMIT, retry_after=asked)
            return cool_down(error, "acme", THING, (), retry, NOW).until - NOW

        assert [rest(asked) for asked in (5.0, 90.0, 1e9)] == [30.0, 90.0, 300.0]

    @given(kinds, st.lists(pauses, max_size=30), st.none() | st.floats())
    def test_it_always_ends_within_a_day(
        self, kind: ErrorKind, gaps: list[float], retry_after: float | None
    ) -> None:
        """Whatever failed, however often, and whatever the provider said."""
        now, known = NOW, list[Cooldown]()
        for gap in gaps:
            now += gap
            error = failure(kind, retry_after)
            known = [cool_down(error, "acme", THING, known, Retry(), now)]

            assert now <= known[0].until <= now + LONGEST
            assert cooling(there(), known, now + LONGEST) is None

    @given(st.integers(1, 40), st.integers(1, 40))
    def test_more_failures_never_rest_shorter(self, fewer: int, more: int) -> None:
        """The rest grows with the failures in a row."""
        one, other = sorted((fewer, more))

        def rest(times: int) -> float:
            cooldown = failing(times=times, every=0.0)
            return cooldown.until - cooldown.since

        assert rest(one) <= rest(other)

    def test_a_failure_of_something_else_counts_for_nothing(self) -> None:
        """Another host, provider or scope has a count of its own."""
        known = [
            cool_down(failure(), "acme", (Scope.HOST, "h2"), (), HOUR, NOW),
            cool_down(failure(), "other", THING, (), HOUR, NOW),
            cool_down(failure(), "acme", (Scope.OFFER, "h1"), (), HOUR, NOW),
        ]

        assert cool_down(failure(), "acme", THING, known, HOUR, NOW + 1).failures == 1

    def test_a_long_reason_is_cut(self) -> None:
        """It may come from a vendor and goes into the ledger."""
        error = ProviderError("x" * 5000, kind=ErrorKind.PLUGIN)

        assert len(cool_down(error, "acme", THING, (), HOUR, NOW).reason) == 200


class TestWhatItCovers:
    @pytest.mark.parametrize("kind", ErrorKind)
    def test_only_a_broken_host_is_ruled_out(self, kind: ErrorKind) -> None:
        """It costs money each time; anything else may have changed and is tried last."""
        cooldown = cool_down(failure(kind), "acme", THING, (), Retry(), NOW)

        assert cooldown.strict == (kind is ErrorKind.HOST_BROKEN)

    def test_it_covers_until_its_last_moment_and_not_at_it(self) -> None:
        """``until`` is the first moment at which it is over."""
        cooldown = failing(times=1, every=0.0)

        assert cooling(there(), [cooldown], cooldown.until - 0.001) is cooldown
        assert cooling(there(), [cooldown], cooldown.until) is None

    def test_the_longest_of_several_is_named(self) -> None:
        """An offer is free again only when the last one is over."""
        short = failing(times=1, every=0.0)
        long = replace(short, scope=Scope.MODEL, key="RTX 4090", until=short.until + 60)

        assert cooling(there(), [short, long], NOW) is long
        assert cooling(there(), [long, short], NOW) is long
        assert cooling(there("h2"), [short], NOW) is None

    @pytest.mark.parametrize("scope", Scope)
    def test_a_provider_is_not_asked_only_while_all_of_it_rests(self, scope: Scope) -> None:
        """A host, model or region is no reason to leave a whole provider alone."""
        cooldown = replace(failing(times=1, every=0.0), scope=scope, key="")
        found = provider_cooling("acme", [cooldown], NOW)

        assert (found is cooldown) == (scope in (Scope.PROVIDER, Scope.ACCOUNT))
        assert provider_cooling("other", [cooldown], NOW) is None
        assert provider_cooling("acme", [cooldown], cooldown.until) is None
