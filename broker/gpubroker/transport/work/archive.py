"""Tar streams that are made here."""

from __future__ import annotations

import tarfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Final

from gpubroker.transport.work.pieces import PIECE
from gpubroker.transport.work.placing import Entry, refused

_BLOCK: Final = 512
_READ: Final = 1024 * 1024


def archive(entries: Iterable[Entry]) -> Generator[bytes]:
    """One tar stream of `entries`, in pieces that are worth sending.

    In GNU format, which every ``tar`` takes, for any length of a name and any size.

    Raises:
        ProviderError: a file is not what it was, or cannot be read any more.
    """
    held = bytearray()
    for entry in entries:
        held += _header(entry)
        for data in contents(entry):
            held += data
            if len(held) >= PIECE:
                yield bytes(held)
                held.clear()
        held += bytes(-entry.size % _BLOCK)
    held += bytes(2 * _BLOCK)
    yield bytes(held)


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.name)
    info.size = entry.size
    info.mode = entry.mode
    info.type = tarfile.DIRTYPE if entry.source is None else tarfile.REGTYPE
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def contents(entry: Entry, start: int = 0) -> Generator[bytes]:
    """The bytes of an entry from `start` on: exactly as many as it is said to have."""
    if isinstance(entry.source, bytes):
        if entry.source[start:]:
            yield entry.source[start:]
    elif entry.source is not None:
        yield from _read(entry.name, entry.source, start, entry.size - start)


def _read(name: str, source: Path, start: int, left: int) -> Iterator[bytes]:
    try:
        with source.open("rb", buffering=0) as file:
            file.seek(start)
            while left and (data := file.read(min(left, _READ))):
                left -= len(data)
                yield data
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise refused(f"{name!r} cannot be placed: {reason}") from problem
    if left:
        raise refused(f"{name!r} cannot be placed: it was cut while it was sent")
