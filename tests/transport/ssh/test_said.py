"""What others said, in our error messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.transport.said import said


@given(st.binary())
def test_nothing_that_a_terminal_would_obey_gets_through(raw: bytes) -> None:
    """Printable ASCII on one line, and not much of it, whatever came."""
    text = said(raw)

    assert text.isascii()
    assert not text or text.isprintable()
    assert len(text) <= 300


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain words\r\n", "plain words"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07shown", "shown"),
        (b"\x1b]52;c;cGFzdGU=\x1b\\shown", "shown"),
        (b"one\n\ntwo\tthree", "one two three"),
        (b"x" * 1000, "..." + "x" * 297),
    ],
)
def test_words_stay(raw: bytes, text: str) -> None:
    """What is for people is still there."""
    assert said(raw) == text
