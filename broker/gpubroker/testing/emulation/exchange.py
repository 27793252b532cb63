"""One HTTP request and its answer, as an emulator sees them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request.

    Attributes:
        endpoint: the name of the endpoint that it is for; "" if there is none.
        method: in capitals.
        path: as it came, without the query.
        parameters: what the endpoint's pattern found in the path.
        query: the query, decoded; the last one of several values.
        headers: by name in small letters.
        body: as it came.
        peer: the address of the client.
        at: when it came, Unix seconds.
    """

    endpoint: str = ""
    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes = field(default=b"", repr=False)
    peer: tuple[str, int] = ("", 0)
    at: float = 0.0

    def json(self) -> Any:
        """The body as JSON; an empty object where there is no body.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(self.body) if self.body.strip() else {}

    def object(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one where there is no body.

        Raises:
            ValueError: it is no JSON object.
        """
        value = self.json()
        if not isinstance(value, dict):
            raise json.JSONDecodeError("not an object", "", 0)
        return cast("dict[str, Any]", value)

    @property
    def bearer(self) -> str | None:
        """The token of the ``Authorization`` header, if there is one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class Cut(Exception):
    """Raised by the stream of an answer: the connection is cut here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        status: the HTTP status.
        body: as it is sent.
        headers: besides the type and the length of the body.
        content_type: exactly as it is sent.
        pace: seconds between two small pieces of the body; 0 sends it at once.
        cut_at: how many bytes of the body are sent before the connection is cut; -1 cuts it
            before the status; ``None`` does not.
        stream: pieces that are sent after the body, each at once. It is closed when the client
            has gone, and may raise `Cut`.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content_type: str = "application/json"
    pace: float = 0.0
    cut_at: int | None = None
    stream: AsyncGenerator[bytes] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> Answer:
        """A value as JSON. Underscores in names of headers stand for hyphens."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value, default=_number).encode(), named)

    @classmethod
    def text(cls, text: str, status: int = 200, content_type: str = "text/plain") -> Answer:
        """Plain text."""
        return cls(status, text.encode(), {}, content_type)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def but(self, **changes: Any) -> Answer:
        """The same answer with some parts changed."""
        return replace(self, **changes)


#: The connection is cut without a word.
DROPPED = Answer(cut_at=-1)


def _number(value: object) -> float:
    """Exact amounts leave as JSON numbers, as vendors write them."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)
