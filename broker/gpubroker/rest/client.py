"""The HTTP client itself: one request, one answer, or the reason why there is none."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import anyio

from gpubroker.errors import InvalidValue
from gpubroker.rest.events import EventStream, unwind
from gpubroker.rest.pacing import Pace, Pacer
from gpubroker.rest.reply import KEPT_HEADERS, Reply, RequestFailed

if TYPE_CHECKING:
    import httpx

_CONNECT: Final = 10.0
_AT_ONCE: Final = 8
_SHORTEST_SECRET: Final = 4
#: Bytes of an answer that refuses a stream.
_REFUSAL: Final = 256 * 1024


def is_loopback(url: str) -> bool:
    """Whether `url` leads to this machine, by its name or address alone."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RestClient:
    """A client for one API and one account. Enter it before the first request.

    Requests of one `Pace` are spaced out; no more than eight ordinary ones are under way at any
    moment, and urgent ones never wait for those. Proxies and certificates that the environment
    names are used as any HTTP client uses them, save for an API on this machine's loopback
    address, which is reached straight.

    Args:
        base_url: where paths begin: https, or http to this machine's loopback address.
        key: sent as a bearer token to `base_url`, and shown nowhere. ``None`` sends none.
        key_header: the header that holds the key by itself, such as ``X-API-Key``; ``None`` for
            a bearer token.
        even: ``False`` for an emulator that counts no requests: none waits for an earlier one.
        transport: an httpx transport to use instead of the network.

    Raises:
        InvalidValue: the address or the key cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        key_header: str | None = None,
        user_agent: str = "gpubroker",
        even: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        _check_url(base_url)
        self.base_url = base_url.rstrip("/")
        self._key = _checked_key(key)
        self._key_header = key_header
        self._user_agent = user_agent
        self._even = even
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._entered = False
        self._pacer = Pacer(even=even)
        self._places = anyio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"<RestClient {self.base_url}>"

    async def __aenter__(self) -> Self:
        self._pacer = Pacer(even=self._even)
        self._places = anyio.Semaphore(_AT_ONCE)
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered = False
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    def _http(self) -> httpx.AsyncClient:
        """Made for the first request: most of what it costs is spared who asks nothing."""
        import httpx

        assert self._entered, "a RestClient is entered before it is used"
        if self._client is None:
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                transport=self._transport,
                trust_env=not is_loopback(self.base_url),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=_AT_ONCE),
                headers={"User-Agent": self._user_agent, "Accept": "application/json"},
            )
        return self._client

    async def turn(self, pace: Pace, *, patience: float = 30.0) -> None:
        """Wait until `pace` allows a request; for one whose content is settled only then.

        Raises:
            RequestFailed: the server wants to be left alone for longer than `patience` seconds.
        """
        left = await self._pacer.turn(pace, patience)
        if left > 0:
            raise RequestFailed(
                f"{pace.name}: not to be asked for another {left:.0f} s",
                sent=False,
                retry_after=left,
            )

    def hold(self, pace: Pace, seconds: float) -> None:
        """Ask nothing of this pace for so long: the server said so in words of its own."""
        self._pacer.hold(pace, seconds)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        pace: Pace,
        in_turn: bool = False,
        within: float = 30.0,
        limit: int = 8 << 20,
    ) -> Reply:
        """Send one request, once.

        Args:
            path: put behind the base address as it is.
            json: the body. params: the query.
            pace: what it counts for. A 429 that names a pause holds everything of this pace.
            in_turn: `turn` was awaited for it already.
            within: seconds that all of it may take, from the connection to the last byte.
            limit: most bytes that the answer's body may have.

        Raises:
            RequestFailed: there is no answer, or it is too long or took too long.
        """
        if not in_turn:
            await self.turn(pace)
        async with nullcontext() if pace.urgent else self._places:
            reply = await self._send(
                method,
                self.base_url + path,
                headers=self._authorization(),
                params=params,
                json=json,
                within=within,
                limit=limit,
                begin=lambda: self._pacer.sent(pace),
            )
        self._obey(reply, pace)
        return reply

    @asynccontextmanager
    async def events(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        last_id: str | None = None,
        pace: Pace,
        idle: float,
        within: float = 30.0,
        limit: int = 1 << 20,
    ) -> AsyncGenerator[EventStream]:
        """Ask for server-sent events, once, and read them for as long as the block lasts.

        It takes none of the places of ordinary requests, since it may stay open for hours.

        Args:
            last_id: go on behind the event that had this id.
            pace: what opening it counts for.
            idle: seconds of silence after which the iteration ends.
            within: seconds until the answer must have begun.
            limit: most bytes of one event; of a longer one only the beginning is kept.

        Raises:
            RequestFailed: there is no answer. The iteration raises it when the stream breaks.
        """
        await self.turn(pace)
        asked = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        asked |= {} if last_id is None else {"Last-Event-ID": last_id}
        where = f"GET {self.base_url}{path}"
        client = self._http()
        with self._failing(where, within):
            request = client.build_request(
                "GET",
                self.base_url + path,
                headers=self._authorization() | asked,
                params=params,
                timeout=_no_limit(within),
            )
            with anyio.fail_after(within):
                response = await client.send(request, stream=True)
        chunks = response.aiter_bytes()
        try:
            kept, body = _kept(response), _Body(_REFUSAL)
            if not response.is_success:
                with self._failing(where, within), anyio.fail_after(within) as scope:
                    async for chunk in chunks:
                        if not body.take(chunk):
                            scope.cancel()
            reply = Reply(response.status_code, kept, bytes(body.data))
            self._obey(reply, pace)
            yield EventStream(
                reply,
                chunks if reply.ok else None,
                failing=lambda: self._failing(where, within),
                idle=idle,
                limit=limit,
            )
        finally:
            try:
                # What goes wrong in leaving is no news to anybody.
                with suppress(Exception):
                    await unwind(chunks)
            finally:
                with suppress(Exception):
                    await response.aclose()

    async def download(self, url: str, *, within: float = 30.0, limit: int = 8 << 20) -> Reply:
        """Get what an answer pointed to, from wherever it lies, without the account's key.

        Raises:
            RequestFailed: as for `request`; also where `url` is neither https nor on the same
                machine as the API.
        """
        try:
            _check_url(url)
            allowed = is_loopback(self.base_url) or not is_loopback(url)
        except InvalidValue:
            allowed = False
        if not allowed:
            raise RequestFailed("pointed to an address that is not followed", sent=False)
        return await self._send("GET", url, within=within, limit=limit)

    async def _send(
        self,
        method: str,
        url: str,
        *,
        within: float,
        limit: int,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        begin: Callable[[], None] = lambda: None,
    ) -> Reply:
        import httpx

        from gpubroker.rest.sent import SentBody

        client = self._http()
        where = f"{method} {url.partition('?')[0]}"
        limits = httpx.Timeout(within, connect=min(_CONNECT, within))
        body, status, kept = _Body(limit), 0, dict[str, str]()
        with self._failing(where, within), anyio.fail_after(within) as scope:
            request = client.build_request(
                method, url, headers=headers, params=params, json=json, timeout=limits
            )
            request.stream = SentBody(request.content, begin)
            async with aclosing(await client.send(request, stream=True)) as response:
                status, kept = response.status_code, _kept(response)
                async for chunk in response.aiter_bytes():
                    if not body.take(chunk):
                        # Not left by an exception from here: the generators below would stay
                        # open. Cancelled, they are unwound from the innermost on.
                        scope.cancel()
        if body.too_long:
            raise RequestFailed(f"{where}: the answer is longer than {limit} bytes", sent=True)
        return Reply(status, kept, bytes(body.data))

    def _authorization(self) -> dict[str, str]:
        if self._key is None:
            return {}
        if self._key_header is not None:
            return {self._key_header: self._key}
        return {"Authorization": f"Bearer {self._key}"}

    def _obey(self, reply: Reply, pace: Pace) -> None:
        pause = reply.retry_after() if reply.status == 429 else None
        if pause is not None:
            self.hold(pace, pause)

    @contextmanager
    def _failing(self, where: str, within: float) -> Generator[None]:
        """Say in our own words why there is no answer, and whether it may have been asked for."""
        import httpx

        try:
            yield
        except TimeoutError:
            raise RequestFailed(f"{where}: no answer within {within:g} s", sent=True) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise RequestFailed(f"{where}: {self._told(error)}", sent=False) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            raise RequestFailed(f"{where}: {self._told(error)}", sent=True) from None

    def _told(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return self.without_key(text)

    def without_key(self, text: str) -> str:
        """`text`, which came from the server or a library, with the key struck out."""
        # A key of a letter or two is made up, for an emulator; striking it out garbles the text.
        known = self._key is not None and len(self._key) >= _SHORTEST_SECRET
        return text.replace(self._key or "", "…") if known else text


def _kept(response: httpx.Response) -> dict[str, str]:
    return {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}


def _no_limit(within: float) -> httpx.Timeout:
    """For a stream: it must begin in time, and then it may be silent."""
    import httpx

    return httpx.Timeout(within, connect=min(_CONNECT, within), read=None)


class _Body:
    """An answer's body as far as it has come; nothing, once it is too long."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.too_long = False
        self._limit = limit

    def take(self, chunk: bytes) -> bool:
        """Add a piece; false once there is too much."""
        self.too_long = self.too_long or len(self.data) + len(chunk) > self._limit
        if self.too_long:
            self.data.clear()
        else:
            self.data += chunk
        return not self.too_long


def _check_url(url: str) -> None:
    """Refuse an address to which no key may go."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise InvalidValue("url", "…", "not an address") from None
    if "@" in parts.netloc:
        # Whatever stands before the @ may be a password.
        raise InvalidValue("url", "…", "must not hold a user or a password")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))):
        raise InvalidValue("url", url, "must begin with https://, or http:// and this machine")


def _checked_key(key: str | None) -> str | None:
    """The key, if it can stand in a header; it is shown in no error."""
    if key is None or not key.strip():
        return None
    bare = key.strip()
    if not (bare.isascii() and bare.isprintable()) or " " in bare:
        raise InvalidValue("key", "…", "holds characters that no key has")
    return bare
