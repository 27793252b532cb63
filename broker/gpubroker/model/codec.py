"""Values to JSON and back, through pydantic, loaded at first use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def to_json(kind: type[T], value: T) -> str:
    """`value`, which is of type `kind`, as JSON text."""
    text: bytes = _adapter(kind).dump_json(value)
    return text.decode()


def from_json(kind: type[T], text: str) -> T:
    """A value of type `kind` from JSON text.

    Raises:
        pydantic.ValidationError: the text is not such a value.
    """
    value: T = _adapter(kind).validate_json(text)
    return value


def to_plain(kind: type[T], value: T) -> Any:
    """`value`, which is of type `kind`, as dicts, lists, text and numbers only."""
    return _adapter(kind).dump_python(value, mode="json")
