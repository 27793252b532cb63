"""Any text as one line, which ``printf %b`` of every shell turns back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

#: Control characters, and what `printf` itself takes for more than it is.
_ESCAPED: Final = re.compile(rb"[\x00-\x1f\x7f\\]")


def as_line(text: str) -> bytes:
    """One line, its end included. Bytes that are no UTF-8 are given by surrogates."""
    data = text.encode("utf-8", "surrogateescape")
    return _ESCAPED.sub(lambda found: b"\\0%03o" % ord(found[0]), data) + b"\n"


def job_lines(argv: Sequence[str], env: Mapping[str, str]) -> bytes:
    """What the job script reads: the words of a command, and its environment."""
    words = b"".join(as_line(word) for word in argv)
    # PATH last: until then the shell looks for its own programs.
    names = sorted(env, key=lambda name: name == "PATH")
    variables = b"".join(as_line(f"{name}={env[name]}") for name in names)
    return b"%d\n%s%send\n" % (len(argv), words, variables)
