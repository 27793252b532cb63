"""What programs and machines said, made fit for an error message."""

from __future__ import annotations

import re
from typing import Final

_LIMIT: Final = 300
#: Escape sequences: with parameters, with a text of their own (titles, clipboard), and short ones.
_SEQUENCES: Final = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
)
_NOT_PLAIN: Final = re.compile(rb"[^\x21-\x7e]+")


def said(raw: bytes) -> str:
    """The last 300 characters of `raw` on one line: printable ASCII, no escape sequences."""
    plain = _NOT_PLAIN.sub(b" ", _SEQUENCES.sub(b"", raw[-64 * 1024 :])).strip().decode("ascii")
    return plain if len(plain) <= _LIMIT else "..." + plain[3 - _LIMIT :]
