"""How often an endpoint is asked, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.rest import Pace, RequestFailed, RestClient
from gpubroker.rest.pacing import Lane
from gpubroker.testing import virtual_backend

SLOW = Pace("slow", 3.0)
URGENT = Pace("destroy", 1.0, urgent=True)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Each event loop, in virtual time."""
    return virtual_backend(request.param)


class Server(httpx.AsyncBaseTransport):
    """Notes when it was asked for what, and answers as it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.answers: list[httpx.Response] = []
        self.takes = 0.0
        self.connecting: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.sleep(self.connecting.pop(0) if self.connecting else 0.0)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for _ in request.stream:
            pass  # sent, as over a real connection
        return await httpx.MockTransport(self).handle_async_request(request)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.path, anyio.current_time()))
        await anyio.sleep(self.takes)
        return self.answers.pop(0) if self.answers else httpx.Response(200, json={})

    def client(self, **options: Any) -> RestClient:
        return RestClient("https://api.test", transport=self, **options)

    def times(self, path: str = "/") -> list[float]:
        first = self.asked[0][1]
        return [round(at - first, 3) for asked, at in self.asked if asked == path]


async def ask(client: RestClient, pace: Pace = SLOW) -> None:
    """One request whose answer does not matter."""
    await client.request("GET", "/", pace=pace)


@pytest.mark.anyio
class TestTurns:
    async def test_requests_of_one_pace_are_spaced_out(self) -> None:
        """However many come at once, and whoever they come from."""
        server = Server()
        async with server.client() as client, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask, client)

        assert server.times() == [0.0, 3.0, 6.0]

    async def test_time_that_connecting_takes_does_not_count(self) -> None:
        """The server counts from when it was asked, which on a new connection is later."""
        server = Server()
        server.connecting = [2.0, 0.0]
        async with server.client() as client:
            await ask(client)
            await ask(client)

        assert server.times() == [0.0, 3.0]

    async def test_paces_do_not_wait_for_each_other(self) -> None:
        """Each endpoint has an allowance of its own."""
        server = Server()
        async with server.client() as client:
            await client.request("GET", "/", pace=SLOW)
            await client.request("GET", "/", pace=Pace("other", 3.0))

        assert server.times() == [0.0, 0.0]

    async def test_an_emulator_need_not_be_spared(self) -> None:
        """`even=False` sends as fast as requests come."""
        server = Server()
        async with server.client(even=False) as client:
            for _ in range(3):
                await client.request("GET", "/", pace=SLOW)

        assert server.times() == [0.0, 0.0, 0.0]

    async def test_a_caller_that_gives_up_loses_nobody_time(self) -> None:
        """Its turn goes to the next one in the queue."""
        server = Server()
        async with server.client() as client, anyio.create_task_group() as tasks:
            await client.request("GET", "/", pace=SLOW)
            with anyio.move_on_after(1.0):
                await client.request("GET", "/", pace=SLOW)
            tasks.start_soon(ask, client)

        assert server.times() == [0.0, 3.0]

    async def test_a_destroy_waits_for_nothing_else(self) -> None:
        """Not even while as many requests hang as may be under way at once."""
        server = Server()
        server.takes = 20.0
        async with server.client() as client, anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(ask, client, Pace(f"endpoint {number}"))
            await anyio.sleep(1.0)
            assert len(server.asked) == 8
            await client.request("DELETE", "/it", pace=URGENT)

        assert server.times("/it") == [1.0]


@pytest.mark.anyio
class TestTooOften:
    async def test_retry_after_is_obeyed(self) -> None:
        """An endpoint that answered 429 is not asked before it said."""
        server = Server()
        server.answers = [httpx.Response(429, headers={"Retry-After": "20"})]
        async with server.client(even=False) as client:
            assert (await client.request("GET", "/", pace=SLOW)).status == 429
            await client.request("GET", "/", pace=SLOW)

        assert server.times() == [0.0, 20.0]

    async def test_those_who_wait_already_wait_longer(self) -> None:
        """A 429 that comes while others are in the queue holds for them too."""
        server = Server()
        server.takes = 1.0
        server.answers = [httpx.Response(429, headers={"Retry-After": "10"})]
        async with server.client() as client, anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(ask, client)

        assert server.times() == [0.0, 11.0]

    async def test_a_long_wait_is_refused_at_once(self) -> None:
        """Its caller can do something better; that nothing was sent is certain."""
        server = Server()
        async with server.client() as client:
            client.hold(SLOW, 120)
            began = anyio.current_time()
            with pytest.raises(RequestFailed) as refused:
                await client.request("GET", "/", pace=SLOW)
            assert anyio.current_time() == began

        assert (refused.value.sent, refused.value.retry_after, server.asked) == (False, 120, [])

    async def test_no_server_puts_a_destroy_off_for_ever(self) -> None:
        """Five minutes are obeyed at the most."""
        server = Server()
        async with server.client() as client:
            client.hold(URGENT, 1e9)
            await client.turn(URGENT, patience=300)
            assert anyio.current_time() < 10_000


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0, 10),  # until the next wish
            st.floats(0, 5),  # interval
            st.none() | st.floats(0, 20),  # what its answer asks to wait
        ),
        max_size=30,
    )
)
def test_no_request_begins_too_early(steps: list[tuple[float, float, float | None]]) -> None:
    """Never within the interval after the last one, nor before what a server asked for."""
    lane, now, earliest = Lane(), 0.0, 0.0
    for wait, interval, told in steps:
        now += wait
        now += lane.pause(now)

        assert now >= earliest - 1e-6

        lane = lane.asked(now, interval)
        earliest = now + interval
        if told is not None:
            lane = lane.held(now + told)
            earliest = max(earliest, now + told)


@given(now=st.floats(0, 1e6), until=st.floats(0, 1e6), sooner=st.floats(0, 1e6))
def test_a_hold_is_never_shortened(now: float, until: float, sooner: float) -> None:
    """A second answer that asks for less does not undo the first."""
    lane = Lane().held(until)

    assert lane.held(sooner).pause(now) >= lane.pause(now)
