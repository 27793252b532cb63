from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.policy.experience import (
    HALF_LIFE,
    PRIOR_BOOT,
    PRIOR_CHANCE,
    Experience,
    Memory,
)

NOW: Final = 1_000_000.0
NEW: Final = Experience(provider="acme", host="h1", image="img", at=NOW)
HERE: Final = ("acme", "h1", "img")

#: one thing that happened at a host: what, after how long, and how long it took.
happenings = st.lists(
    st.tuples(
        st.sampled_from(["worked", "failed", "was set up"]),
        st.floats(0, 3 * HALF_LIFE),
        st.floats(0, 1e4),
    ),
    max_size=30,
)


def after(history: list[tuple[str, float, float]], seen: Experience = NEW) -> Experience:
    now = NOW
    for what, gap, took in history:
        now += gap
        match what:
            case "worked":
                seen = seen.worked(took, now)
            case "failed":
                seen = seen.failed(now)
            case _:
                seen = seen.was_set_up(took, now)
    return seen


def often(times: int, *, worked: bool, host: str = "h1", boot: float = 10.0) -> Experience:
    seen = Experience(provider="acme", host=host, image="img", at=NOW)
    for _ in range(times):
        seen = seen.worked(boot, NOW) if worked else seen.failed(NOW)
    return seen


class TestFading:
    def test_what_was_seen_counts_half_after_a_week(self) -> None:
        """Counts and seconds alike, so that the means stay what they were."""
        seen = Experience(
            provider="acme",
            host="h1",
            image="",
            tries=8,
            successes=6,
            boot_seconds=300,
            setups=2,
            setup_seconds=50,
            at=NOW,
        )

        old = seen.faded(NOW + HALF_LIFE)

        assert (old.tries, old.successes, old.boot_seconds) == (4, 3, 150)
        assert (old.setups, old.setup_seconds, old.at) == (1, 25, NOW + HALF_LIFE)

    @given(happenings, st.floats(0, 1e8), st.floats(0, 1e8))
    def test_fading_twice_is_fading_once(
        self, history: list[tuple[str, float, float]], first: float, second: float
    ) -> None:
        """How often the ledger was read in between does not matter."""
        seen = after(history)
        twice = seen.faded(seen.at + first).faded(seen.at + first + second)

        assert twice.tries == pytest.approx(seen.faded(seen.at + first + second).tries)

    @given(happenings, st.floats(0, 1e9))
    def test_time_going_backwards_adds_nothing(
        self, history: list[tuple[str, float, float]], back: float
    ) -> None:
        """A clock that was set back makes no memory stronger."""
        seen = after(history)

        assert seen.faded(seen.at - back) == seen

    def test_a_host_that_failed_gets_its_chance_again(self) -> None:
        """Ten failures weigh little after ten weeks."""
        failed = often(10, worked=False)
        chances = [
            Memory([failed], NOW + weeks * HALF_LIFE).chance(*HERE) for weeks in (0, 1, 3, 10)
        ]

        assert chances == sorted(chances)
        assert chances[0] < 0.3
        assert chances[-1] == pytest.approx(PRIOR_CHANCE, abs=0.02)


class TestMemory:
    def test_what_nobody_has_seen_is_the_stated_prior(self) -> None:
        """A chance of nine in ten, and the boot and set-up that the caller assumes."""
        nothing = Memory([], NOW)

        assert nothing.chance(*HERE) == PRIOR_CHANCE
        assert nothing.boot(*HERE, PRIOR_BOOT) == PRIOR_BOOT
        assert nothing.setup(*HERE, 60.0) == 60.0

    def test_an_unknown_host_is_taken_to_be_like_its_provider(self) -> None:
        """And a host that was seen is told apart from it."""
        memory = Memory(
            [often(30, worked=True), often(30, worked=False, host="h2")],
            NOW,
        )
        good, bad, new = (memory.chance("acme", host, "img") for host in ("h1", "h2", "h3"))

        assert bad < new < good
        assert new == pytest.approx(0.5, abs=0.05)
        assert memory.chance("other", "h1", "img") == PRIOR_CHANCE

    def test_an_image_that_a_host_has_already_is_told_apart(self) -> None:
        """A warm host boots fast with the image that it knows, not with any."""
        memory = Memory([often(20, worked=True, boot=5.0)], NOW)

        assert memory.boot(*HERE, PRIOR_BOOT) < memory.boot("acme", "h1", "other", PRIOR_BOOT)

    def test_hosts_that_are_not_told_apart_are_the_provider_at_large(self) -> None:
        """What was seen without a host's name counts once, for all of them alike."""
        seen = often(10, worked=False, host="")
        memory = Memory([seen], NOW)

        expected = PRIOR_CHANCE * 4 / (4 + 10)
        assert memory.chance("acme", None, "img") == pytest.approx(expected)
        assert memory.chance("acme", "h9", "img") == pytest.approx(expected)

    @given(happenings, happenings, st.floats(0, 1e8))
    def test_a_chance_is_above_nothing_and_never_more_than_certain(
        self,
        one: list[tuple[str, float, float]],
        other: list[tuple[str, float, float]],
        later: float,
    ) -> None:
        """Whatever was seen: costs are divided by it."""
        neighbour = Experience(provider="acme", host="h2", image="", at=NOW)
        memory = Memory([after(one), after(other, neighbour)], NOW + later)

        for host in ("h1", "h2", "h3", None):
            assert 0 < memory.chance("acme", host, "img") <= 1

    @given(happenings, st.floats(0, 1e4))
    def test_expectations_lie_within_what_was_seen_and_assumed(
        self, history: list[tuple[str, float, float]], prior: float
    ) -> None:
        """A mean drawn towards the prior leaves the range of neither."""
        seen = after(history)
        memory = Memory([seen], seen.at)
        boots = [took for what, _, took in history if what == "worked"]
        setups = [took for what, _, took in history if what == "was set up"]

        for expected, took in (
            (memory.boot(*HERE, prior), boots),
            (memory.setup(*HERE, prior), setups),
        ):
            low, high = min([prior, *took]), max([prior, *took])
            assert low * (1 - 1e-9) - 1e-9 <= expected <= high * (1 + 1e-9) + 1e-9

    @given(happenings)
    def test_a_success_raises_the_chance_and_a_failure_lowers_it(
        self, history: list[tuple[str, float, float]]
    ) -> None:
        """However much was seen before."""
        seen = after(history)
        now = seen.at
        before = Memory([seen], now).chance(*HERE)

        assert Memory([seen.failed(now)], now).chance(*HERE) < before
        assert Memory([seen.worked(1.0, now)], now).chance(*HERE) >= before

    @given(st.permutations([often(3, worked=True), often(5, worked=False, host="h2")]))
    def test_the_order_of_what_was_seen_does_not_matter(self, seen: list[Experience]) -> None:
        """The ledger gives rows in any order."""
        assert Memory(seen, NOW).chance("acme", "h3", "img") == pytest.approx(
            Memory(seen[::-1], NOW).chance("acme", "h3", "img")
        )
