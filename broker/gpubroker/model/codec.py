"""Values to JSON and back, through pydantic, loaded at first use.

Bytes are written as base64 and infinities as text, so that every value comes back as it was.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
_ADAPTERS: Final[dict[Any, TypeAdapter[Any]]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads and writes a tuple of one `kind`.

    Pydantic takes no configuration for a dataclass itself, but hands that of a tuple on to it.
    """
    adapter = _ADAPTERS.get(kind)
    if adapter is None:
        from pydantic import ConfigDict, TypeAdapter

        config = ConfigDict(
            ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings"
        )
        adapter = _ADAPTERS[kind] = TypeAdapter(tuple[kind], config=config)  # pyright: ignore
    return adapter


def to_json(kind: type[T], value: T) -> str:
    """`value`, which is of type `kind`, as JSON text.

    Text that is no Unicode, such as half of a surrogate pair, is replaced by question marks.
    """
    from pydantic_core import PydanticSerializationError

    try:
        return _adapter(kind).dump_json((value,))[1:-1].decode()
    except PydanticSerializationError:
        (plain,) = _adapter(kind).dump_python((value,), mode="json")
        return json.dumps(plain, ensure_ascii=False).encode(errors="replace").decode()


def from_json(kind: type[T], text: str) -> T:
    """A value of type `kind` from JSON text.

    Raises:
        pydantic.ValidationError: the text is not such a value.
    """
    value: T = _adapter(kind).validate_json(f"[{text}]")[0]
    return value


def to_plain(kind: type[T], value: T) -> Any:
    """`value`, which is of type `kind`, as dicts, lists, text and numbers only."""
    return json.loads(to_json(kind, value))
