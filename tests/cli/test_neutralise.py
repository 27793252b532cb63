from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.cli.neutralise import Neutraliser, harmless

TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
#: Mostly what matters, so that sequences come about.
hostile = st.lists(
    st.sampled_from([b"\x1b", b"[", b"]", b"0", b";", b"m", b"\x07", b"\xc2", b"\x9b", b"\n", b"a"])
    | st.binary(max_size=3)
    | st.sampled_from(sorted(TURNING)).map(str.encode),
    max_size=30,
).map(b"".join)


def neutralised(data: bytes) -> bytes:
    neutraliser = Neutraliser()
    return neutraliser.feed(data) + neutraliser.finish()


def is_harmless(text: str, kept: str) -> bool:
    return all(
        char in kept or (unicodedata.category(char) != "Cc" and char not in TURNING)
        for char in text
    )


@given(hostile)
def test_a_stream_never_holds_a_control_character(data: bytes) -> None:
    """Only line ends and tabs get through, whatever bytes a job prints."""
    assert is_harmless(neutralised(data).decode(), "\n\r\t")


@given(hostile, st.lists(st.integers(0, 90)))
def test_where_a_stream_is_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    """Sequences and characters that arrive in pieces are seen for what they are."""
    neutraliser = Neutraliser()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})

    pieces = b"".join(neutraliser.feed(data[start:end]) for start, end in pairwise(edges))

    assert pieces + neutraliser.finish() == neutralised(data)


@given(st.text())
def test_a_text_becomes_one_harmless_line(text: str) -> None:
    """Names and messages from elsewhere cannot even end the line."""
    assert is_harmless(harmless(text), "")


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"plain\ttext\r\n", "plain\ttext\r\n"),
        ("größer, 日本".encode(), "größer, 日本"),
        (b"\x1b[1;31mred\x1b[0m \x1b[2K", "red "),
        (b"\x1b]0;owned\x07", "␛]0;owned␇"),
        (b"\xc2\x9b31m", "\ufffd31m"),
        ("right\u202eleft".encode(), "right\ufffdleft"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"end \x1b[3", "end ␛[3"),
    ],
)
def test_colours_are_dropped_and_the_rest_is_made_visible(data: bytes, seen: str) -> None:
    """Plain text stays as it is; what tried to command the terminal can be read."""
    assert neutralised(data).decode() == seen
