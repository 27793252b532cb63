"""Single values out of a stranger's JSON, and settings out of text."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from gpubroker import CreateUnknown, ErrorKind, InvalidValue, Scope
from gpubroker.rest import (
    Reply,
    RequestFailed,
    create_unanswered,
    one_line,
    options,
    rows,
    said,
    unreachable,
)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" host.example\n", "host.example"),
        ("2001:db8::1", "2001:db8::1"),
        ("-oProxyCommand=x", None),
        ("a/b", None),
        ("a b", None),
        ("", None),
        (7, None),
        ("x" * 300, None),
    ],
)
def test_a_host_is_safe_to_hand_to_a_program(value: Any, found: str | None) -> None:
    """It is no option, no path and no two words."""
    assert rows.host({"h": value}, "h") == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("pod_7", "pod_7"),
        ("../7", None),
        ("", None),
        (7, None),
    ],
)
def test_an_id_that_is_text_is_safe_in_a_path(value: Any, found: str | None) -> None:
    """A number is no text, and nothing in it leads elsewhere."""
    assert rows.text_identifier({"id": value}, "id") == found


@pytest.mark.parametrize(
    ("value", "found"),
    [(22, 22), ("41022", 41022), (0, None), (65536, None), (None, None), (True, None), (1.5, None)],
)
def test_a_port_is_one_of_tcps(value: Any, found: int | None) -> None:
    """As a number, or as text that is one."""
    assert rows.port({"p": Decimal(str(value)) if value == 1.5 else value}, "p") == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T01:01:00+01:00", 60.0),
        ("1970-01-01T00:01:00", 60.0),
        ("soon", None),
        (None, None),
        (60, None),
    ],
)
def test_a_moment_is_unix_time(value: Any, found: float | None) -> None:
    """Without a time zone it is in UTC, wherever this runs."""
    assert rows.moment({"t": value}, "t") == found


def test_what_an_answer_says_is_one_line() -> None:
    """The first field that has words; nothing of a page in HTML, nothing that moves a cursor."""
    assert said(
        Reply(400, {}, b'{"detail": " ", "title": "Bad\\nRequest"}'), ("detail", "title")
    ) == ("Bad Request")
    assert said(Reply(502, {}, b"<html>Bad gateway</html>"), ("detail",)) == "a page in HTML"
    assert said(Reply(502, {}, b"upstream\r\nfailed"), ("detail",)) == "upstream failed"
    assert one_line("\x1b[31mred\t\n ") == "[31mred"


def test_a_lost_answer_to_a_create_is_unknown() -> None:
    """Unless there never was a connection, or it was never this request's turn."""
    lost = create_unanswered(RequestFailed("cut", sent=True))
    unsent = create_unanswered(RequestFailed("refused", sent=False))
    held = create_unanswered(RequestFailed("held", sent=False, retry_after=7))

    assert isinstance(lost, CreateUnknown)
    assert (unsent.kind, unsent.scope) == (ErrorKind.CAPACITY, Scope.PROVIDER)
    assert (held.kind, held.scope, held.retry_after) == (ErrorKind.RATE_LIMIT, Scope.ACCOUNT, 7)


def test_any_other_request_without_an_answer_is_a_passing_fault() -> None:
    """It may be repeated."""
    assert unreachable(RequestFailed("cut", sent=True)).kind is ErrorKind.TRANSIENT
    assert unreachable(RequestFailed("held", sent=False, retry_after=7)).retry_after == 7


def test_settings_are_read_or_refused() -> None:
    """Each by its name."""
    assert options.number({"n": " 2.5 "}, "n", 1, 0, 10) == Decimal("2.5")
    assert options.number({}, "n", 1.5, 0, 10) == Decimal("1.5")
    assert options.switch({"s": "OFF"}, "s") is False
    assert options.switch({}, "s", default=False) is False
    assert options.address("http://127.0.0.1:1/", "https://a.test") == ("http://127.0.0.1:1", True)
    assert options.address(None, "https://a.test") == ("https://a.test", False)
    given, pacing = {"image": "x", "pacing": "off"}, ("pacing",)
    options.check_names("acme", given, ("image",), emulated=True, emulator_only=pacing)
    for wrong in ({"n": "1.5"}, {"n": "11"}, {"n": "nan"}, {"n": "x"}):
        with pytest.raises(InvalidValue, match="n = "):
            options.number(wrong, "n", 1, 0, 10, whole=True)
    with pytest.raises(InvalidValue, match="on or off"):
        options.switch({"s": "maybe"}, "s")
    with pytest.raises(InvalidValue, match="https"):
        options.address("http://a.test", "https://a.test")
    with pytest.raises(InvalidValue, match="did you mean 'image'"):
        options.check_names("acme", {"imag": "x"}, ("image",), emulated=True)
    with pytest.raises(InvalidValue, match="emulator"):
        options.check_names("acme", given, ("image",), emulated=False, emulator_only=pacing)
    with pytest.raises(InvalidValue, match="pacing"):
        options.check_names("acme", given, ("image",), emulated=True)
