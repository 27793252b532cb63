from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator

import httpx
import pytest

from gpubroker.testing.emulation import (
    DROPPED,
    WIRE_FAULTS,
    Answer,
    ApiServer,
    Call,
    Cut,
    Dispatcher,
    Endpoint,
    FaultSchedule,
)


@pytest.fixture
def faults() -> FaultSchedule:
    """Faults of the API below."""
    return FaultSchedule(("echo", "broken"), tuple(WIRE_FAULTS))


@pytest.fixture
def dispatcher(faults: FaultSchedule) -> Dispatcher:
    """An API with an endpoint that answers, and one that fails."""

    def broken(call: Call) -> Answer:
        raise RuntimeError("no")

    def echo(call: Call) -> Answer:
        return Answer.of({"word": call.parameters["word"], "body": call.object()})

    return Dispatcher(
        (
            Endpoint("echo", "POST", "/echo/{word}/", echo),
            Endpoint("broken", "GET", "/broken", broken),
        ),
        gate=lambda call, endpoint: None if call.bearer else Answer.of({}, 401),
        pick=lambda call: faults.take(call.endpoint, call.parameters),
        faults=WIRE_FAULTS,
        otherwise=lambda call: Answer.text("nothing here", 404),
        invalid=Answer.of({"error": "invalid"}, 400),
        hidden=("password",),
    )


@pytest.fixture
def http(dispatcher: Dispatcher) -> Iterator[httpx.Client]:
    """A client of it."""
    server = ApiServer(dispatcher.answer)
    server.start()
    try:
        headers = {"Authorization": "Bearer key"}
        with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
            yield client
    finally:
        server.stop()


class TestDispatcher:
    def test_finds_the_endpoint_and_what_its_path_holds(self, http: httpx.Client) -> None:
        """And hands it the body."""
        answer = http.post("/echo/hello/", json={"a": 1})

        assert answer.json() == {"word": "hello", "body": {"a": 1}}
        assert answer.headers["content-type"] == "application/json"

    def test_asks_the_gate_first(self, http: httpx.Client) -> None:
        """What has no key gets nowhere."""
        assert http.post("/echo/x/", headers={"Authorization": ""}).status_code == 401

    def test_keeps_a_record_without_secrets(
        self, http: httpx.Client, dispatcher: Dispatcher
    ) -> None:
        """Neither the key nor what was named as hidden."""
        http.post("/echo/x/?password=one", json={"a": [{"password": "two"}]})

        [record] = dispatcher.records
        assert (record.endpoint, record.status) == ("echo", 200)
        assert record.body == {"a": [{"password": "***"}]}
        assert not {"key", "one", "two"} & set(repr(record).split("'"))

    def test_refuses_a_body_that_is_no_object(self, http: httpx.Client) -> None:
        """In the words of its API."""
        assert http.post("/echo/x/", content=b"[1]").json() == {"error": "invalid"}
        assert http.post("/echo/x/", content=b"{").json() == {"error": "invalid"}

    def test_keeps_what_its_handlers_raised(
        self, http: httpx.Client, dispatcher: Dispatcher
    ) -> None:
        """A fault of the emulator must not pass for one of the vendor."""
        assert http.get("/broken").status_code == 500
        assert "RuntimeError: no" in dispatcher.bugs[0]

    def test_carries_out_what_hangs_afterwards(
        self, http: httpx.Client, faults: FaultSchedule, dispatcher: Dispatcher
    ) -> None:
        """And forgets it when the client has gone."""
        faults.add("echo", "hang", when="after")

        with pytest.raises(httpx.ReadTimeout):
            http.post("/echo/x/", timeout=0.05)

        assert http.post("/echo/y/").status_code == 200
        assert [record.fault for record in dispatcher.records] == ["hang", None]


class TestStreams:
    @pytest.fixture
    def closed(self) -> threading.Event:
        """Set when a stream was closed."""
        return threading.Event()

    @pytest.fixture
    def server(self, closed: threading.Event) -> Iterator[ApiServer]:
        """Serves a stream that never ends, or is cut after its first piece."""

        async def pieces(*, cut: bool) -> AsyncGenerator[bytes]:
            try:
                yield b"one"
                if cut:
                    raise Cut
                await asyncio.sleep(1000)
            finally:
                closed.set()

        async def answer(call: Call) -> Answer:
            return Answer(body=b"zero ", stream=pieces(cut=call.path == "/cut"))

        server = ApiServer(answer)
        server.start()
        yield server
        server.stop()

    def test_send_each_piece_at_once(self, server: ApiServer, closed: threading.Event) -> None:
        """And are closed when the client has gone."""
        with httpx.stream("GET", server.url, trust_env=False) as answer:
            pieces = answer.iter_raw()
            got = b""
            while got != b"zero one":
                got += next(pieces)
            assert "content-length" not in answer.headers

        assert closed.wait(10)

    def test_can_cut_the_connection(self, server: ApiServer) -> None:
        """What was sent before arrives."""
        got: list[bytes] = []
        with httpx.stream("GET", f"{server.url}/cut", trust_env=False) as answer:
            with pytest.raises(httpx.RemoteProtocolError):
                got.extend(answer.iter_raw())

        assert b"".join(got) == b"zero one"

    def test_end_with_the_server(self, server: ApiServer, closed: threading.Event) -> None:
        """At once."""
        with httpx.stream("GET", server.url, trust_env=False) as answer:
            pieces = answer.iter_raw()
            next(pieces)

            server.stop()

            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
        assert closed.is_set()


class TestApiServer:
    def test_ends_at_once_with_requests_under_way(self) -> None:
        """Whoever waits finds the connection cut."""

        async def never(call: Call) -> Answer:
            arrived.set()
            import asyncio

            await asyncio.sleep(1000)
            return DROPPED

        arrived = threading.Event()
        server = ApiServer(never)
        server.start()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert arrived.wait(10)

            server.stop()

            assert connection.recv(1) == b""

    def test_can_be_stopped_twice_and_never_have_been_started(self) -> None:
        """Whatever happened before."""
        server = ApiServer(lambda call: _nothing())
        server.stop()
        server.start()
        server.stop()
        server.stop()

    def test_says_that_a_port_is_taken(self) -> None:
        """And leaves no thread behind."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            with pytest.raises(OSError, match="in use"):
                ApiServer(lambda call: _nothing()).start(taken.getsockname()[1])


async def _nothing() -> Answer:
    return Answer()
