"""Server-sent events: read as they come, cut anywhere, ended by silence, and closed for good."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import httpx
import pytest
from anyio.abc import ByteStream
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.rest import EventStream, Pace, RequestFailed, RestClient, ServerEvent
from gpubroker.rest.events import EventParser

from .loopback import free_port, serving

pytestmark = pytest.mark.anyio

KEY = "account-key-0123456789"
LOGS = Pace("logs")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
THREE = b"id: t/1\ndata: one\n\n: still here\n\nid: t/2\ndata: two\ndata: lines\n\ndata: three\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def texts(events: list[ServerEvent]) -> list[tuple[str | None, str]]:
    return [(event.id, event.data) for event in events]


@asynccontextmanager
async def streaming(
    talk: Callable[[ByteStream], Awaitable[None]],
    *,
    idle: float = 5.0,
    last_id: str | None = None,
) -> AsyncGenerator[EventStream]:
    """The events of a real server, which `talk` plays once the request has come."""
    async with serving(talk) as url, RestClient(url, key=KEY) as client:
        async with client.events("/logs", pace=LOGS, idle=idle, last_id=last_id) as stream:
            yield stream


def saying(*pieces: bytes, end: bool = True) -> Callable[[ByteStream], Awaitable[None]]:
    """A server that sends these chunks, and then ends the answer or says nothing more."""

    async def talk(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(HEAD)
        for piece in pieces:
            await stream.send(chunk(piece))
        if end:
            await stream.send(chunk(b""))
        await stream.receive()  # until the client hangs up

    return talk


class TestParsing:
    def test_lines_of_one_event_are_joined(self) -> None:
        """With what the server calls it; an id is of the event that it came with."""
        found = EventParser(1000).feed(THREE)

        assert texts(found) == [("t/1", "one"), ("t/2", "two\nlines"), (None, "three")]

    @pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
    @given(cuts=st.lists(st.integers(0, 80)))
    def test_it_may_be_cut_anywhere(self, newline: bytes, cuts: list[int]) -> None:
        """Whatever the network makes of it, and whichever of the three line ends is used."""
        data = b"\xef\xbb\xbf" + THREE.replace(b"\n", newline)
        parser = EventParser(1000)
        found: list[ServerEvent] = []
        ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for begin, end in pairwise(ends):
            found += parser.feed(data[begin:end])

        assert texts(found) == [("t/1", "one"), ("t/2", "two\nlines"), (None, "three")]
        assert parser.last_id == "t/2"

    def test_an_unfinished_event_is_none(self) -> None:
        """Nor is one without data, whose id counts all the same."""
        parser = EventParser(1000)

        assert parser.feed(b"id: t/9\n\nid: t/10\ndata: half a li") == []
        assert parser.last_id == "t/10"

    def test_one_that_is_too_long_is_cut_and_says_so(self) -> None:
        """Neither an endless line nor endless lines fill the memory, and what follows is read."""
        parser = EventParser(100)
        long = b"id: t/1\ndata: " + b"x" * 1000 + b"\n\n"
        many = b"id: t/2\n" + b"data: y\n" * 1000 + b"\n"

        found = parser.feed(long + many + b"id: t/3\ndata: z\n\n")

        assert [(event.id, event.whole, len(event.data) <= 100) for event in found] == [
            ("t/1", False, True),
            ("t/2", False, True),
            ("t/3", True, True),
        ]

    @pytest.mark.parametrize("bad", ["t\0", "t\x1b[0m", "ünknown", "", "x" * 600])
    def test_an_id_that_fits_no_header_is_none(self, bad: str) -> None:
        """It could never be sent back."""
        parser = EventParser(1000)

        found = parser.feed(f"id: t/1\n\nid: {bad}\ndata: x\n\n".encode())

        assert (texts(found), parser.last_id) == ([(None, "x")], "t/1")

    def test_what_it_says_is_not_in_its_repr(self) -> None:
        """It is somebody's output, and may be long."""
        assert "secret" not in repr(ServerEvent("t/1", "secret"))


class TestEnds:
    async def test_the_server_may_end_it(self) -> None:
        """Then all events were read."""
        async with streaming(saying(THREE[:30], THREE[30:])) as stream:
            found = [event async for event in stream]

            assert (len(found), stream.ended, stream.last_id) == (3, "closed", "t/2")
            assert stream.reply.headers["content-type"] == "text/event-stream"

    async def test_silence_ends_it(self) -> None:
        """A stream that is quiet is not waited on for ever."""
        async with streaming(saying(THREE, end=False), idle=0.1) as stream:
            found = [event async for event in stream]

        assert (len(found), stream.ended) == (3, "quiet")

    async def test_comments_break_the_silence_for_a_while(self) -> None:
        """They show that the server lives; but who waits for news must not wait in vain."""
        comments = 0

        async def comment(stream: ByteStream) -> None:
            nonlocal comments
            await stream.receive()
            await stream.send(HEAD)
            while True:
                await stream.send(chunk(b": ping\n\n"))
                comments += 1
                await anyio.sleep(0.02)

        async with streaming(comment, idle=0.2) as stream:
            began = anyio.current_time()
            found = [event async for event in stream]
            lasted = anyio.current_time() - began

        assert (found, stream.ended) == ([], "quiet")
        assert lasted > 0.4
        assert comments > 1

    async def test_an_event_that_drips_is_read(self) -> None:
        """Each byte is a sign of life, however slowly they come."""

        async def drip(stream: ByteStream) -> None:
            await stream.receive()
            await stream.send(HEAD)
            for number in range(20):
                await stream.send(chunk(b"data: abc\n\n"[number % 11 :][:1]))
                await anyio.sleep(0.01)

        async with streaming(drip, idle=0.5) as stream:
            async for event in stream:
                assert event.data == "abc"
                return

        pytest.fail("there was no event")

    async def test_time_that_its_reader_takes_is_no_silence(self) -> None:
        """What has come meanwhile is read, however long an event took to deal with."""
        pieces = [b"data: %d\n\n" % number for number in range(3)]
        found = list[str]()
        async with streaming(saying(*pieces), idle=0.1) as stream:
            async for event in stream:
                found.append(event.data)
                await anyio.sleep(0.15)

        assert (found, stream.ended) == (["0", "1", "2"], "closed")

    async def test_a_cut_is_an_error_and_half_an_event_is_dropped(self) -> None:
        """What came whole was handed on before."""

        async def cut(stream: ByteStream) -> None:
            await stream.receive()
            await stream.send(HEAD + chunk(b"data: whole\n\ndata: ha"))

        found = list[str]()

        async def read(stream: EventStream) -> None:
            async for event in stream:
                found.append(event.data)

        async with streaming(cut) as stream:
            with pytest.raises(RequestFailed):
                await read(stream)

            assert (found, stream.ended) == (["whole"], "broken")
            assert [event async for event in stream] == []


class TestRefusals:
    async def test_a_refusal_is_an_answer_with_a_body(self) -> None:
        """It has no events, and its pause is kept."""
        body = b'{"title":"Too Many Requests","status":429}'

        async def refuse(stream: ByteStream) -> None:
            await stream.receive()
            head = b"HTTP/1.1 429 No\r\nRetry-After: 60\r\nRateLimit: x\r\nX-Request-Id: r1\r\n"
            await stream.send(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

        async with serving(refuse) as url, RestClient(url, key=KEY) as client:
            async with client.events("/logs", pace=LOGS, idle=5) as stream:
                assert [event async for event in stream] == []
            with pytest.raises(RequestFailed) as held:
                async with client.events("/logs", pace=LOGS, idle=5):
                    pass

        assert (stream.reply.status, stream.reply.body) == (429, body)
        assert stream.reply.headers["ratelimit"] == "x"
        assert stream.reply.headers["x-request-id"] == "r1"
        assert held.value.sent is False

    async def test_an_endless_refusal_is_cut_off(self) -> None:
        """No more is read of it than a reason needs."""
        sent = 0

        async def flood(stream: ByteStream) -> None:
            nonlocal sent
            await stream.receive()
            await stream.send(b"HTTP/1.1 500 No\r\n\r\n")
            while True:
                await stream.send(b"x" * 65_536)
                sent += 65_536

        async with streaming(flood) as stream:
            assert (stream.reply.status, stream.reply.body) == (500, b"")

        assert sent < 32 << 20

    async def test_a_redirect_is_not_followed(self) -> None:
        """The key goes nowhere else."""
        asked = list[str]()

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(str(request.url))
            return httpx.Response(302, headers={"Location": "https://elsewhere.test/"})

        client = RestClient("https://api.test", key=KEY, transport=httpx.MockTransport(answer))
        async with client, client.events("/logs", pace=LOGS, idle=5) as stream:
            assert stream.reply.status == 302

        assert asked == ["https://api.test/logs"]

    async def test_an_answer_must_begin_in_time(self) -> None:
        """However long the stream may last after that."""

        async def never(stream: ByteStream) -> None:
            await anyio.sleep_forever()

        async with serving(never) as url, RestClient(url, key=KEY) as client:
            with pytest.raises(RequestFailed, match=r"within 0\.1 s") as failed:
                async with client.events("/logs", pace=LOGS, idle=5, within=0.1):
                    pytest.fail("there was no answer")

        assert failed.value.sent is True

    async def test_nobody_there_is_certain(self) -> None:
        """As for any request."""
        async with RestClient(f"http://127.0.0.1:{await free_port()}", key=KEY) as client:
            with pytest.raises(RequestFailed) as failed:
                async with client.events("/logs", pace=LOGS, idle=5):
                    pytest.fail("there was no answer")

        assert failed.value.sent is False


class TestRequest:
    async def test_it_goes_on_behind_an_id(self, caplog: pytest.LogCaptureFixture) -> None:
        """The id is sent as it came, and the key in its one header, logged nowhere."""
        heard = b""

        async def hear(stream: ByteStream) -> None:
            nonlocal heard
            heard = await stream.receive()
            await stream.send(HEAD + chunk(b""))

        caplog.set_level(logging.DEBUG)
        async with streaming(hear, last_id="2026-11-20T09:01:12Z/000000000007") as stream:
            assert [event async for event in stream] == []

        lines = heard.decode().lower().split("\r\n")
        assert "last-event-id: 2026-11-20t09:01:12z/000000000007" in lines
        assert "accept: text/event-stream" in lines
        assert f"authorization: bearer {KEY}" in lines
        assert KEY not in caplog.text

    async def test_the_key_is_in_no_error(self) -> None:
        """Not even where a library quotes the header."""

        def answer(request: httpx.Request) -> httpx.Response:
            raise httpx.RemoteProtocolError(f"illegal: {request.headers['authorization']}")

        client = RestClient("https://api.test", key=KEY, transport=httpx.MockTransport(answer))
        async with client:
            with pytest.raises(RequestFailed) as failed:
                async with client.events("/logs", pace=LOGS, idle=5):
                    pass

        assert KEY not in str(failed.value) + repr(failed.value)

    async def test_open_streams_keep_no_request_waiting(self) -> None:
        """However many are open, and for however long."""

        async def talk(stream: ByteStream) -> None:
            while True:
                asked = await stream.receive()
                if b"GET /logs" in asked:
                    await stream.send(HEAD)
                else:
                    await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        async with serving(talk) as url, RestClient(url, key=KEY) as client:
            async with anyio.create_task_group() as tasks:
                opened = [anyio.Event() for _ in range(12)]

                async def follow(is_open: anyio.Event) -> None:
                    async with client.events("/logs", pace=LOGS, idle=60) as stream:
                        is_open.set()
                        async for _ in stream:
                            pass

                for is_open in opened:
                    tasks.start_soon(follow, is_open)
                for is_open in opened:
                    await is_open.wait()

                with anyio.fail_after(5):
                    assert (await client.request("GET", "/", pace=Pace("other"))).ok
                tasks.cancel_scope.cancel()


class TestLeaving:
    """Warnings are errors: what is left open here fails the test that left it."""

    async def test_it_may_be_left_early(self) -> None:
        """With events still to come; the server sees the end of the connection."""
        gone = anyio.Event()

        async def endless(stream: ByteStream) -> None:
            await stream.receive()
            await stream.send(HEAD)
            try:
                while True:
                    await stream.send(chunk(b"data: x\n\n" * 100))
            finally:
                gone.set()

        async with serving(endless) as url, RestClient(url, key=KEY) as client:
            async with client.events("/logs", pace=LOGS, idle=5) as stream:
                async for _ in stream:
                    break
            with anyio.fail_after(5):
                await gone.wait()

    async def test_it_may_be_left_unread(self) -> None:
        """By an error of its reader's, which is what is raised."""
        talk = saying(THREE, end=False)
        async with serving(talk) as url, RestClient(url, key=KEY) as client:
            with pytest.raises(KeyError):
                async with client.events("/logs", pace=LOGS, idle=5):
                    raise KeyError

    @pytest.mark.parametrize("events", [0, 1, 3])
    async def test_cancelled_it_closes_at_once(self, events: int) -> None:
        """Before the answer, between events, and while it waits for the next one."""
        reached, gone = anyio.Event(), anyio.Event()

        async def talk(stream: ByteStream) -> None:
            try:
                if events:
                    await saying(THREE, end=False)(stream)
                await anyio.sleep_forever()
            finally:
                gone.set()

        async def read(client: RestClient) -> None:
            left = events
            async with client.events("/logs", pace=LOGS, idle=60) as stream:
                async for _ in stream:
                    left -= 1
                    if left == 0:
                        reached.set()
                    if left == 0 and events == 1:
                        await anyio.sleep_forever()

        async with serving(talk) as url, RestClient(url, key=KEY) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, client)
                if events:
                    await reached.wait()
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            if events:
                with anyio.fail_after(5):
                    await gone.wait()
