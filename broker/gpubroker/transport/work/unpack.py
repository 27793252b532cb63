"""Tar streams that a machine sends: taken apart here, and never believed."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Generator
from typing import Final, Protocol

from gpubroker.transport.work.patient import broken

_BLOCK: Final = 512
#: Bytes of a long name, or of a set of attributes.
_META: Final = 64 * 1024
#: An archive is filled up to the size of a tape's block.
_AFTER: Final = 1024 * 1024
_FILES: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_NAMES: Final = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})
_ATTRIBUTES: Final = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE})
#: Without contents, whatever their header says: links, devices, folders.
_EMPTY: Final = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE}
    | {tarfile.FIFOTYPE}
)
_RECORD: Final = re.compile(rb"(\d{1,6}) ([^=\n]+)=")
#: What the reader asks for next: so many bytes, all of them at once or as they come.
_Request = tuple[int, bool]


class Sink(Protocol):
    """Where the contents of one file go."""

    def write(self, data: bytes) -> object:
        """Take some more."""
        ...


class TarReader:
    """Takes a tar stream in whatever pieces it comes, and hands on each regular file in it.

    Args:
        begin: called with a file's name and size; gives the place for its contents.
        end: called when the contents are complete.
    """

    def __init__(self, begin: Callable[[str, int], Sink], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end
        self._after = 0
        self._held = bytearray()
        self._members: Generator[_Request, bytes] | None = self._read_members()
        self._wanted: _Request = next(self._members)

    @property
    def ended(self) -> bool:
        """Whether the archive has come to its end."""
        return self._members is None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream.

        Raises:
            ProviderError: it is no sound archive.
        """
        view = memoryview(data)
        while view:
            if self._members is None:
                self._after += len(view)
                if self._after > _AFTER:
                    raise _unsound("there is no end to it")
                return
            wanted, at_once = self._wanted
            take = wanted - len(self._held) if at_once else wanted
            piece, view = view[:take], view[take:]
            if at_once:
                self._held += piece
                if len(self._held) < wanted:
                    return
                block = bytes(self._held)
                self._held.clear()
            else:
                block = bytes(piece)
            try:
                self._wanted = self._members.send(block)
            except StopIteration:
                self._members = None

    def _read_members(self) -> Generator[_Request, bytes]:
        named: str | None = None
        sized: int | None = None
        zeros = 0
        while zeros < 2:
            block = yield _BLOCK, True
            if not any(block):
                zeros += 1
                continue
            zeros = 0
            header = _header(block)
            if header.type in _NAMES | _ATTRIBUTES:
                if not 0 < header.size <= _META:
                    raise _unsound(f"a name of {header.size} bytes")
                padded = yield header.size + -header.size % _BLOCK, True
                meta = padded[: header.size]
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    named = _name(meta.partition(b"\0")[0])
                elif header.type == tarfile.XHDTYPE:
                    named, sized = _attributes(meta, named)
                continue
            name = header.name if named is None else named
            size = header.size if sized is None else sized
            named = sized = None
            if header.type in _EMPTY:
                continue
            if header.type not in _FILES or size < 0:
                raise _unsound(f"a member of type {header.type!r} and {size} bytes")
            sink = self._begin(name, size)
            left = size
            while left:
                data = yield left, False
                sink.write(data)
                left -= len(data)
            self._end()
            if size % _BLOCK:
                yield -size % _BLOCK, True


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as problem:
        raise _unsound(str(problem)) from problem


def _name(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _attributes(data: bytes, named: str | None) -> tuple[str | None, int | None]:
    """The name and the size that a set of attributes (``length key=value``) gives."""
    sized: int | None = None
    while data:
        found = _RECORD.match(data)
        length = int(found[1]) if found else 0
        if found is None or not found.end() < length <= len(data) or data[length - 1] != 0x0A:
            raise _unsound("attributes that are none")
        value, data = data[found.end() : length - 1], data[length:]
        if found[2] == b"path":
            named = _name(value)
        elif found[2] == b"size":
            if not value.isdigit() or len(value) > 18:
                raise _unsound(f"a size of {value[:20]!r}")
            sized = int(value)
        elif found[2].startswith(b"GNU.sparse."):
            raise _unsound("a file with holes, which was not asked for")
    return named, sized


def _unsound(problem: str) -> Exception:
    return broken(f"the machine sent a broken archive: {problem[:80]}")
