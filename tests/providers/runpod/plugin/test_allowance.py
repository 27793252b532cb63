"""How many requests are left is read from the answers, and made to last."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.providers.answers import said

from gpubroker import ErrorKind, ProviderError, Requirements
from gpubroker.testing import virtual_backend
from gpubroker_runpod.allowance import Window, pause, windows

from .vendor import MACHINE, POD, Vendor, listing, offer, order, problem

POLICY = '"minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400'


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each event loop, in virtual time."""
    return virtual_backend(request.param)


class TestReading:
    def test_both_headers_are_read_together(self) -> None:
        """Each window with what is left of it, its reset and its quota."""
        left = '"minute";r=58;t=41, "hour";r=2990;t=3100, "day";r=49980;t=80211'

        assert windows({"ratelimit": left, "ratelimit-policy": POLICY}) == [
            Window(58, 41, 60),
            Window(2990, 3100, 3000),
            Window(49980, 80211, 50000),
        ]

    def test_a_quota_need_not_be_said(self) -> None:
        """Then only the number that is left counts."""
        assert windows({"ratelimit": '"minute";r=58;t=41'}) == [Window(58, 41, None)]

    @pytest.mark.parametrize(
        "text", ["", "r=0;t=12", '"minute"', '"minute";r=;t=5', '"minute";r=-1;t=5', "\0", '";r=0']
    )
    def test_what_is_malformed_is_ignored(self, text: str) -> None:
        """A header that nobody understands holds nothing up."""
        assert windows({"ratelimit": text, "ratelimit-policy": text}) == []

    @given(st.text())
    def test_anything_can_be_read(self, text: str) -> None:
        """Whatever a server sends, reading it ends without an error and the pause is a time."""
        found = windows({"ratelimit": text, "ratelimit-policy": text})

        assert pause(found) >= 0


WINDOWS = st.builds(
    Window,
    left=st.integers(0, 100_000).map(float),
    resets=st.integers(0, 86_400).map(float),
    quota=st.none() | st.integers(1, 100_000).map(float),
)


class TestPause:
    def test_plenty_left_is_no_pause(self) -> None:
        """A quarter of the quota is plenty."""
        assert pause([Window(15, 41, 60), Window(2990, 3100, 3000)]) == 0

    def test_what_runs_low_is_spread(self) -> None:
        """So that the last request is left for the end of the window."""
        assert pause([Window(10, 40, 60)]) == 4

    def test_a_used_up_window_is_waited_for(self) -> None:
        """Nothing else would be answered."""
        assert pause([Window(0, 12, 60), Window(2990, 3100, 3000)]) == 12

    @given(st.lists(WINDOWS, max_size=3))
    def test_no_window_is_ever_overdrawn(self, known: list[Window]) -> None:
        """Requests so far apart from each other fit what is left; none waits beyond a reset."""
        each = pause(known)

        assert 0 <= each <= max((window.resets for window in known), default=0)
        for window in known:
            if window.left < 1:
                assert each >= window.resets
            elif window.left < (20 if window.quota is None else window.quota / 4):
                assert each * window.left >= window.resets * (1 - 1e-9)

    @given(WINDOWS, WINDOWS)
    def test_one_more_window_never_shortens_it(self, one: Window, other: Window) -> None:
        """The tightest one decides."""
        assert pause([one, other]) == max(pause([one]), pause([other]))


@pytest.mark.anyio
class TestHeeding:
    async def test_ordinary_requests_wait_for_a_used_up_window(self, vendor: Vendor) -> None:
        """The answer before said how long."""
        empty = {"RateLimit": '"minute";r=0;t=12', "RateLimit-Policy": POLICY}
        vendor.on("GET", "/v2/pods", said(200, {"pods": []}, **empty), listing())
        async with vendor.provider() as provider:
            await provider.inventory()
            before = anyio.current_time()
            await provider.inventory()

            assert anyio.current_time() - before == pytest.approx(12)

    async def test_a_destroy_waits_for_no_window(self, vendor: Vendor) -> None:
        """It is what ends the bill."""
        empty = {"RateLimit": '"minute";r=0;t=12', "RateLimit-Policy": POLICY}
        vendor.on("GET", "/v2/pods", said(200, {"pods": []}, **empty))
        vendor.on("DELETE", f"/v2/pods/{POD}", httpx.Response(204))
        async with vendor.provider() as provider:
            await provider.inventory()
            before = anyio.current_time()
            await provider.release(MACHINE)

            assert anyio.current_time() == before

    async def test_a_refused_destroy_waits_as_long_as_it_was_told(self, vendor: Vendor) -> None:
        """Its own 429 is the one thing that holds it."""
        often = problem(429, "rate limit exceeded for the minute window", **{"retry-after": "9"})
        vendor.on("DELETE", f"/v2/pods/{POD}", often, httpx.Response(204))
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError) as caught:
                await provider.release(MACHINE)
            before = anyio.current_time()
            await provider.release(MACHINE)

            assert (caught.value.kind, caught.value.retry_after) == (ErrorKind.RATE_LIMIT, 9)
            assert anyio.current_time() - before == pytest.approx(9)

    async def test_a_refusal_holds_every_ordinary_request(self, vendor: Vendor) -> None:
        """What is allowed is counted over all endpoints together."""
        vendor.on("GET", "/v2/pods", problem(429, "often", **{"retry-after": "9"}))
        vendor.on("GET", "/v2/billing/pods", said(200, {"records": []}))
        async with vendor.provider() as provider:
            with pytest.raises(ProviderError):
                await provider.inventory()
            before = anyio.current_time()
            await provider.charges(0, 1)

            assert anyio.current_time() - before == pytest.approx(9)

    async def test_nobody_waits_longer_than_a_hook_may_take(self, vendor: Vendor) -> None:
        """An hour that is used up is an error with a time, not a hook that hangs."""
        empty = {"RateLimit": '"hour";r=0;t=200'}
        vendor.on("GET", "/v2/pods", said(200, {"pods": []}, **empty))
        async with vendor.provider() as provider:
            await provider.inventory()
            before = anyio.current_time()
            for ask in (
                provider.inventory(),
                provider.quote(Requirements()),
                provider.provision(offer(), order()),
            ):
                with pytest.raises(ProviderError) as caught:
                    await ask
                assert caught.value.kind is ErrorKind.RATE_LIMIT
                assert caught.value.retry_after == pytest.approx(200)

            assert anyio.current_time() == before
        assert len(vendor.asked) == 1
