"""Text from elsewhere made harmless for a terminal.

What a job prints, and what a host or a vendor calls itself, may hold escape sequences that retitle
the window, fill the clipboard, type into the shell or turn the reading direction round. None of
that gets through. Colours and cursor movements are dropped; everything else is made visible.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Final

#: Control sequences that carry no text: colours, cursor movements, erasing.
_SEQUENCE: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
#: What may be the beginning of one, at the end of a piece of output.
_BEGINNING: Final = re.compile(r"\x1b(?:\[[0-?]{0,32}[ -/]{0,4})?\Z")
_KEPT: Final = "\n\r\t"
#: Not control characters to Unicode, but they end lines or turn the reading direction round.
_TURNING: Final = (
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_UNSEEN: Final = "\ufffd"


def _stand_in(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else _UNSEEN


_TABLE: Final = {
    **{
        code: _stand_in(code)
        for code in range(0xA0)
        if unicodedata.category(chr(code)) == "Cc" and chr(code) not in _KEPT
    },
    **dict.fromkeys(map(ord, _TURNING), _UNSEEN),
}
_ONE_LINE: Final = {**_TABLE, **dict.fromkeys(map(ord, _KEPT), " ")}


def harmless(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey."""
    plain = _SEQUENCE.sub("", text).translate(_ONE_LINE)
    return plain.encode(errors="replace").decode()


class Neutraliser:
    """Makes a stream of output harmless, piece by piece; sequences may be cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def feed(self, data: bytes) -> bytes:
        """The harmless form of the next piece; what may be half a sequence waits for the next."""
        return self._pass(self._decoder.decode(data))

    def finish(self) -> bytes:
        """What is left at the end of the stream."""
        return self._pass(self._decoder.decode(b"", final=True), last=True)

    def _pass(self, text: str, *, last: bool = False) -> bytes:
        text = self._held + text
        beginning = None if last else _BEGINNING.search(text)
        end = len(text) if beginning is None else beginning.start()
        self._held = text[end:]
        return _SEQUENCE.sub("", text[:end]).translate(_TABLE).encode()
