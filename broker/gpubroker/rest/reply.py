"""What a REST API answered, or that it did not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, cast

from gpubroker.errors import BrokerError

KEPT_HEADERS = (
    "content-type",
    "date",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "x-ratelimit-reset",
    "x-request-id",
)
"""The headers of an answer that a `Reply` has; the others are dropped."""


class RequestFailed(BrokerError):
    """A request got no answer, or none that could be read to its end.

    Attributes:
        sent: whether it may have reached the server. ``False`` is certain: there never was a
            connection, so the server cannot have acted on it.
        retry_after: seconds that the server still wants to be left alone, where that is why
            nothing was sent.
    """

    def __init__(self, message: str, *, sent: bool, retry_after: float | None = None) -> None:
        self.sent = sent
        self.retry_after = retry_after
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        status: the HTTP status. A redirect is an answer like any other.
        headers: those named in `KEPT_HEADERS`, in small letters.
        body: all of it. Shown by no repr, since it may hold secrets.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status says that it worked (2xx)."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON, with every fraction as an exact ``Decimal``, not-a-number included.

        Raises:
            ValueError: it is not JSON.
        """
        try:
            return json.loads(self.body, parse_float=Decimal, parse_constant=Decimal)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def json_object(self) -> dict[str, Any] | None:
        """The body if it is a JSON object; ``None`` if it is anything else."""
        try:
            found = self.json()
        except ValueError:
            return None
        return cast("dict[str, Any]", found) if isinstance(found, dict) else None

    def retry_after(self) -> float | None:
        """Seconds after which the server wants to be asked again; ``None`` if it does not say.

        A moment is counted from the server's own ``Date``, not from this machine's clock.
        """
        text = self.headers.get("retry-after", "").strip()
        try:
            seconds = float(text)
        except ValueError:
            return _until(text, self.headers.get("date", ""))
        return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _until(moment: str, now: str) -> float | None:
    """Seconds between two HTTP dates."""
    try:
        ends = [parsedate_to_datetime(text) for text in (moment, now)]
    except ValueError:
        return None
    then, since = (end if end.tzinfo else end.replace(tzinfo=UTC) for end in ends)
    return max(0.0, (then - since).total_seconds())
