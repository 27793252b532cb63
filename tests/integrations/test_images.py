"""Pictures from machines: what is believed of them."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker import InvalidValue
from gpubroker.integrations.comfyui import read_image
from gpubroker.testing.comfyui_server import picture

PNG = picture(b"")
JPEG = (
    b"\xff\xd8\xff\xe0\x00\x04ab"
    b"\xff\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 480, 640) + b"\x01\x01\x11\x00"
    b"\xff\xda\x00\x02data\xff\xd9"
)


def webp(kind: bytes, body: bytes) -> bytes:
    """A WebP of one chunk."""
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


VP8 = webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480) + b"\0" * 8)
VP8L = webp(b"VP8L", b"\x2f" + (639 | 479 << 14).to_bytes(4, "little") + b"\0" * 8)
VP8X = webp(b"VP8X", b"\0" * 4 + (639).to_bytes(3, "little") + (479).to_bytes(3, "little"))


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [
        (PNG, "png", (192, 192)),
        (JPEG, "jpeg", (640, 480)),
        (VP8, "webp", (640, 480)),
        (VP8L, "webp", (640, 480)),
        (VP8X, "webp", (640, 480)),
    ],
    ids=["png", "jpeg", "vp8", "vp8l", "vp8x"],
)
def test_kind_and_size_are_read_from_the_bytes(
    data: bytes, kind: str, size: tuple[int, int]
) -> None:
    """Whatever it is called."""
    image = read_image(data, "x.gif")

    assert (image.format, (image.width, image.height)) == (kind, size)
    assert image.name in ("x.png", "x.jpg", "x.webp")


@pytest.mark.parametrize("data", [PNG, JPEG, VP8], ids=["png", "jpeg", "webp"])
@given(share=st.floats(0, 0.999))
def test_what_is_cut_short_is_no_picture(data: bytes, share: float) -> None:
    """Wherever the connection ended."""
    with pytest.raises(InvalidValue):
        read_image(data[: int(len(data) * share)])


@given(at=st.integers(8, len(PNG) - 1), value=st.integers(1, 255))
def test_a_damaged_png_is_no_picture(at: int, value: int) -> None:
    """One byte that differs is noticed, wherever it is."""
    damaged = bytearray(PNG)
    damaged[at] ^= value

    with pytest.raises(InvalidValue):
        read_image(bytes(damaged))


@given(st.binary(max_size=200), st.sampled_from([PNG[:33], JPEG[:8], VP8[:20], b""]))
def test_any_bytes_are_a_picture_or_refused(tail: bytes, head: bytes) -> None:
    """Nothing else comes out of it, and nothing hangs."""
    try:
        image = read_image(head + tail)
    except InvalidValue:
        return
    assert image.width > 0


def test_a_bomb_is_refused() -> None:
    """A small file that claims to be huge would fill the memory of whoever decodes it."""
    with pytest.raises(InvalidValue, match="claims to be 65535 by 65535"):
        read_image(JPEG.replace(struct.pack(">HH", 480, 640), b"\xff" * 4))


@given(st.text(max_size=100))
def test_a_name_is_never_more_than_a_name(name: str) -> None:
    """Whatever the machine calls it, it leads nowhere and has the right ending."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}\.png", read_image(PNG, name).name)
