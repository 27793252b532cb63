"""What the machine says its files are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gpubroker.transport.work.lines import as_line
from gpubroker.transport.work.patient import PatientChannel

_LINE: Final = re.compile(rb"\\?([0-9a-f]{64}) [ *]\./(.*)")


async def digests(channel: PatientChannel, place: str, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 (hex) of files of a job, as far as the machine can tell it.

    Args:
        place: the folder that the names are in: ``"work"``, ``"home"``, or ``"new"``.
        names: without line breaks and backslashes, unless it is only one.
    """
    stdin = b"".join(map(as_line, names))
    limit = 2 * len(stdin) + 100 * len(names) + 64 * 1024
    answer = await channel.ask("digests", place, stdin=stdin, limit=limit)
    found = [_LINE.fullmatch(line) for line in answer.splitlines()]
    said = {line[2].decode("utf-8", "surrogateescape"): line[1].decode() for line in found if line}
    # Tools print odd names in ways of their own.
    return dict(zip(names, said.values(), strict=False)) if len(names) == 1 else said
