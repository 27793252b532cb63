"""Ownership marks: what ties a machine at a vendor to one attempt in one ledger.

``gb1-<ledger>-<token>-<mac>``: 8 characters of ledger id, 16 of attempt token, 8 of a keyed MAC
over both; 38 characters of ``[a-z2-7-]`` in all, so that it fits every vendor's label. A copied or
forged mark does not verify, and is never the reason to destroy a machine.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final, Self

#: Vendors put words of their own around a label, with hyphens, underscores or blanks between.
_SHAPE: Final = re.compile(
    r"(?<![a-zA-Z0-9])gb1-([a-z2-7]{8})-([a-z2-7]{16})-([a-z2-7]{8})(?![a-zA-Z0-9])"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """An ownership mark, read or made. Only `verifies` tells whether it is ours."""

    ledger_id: str
    token: str
    mac: str

    @classmethod
    def make(cls, key: bytes, ledger_id: str, entropy: bytes) -> Self:
        """A mark of this ledger for one attempt, from 10 random bytes."""
        token = _base32(entropy)[:16]
        return cls(ledger_id, token, _mac(key, ledger_id, token))

    @classmethod
    def find(cls, text: str | None) -> Self | None:
        """The mark inside a label or name, which may hold other text around it."""
        match = _SHAPE.search(text or "")
        return cls(*match.groups()) if match else None

    def verifies(self, key: bytes) -> bool:
        """Whether this mark was made with `key`."""
        return hmac.compare_digest(self.mac, _mac(key, self.ledger_id, self.token))

    def __str__(self) -> str:
        return f"gb1-{self.ledger_id}-{self.token}-{self.mac}"


def ledger_id(entropy: bytes) -> str:
    """An id for a new ledger, from 5 random bytes."""
    return _base32(entropy)[:8]


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower().rstrip("=")


def _mac(key: bytes, ledger: str, token: str) -> str:
    return _base32(hmac.new(key, f"{ledger}-{token}".encode(), hashlib.sha256).digest())[:8]
