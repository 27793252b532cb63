"""The HTTP client for providers: one request, one answer, and the key in one header only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import ByteStream

from gpubroker import BrokerError, InvalidValue
from gpubroker.rest import Pace, Reply, RequestFailed, RestClient, is_loopback

from .loopback import free_port, serving

pytestmark = pytest.mark.anyio

KEY = "account-key-0123456789"
ANY = Pace("any")
Answer = Callable[[httpx.Request], httpx.Response]


def client_on(answer: Answer, url: str = "https://api.test", **options: Any) -> RestClient:
    """A client whose server is a function."""
    return RestClient(url, key=KEY, transport=httpx.MockTransport(answer), **options)


class TestAnswers:
    async def test_an_answer_is_given_back_whatever_its_status(self) -> None:
        """What it means is the plugin's business: 404 is an answer."""

        def answer(request: httpx.Request) -> httpx.Response:
            assert request.url == "https://api.test/things/?q=a+b"
            return httpx.Response(404, json={"error": "none"}, headers={"X-Other": "1"})

        async with client_on(answer) as client:
            reply = await client.request("GET", "/things/", params={"q": "a b"}, pace=ANY)

        assert (reply.status, reply.ok, reply.json_object()) == (404, False, {"error": "none"})
        assert "x-other" not in reply.headers

    async def test_a_redirect_is_an_answer_and_is_not_followed(self) -> None:
        """A redirected PUT may turn into a GET, and the key must not go elsewhere."""
        asked: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(str(request.url))
            return httpx.Response(301, headers={"Location": "https://elsewhere.test/"})

        async with client_on(answer) as client:
            reply = await client.request("PUT", "/things", json={}, pace=ANY)

        assert (reply.status, asked) == (301, ["https://api.test/things"])

    def test_fractions_are_exact(self) -> None:
        """No price goes through a float; not-a-number is left for the reader to refuse."""
        body = Reply(200, {}, b'{"price": 0.10000000000000001, "n": 3, "x": NaN}').json()

        assert body["price"] == Decimal("0.10000000000000001")
        assert (body["n"], body["x"].is_nan()) == (3, True)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'"x"', b'{"a":', b"[" * 200_000])
    def test_what_is_no_object_is_none(self, body: bytes) -> None:
        """Whatever a server sends instead of a JSON object is told apart from one."""
        assert Reply(200, {}, body).json_object() is None

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "3"}, 3.0),
            ({"retry-after": "2.5"}, 2.5),
            ({"retry-after": "-1"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "soon"}, None),
            (
                {
                    "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                    "date": "Wed, 21 Oct 2026 07:28:00 GMT",
                },
                30.0,
            ),
            ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ],
    )
    def test_retry_after_is_read_in_both_forms(
        self, headers: dict[str, str], seconds: float | None
    ) -> None:
        """Seconds, or a moment counted from the server's own clock."""
        assert Reply(429, headers).retry_after() == seconds


class TestNoAnswer:
    async def test_no_connection_means_certainly_not_sent(self) -> None:
        """Nobody listens: the server cannot have acted."""
        async with RestClient(f"http://127.0.0.1:{await free_port()}", key=KEY) as client:
            with pytest.raises(RequestFailed) as failed:
                await client.request("PUT", "/create/", json={}, pace=ANY)

        assert failed.value.sent is False

    async def test_a_server_that_hangs_up_may_have_acted(self) -> None:
        """The request was read, and nothing came back."""
        asked = 0

        async def hang_up(stream: ByteStream) -> None:
            nonlocal asked
            await stream.receive()
            asked += 1

        async with serving(hang_up) as url, RestClient(url, key=KEY) as client:
            with pytest.raises(RequestFailed) as failed:
                await client.request("PUT", "/create/", json={}, pace=ANY)

        assert (failed.value.sent, asked) == (True, 1)

    async def test_an_answer_cut_short_is_none(self) -> None:
        """Fewer bytes than announced are no answer, and the server has acted."""

        async def cut(stream: ByteStream) -> None:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

        async with serving(cut) as url, RestClient(url, key=KEY) as client:
            with pytest.raises(RequestFailed) as failed:
                await client.request("GET", "/", pace=ANY)

        assert failed.value.sent is True

    async def test_a_server_that_trickles_is_cut_off(self) -> None:
        """The time is for the whole answer, not for each piece of it."""

        async def trickle(stream: ByteStream) -> None:
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                await stream.send(b" ")
                await anyio.sleep(0.01)

        async with serving(trickle) as url, RestClient(url, key=KEY) as client:
            with pytest.raises(RequestFailed, match=r"within 0\.1 s") as failed:
                await client.request("GET", "/", pace=ANY, within=0.1)

        assert failed.value.sent is True

    async def test_an_endless_answer_is_cut_off(self) -> None:
        """No server can fill the memory."""
        sent = 0

        async def flood(stream: ByteStream) -> None:
            nonlocal sent
            await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await stream.send(b"x" * 65_536)
                sent += 65_536

        async with serving(flood) as url, RestClient(url, key=KEY) as client:
            with pytest.raises(RequestFailed, match="longer than 100000 bytes"):
                await client.request("GET", "/", pace=ANY, limit=100_000)

        assert sent < 32 << 20

    async def test_nothing_is_sent_twice(self) -> None:
        """Whatever goes wrong, the client leaves it at one request."""
        asked = 0

        def answer(request: httpx.Request) -> httpx.Response:
            nonlocal asked
            asked += 1
            raise httpx.ReadError("gone")

        async with client_on(answer) as client:
            with pytest.raises(RequestFailed):
                await client.request("PUT", "/", pace=ANY)

        assert asked == 1


class TestKey:
    async def test_it_is_in_one_header(self) -> None:
        """As a bearer token, and neither in the address nor in the body."""
        seen: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, json={})

        async with client_on(answer) as client:
            await client.request("PUT", "/", json={"a": 1}, params={"b": "2"}, pace=ANY)

        request = seen[0]
        names = [name for name, value in request.headers.items() if KEY in value]
        assert (names, request.headers["authorization"]) == (["authorization"], f"Bearer {KEY}")
        assert KEY not in str(request.url) + request.content.decode()

    async def test_it_can_stand_in_a_header_by_itself(self) -> None:
        """For a vendor that wants no bearer token."""
        seen: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, json={})

        async with client_on(answer, key_header="X-API-Key") as client:
            await client.request("GET", "/", pace=ANY)

        assert (seen[0].headers["x-api-key"], "authorization" in seen[0].headers) == (KEY, False)

    async def test_a_download_goes_without_it(self) -> None:
        """A link in an answer leads to somebody else's server."""
        seen: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, text="a log")

        async with client_on(answer) as client:
            reply = await client.download("https://storage.test/log?sig=1")

        assert reply.body == b"a log"
        assert str(seen[0].url) == "https://storage.test/log?sig=1"
        assert KEY not in str(seen[0].headers.raw)

    @pytest.mark.parametrize(
        "url",
        ["http://storage.test/", "file:///etc/passwd", "https://u:p@x.test/", "", "http://127.1/"],
    )
    async def test_a_download_leads_to_https_only(self, url: str) -> None:
        """No link of a server's makes us read in the clear, or from this machine."""

        def answer(request: httpx.Request) -> httpx.Response:
            raise AssertionError("asked")

        async with client_on(answer) as client:
            with pytest.raises(RequestFailed):
                await client.download(url)

    async def test_this_machine_is_no_place_to_be_sent_to(self) -> None:
        """Only an emulator's links may lead here."""
        link = "http://127.0.0.1:8000/log"
        async with client_on(lambda request: httpx.Response(200)) as client:
            with pytest.raises(RequestFailed):
                await client.download(link)
        emulated = client_on(lambda request: httpx.Response(200), url="http://127.0.0.1:9000")
        async with emulated as client:
            assert (await client.download(link)).ok

    async def test_it_is_shown_nowhere(self, caplog: pytest.LogCaptureFixture) -> None:
        """Not in a repr, a log at any level, nor an error that quotes the server."""

        def answer(request: httpx.Request) -> httpx.Response:
            raise httpx.RemoteProtocolError(f"illegal header: {request.headers['authorization']}")

        caplog.set_level(logging.DEBUG)
        async with client_on(answer) as client:
            with pytest.raises(RequestFailed) as failed:
                await client.request("GET", "/", pace=ANY)

        assert KEY not in repr(client) + repr(failed.value) + str(failed.value) + caplog.text
        assert client.without_key(f"the key {KEY}") == "the key …"

    async def test_it_is_not_logged_on_a_real_connection(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nor do the libraries below log it, at their most talkative."""
        heard = b""

        async def answer(stream: ByteStream) -> None:
            nonlocal heard
            heard = await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        caplog.set_level(logging.DEBUG)
        async with serving(answer) as url, RestClient(url, key=KEY) as client:
            await client.request("GET", "/x", pace=ANY)

        assert KEY in heard.decode()
        assert "/x" in caplog.text
        assert KEY not in caplog.text

    @pytest.mark.parametrize("key", ["new\nline", "with blank", "ключ", "nul\0"])
    def test_one_that_fits_no_header_is_refused_unseen(self, key: str) -> None:
        """The library below would put it into its error."""
        with pytest.raises(InvalidValue) as refused:
            RestClient("https://api.test", key=key)

        assert key not in str(refused.value) + repr(refused.value)


class TestAddress:
    @pytest.mark.parametrize(
        "url",
        ["http://api.test", "api.test", "ftp://api.test", "https://", "https://user:pw@api.test"],
    )
    def test_a_key_goes_to_https_or_this_machine(self, url: str) -> None:
        """Anything else is refused before there is a connection, and no password is shown."""
        with pytest.raises(InvalidValue) as refused:
            RestClient(url, key=KEY)

        assert "pw" not in str(refused.value)

    @pytest.mark.parametrize(
        ("url", "here"),
        [
            ("http://127.0.0.1:80", True),
            ("http://[::1]:80", True),
            ("http://localhost/", True),
            ("http://127.0.0.1.evil.test", False),
            ("https://console.test", False),
            ("http://[::1", False),
        ],
    )
    def test_what_this_machine_is(self, url: str, here: bool) -> None:
        """By name or address alone: no name server is asked."""
        assert is_loopback(url) is here

    async def test_this_machine_is_reached_past_any_proxy(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy in the environment would not find an emulator."""
        for name in ("HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{await free_port()}")

        async def answer(stream: ByteStream) -> None:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        async with serving(answer) as url, RestClient(url) as client:
            assert (await client.request("GET", "/", pace=ANY)).ok

    def test_its_errors_belong_to_the_tree(self) -> None:
        """`BrokerError` catches them all."""
        assert issubclass(RequestFailed, BrokerError)
