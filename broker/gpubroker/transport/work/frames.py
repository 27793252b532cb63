"""What a machine says while a job is followed, taken apart.

::

    S              the job has been started, now or before
    O <n>, E <n>   n bytes of standard output or standard error follow
    A              nothing new, but the job is alive
    T              there is no tar, which the job needs; it was not started
    G              there is no folder of this job
    D              what stood for the job has died without a word
    X              the job has ended, and all output was sent; the rest says how it ended
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gpubroker.transport.job_io import Stream
from gpubroker.transport.said import said
from gpubroker.transport.work.patient import broken

_STREAMS: Final[dict[bytes, Stream]] = {b"O": "stdout", b"E": "stderr"}
_SIGNS: Final = frozenset(b"SATGDX".decode())
#: Bytes of one piece, of a line that announces one, and of how a job ended.
_PIECE: Final = 1024 * 1024
_LINE: Final = 32
_ENDING: Final = 64 * 1024


class Frames:
    """Takes what comes, in whatever pieces, and says what it means.

    Attributes:
        signs: the signs that have come.
        ending: what followed the sign ``X``.
    """

    def __init__(self) -> None:
        self.signs: set[str] = set()
        self.ending = b""
        self._held = b""
        self._stream: Stream = "stdout"
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[Stream, bytes]]:
        """Take `data`; gives the output that is in it, of each stream in order.

        Raises:
            ProviderError: it is nonsense, so the machine is not what it should be.
        """
        data = self._held + data
        self._held = b""
        while data and "X" not in self.signs:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                yield self._stream, piece
                continue
            line, ended, rest = data.partition(b"\n")
            if len(line) > _LINE:
                raise _nonsense(line)
            if not ended:
                self._held = data
                return
            data = rest
            self._take(line)
        if "X" in self.signs:
            self.ending += data
            if len(self.ending) > _ENDING:
                raise _nonsense(self.ending[:_LINE])

    def _take(self, line: bytes) -> None:
        letter, _, size = line.partition(b" ")
        if letter in _STREAMS and size.isdigit() and 0 < int(size) <= _PIECE:
            self._stream, self._left = _STREAMS[letter], int(size)
        elif not size and line.decode("ascii", "replace") in _SIGNS:
            self.signs.add(line.decode("ascii"))
        else:
            raise _nonsense(line)


def _nonsense(line: bytes) -> Exception:
    return broken(f"the machine sent nonsense while a job ran: {said(line[:80])!r}")
