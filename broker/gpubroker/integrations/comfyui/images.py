"""Pictures that came from a machine, believed only as far as they show themselves what they are."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from typing import Final

from gpubroker.errors import InvalidValue

MAX_PIXELS: Final = 100_000_000
"""Pixels of one image: whoever decodes more may run out of memory."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_STEM: Final = re.compile(r"[^A-Za-z0-9_-]+")
#: JPEG markers that begin with the size of the picture.
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
#: Markers without a length.
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One picture.

    Attributes:
        data: the whole file.
        name: a name to suggest: letters, digits, ``_`` and ``-``, and the ending of its format.
        format: ``png``, ``jpeg`` or ``webp``, as its bytes say.
        width, height: pixels, as its header says.
    """

    data: bytes = field(repr=False)
    name: str
    format: str
    width: int
    height: int

    @property
    def content_type(self) -> str:
        """Its media type, such as ``image/png``."""
        return f"image/{self.format}"


def read_image(data: bytes, name: str = "") -> Image:
    """A picture from its bytes. It is not decoded; that it is whole is made sure of.

    Args:
        name: what somebody calls it; only harmless letters are taken from that.

    Raises:
        InvalidValue: it is no PNG, JPEG or WebP, is cut short or damaged, or is too large.
    """
    kind, (width, height) = _measured(data)
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise _bad(f"it claims to be {width} by {height} pixels")
    stem = _STEM.sub("_", name.rpartition("/")[2].rpartition(".")[0]).strip("_")[:60] or "image"
    ending = "jpg" if kind == "jpeg" else kind
    return Image(data=data, name=f"{stem}.{ending}", format=kind, width=width, height=height)


def _measured(data: bytes) -> tuple[str, tuple[int, int]]:
    for kind, measure in (("png", _png), ("jpeg", _jpeg), ("webp", _webp)):
        if (size := measure(data)) is not None:
            return kind, size
    raise _bad("it is not a PNG, JPEG or WebP")


def _png(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(_PNG):
        return None
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        head = data[at : at + 8]
        length = int.from_bytes(head[:4], "big")
        kind = head[4:]
        body = memoryview(data)[at + 8 : at + 8 + length]
        check = data[at + 8 + length : at + 12 + length]
        if len(check) != 4:
            raise _bad("it is cut short")
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(check, "big"):
            raise _bad("it is damaged")
        if (kind == b"IHDR") != (at == len(_PNG)):
            raise _bad("it is damaged")
        at += 12 + length
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise _bad("it is cut short")
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES and at + 9 <= len(data):
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise _bad("it is damaged")


def _webp(data: bytes) -> tuple[int, int] | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    if int.from_bytes(data[4:8], "little") + 8 > len(data) or len(data) < 30:
        raise _bad("it is cut short")
    if data[12:16] == b"VP8X":
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        return (
            int.from_bytes(data[26:28], "little") & 0x3FFF,
            int.from_bytes(data[28:30], "little") & 0x3FFF,
        )
    raise _bad("it is damaged")


def _bad(problem: str) -> InvalidValue:
    return InvalidValue("image", "…", problem)
