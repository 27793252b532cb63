"""Search conditions, as the vendor's server understands them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

#: No answer holds more offers than this, whatever limit was asked for.
MOST_OFFERS: Final = 64

#: What holds where a query does not say otherwise.
SEARCH_DEFAULTS: Final[Mapping[str, Any]] = {
    "verified": {"eq": True},
    "rentable": {"eq": True},
    "rented": {"eq": False},
}

#: Words of a query that are no conditions.
SPECIAL: Final = frozenset(
    {
        *("type", "order", "limit", "allocated_storage", "disable_bundling", "extra_ids"),
        *("target_reliability", "template_id", "gpu_option", "show_incompatible", "select_cols"),
    }
)


class BadQuery(Exception):
    """A query that makes no sense; the text is what the vendor says."""


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def both(have: Any, want: Any) -> bool:
        if have is None or want is None:
            return False
        try:
            return compare(have, want)
        except TypeError:
            return False

    return both


_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda have, want: have == want,
    "neq": lambda have, want: have != want,
    "gt": _ordered(lambda have, want: have > want),
    "gte": _ordered(lambda have, want: have >= want),
    "lt": _ordered(lambda have, want: have < want),
    "lte": _ordered(lambda have, want: have <= want),
    "in": lambda have, want: have in want,
    "notin": lambda have, want: have not in want,
}


def condition(name: str, wanted: object) -> Callable[[Any], bool]:
    """A test of one value.

    Raises:
        BadQuery: it is no object of operators that exist.
    """
    if not isinstance(wanted, Mapping):
        raise BadQuery("Invalid query: must be dict of conditions")
    tests: list[Callable[[Any], bool]] = []
    for operator, value in cast("Mapping[str, Any]", wanted).items():
        if operator not in _OPERATORS:
            raise BadQuery(f"{operator} is not a valid search op")
        if value == "any":
            continue
        several = operator in ("in", "notin")
        if several and not isinstance(value, list):
            raise BadQuery(f"Invalid value for {name}: must be a list")
        tests.append(_test(_OPERATORS[operator], value, several=several))
    return lambda have: all(test(have) for test in tests)


def _test(
    operator: Callable[[Any, Any], bool], value: Any, *, several: bool
) -> Callable[[Any], bool]:
    if several:
        return lambda have: operator(have, [coerced(one, have) for one in value])
    return lambda have: operator(have, coerced(value, have))


def coerced(value: Any, like: Any) -> Any:
    """A wanted value in the type of the one that it is compared with: text may be a number."""
    if not isinstance(value, str) or isinstance(like, str):
        return value
    word = value.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    try:
        return float(word)
    except ValueError:
        return value


def matching(
    rows: Iterable[Mapping[str, Any]],
    conditions: Mapping[str, Any],
    columns: Callable[[Mapping[str, Any], str], Any],
) -> list[Mapping[str, Any]]:
    """The rows that meet all conditions.

    Args:
        columns: the value of a row to compare, by the name of a condition.

    Raises:
        BadQuery: see `condition`.
    """
    tests = {name: condition(name, wanted) for name, wanted in conditions.items()}
    return [row for row in rows if all(test(columns(row, name)) for name, test in tests.items())]


def in_order(rows: Sequence[Mapping[str, Any]], order: object) -> list[Mapping[str, Any]]:
    """Rows by ``[[column, "asc" or "desc"], …]``; rows without a value come last.

    Raises:
        BadQuery: it is not of that form.
    """
    if not isinstance(order, list):
        raise BadQuery("Invalid order")
    ordered = list(rows)
    for step in reversed(cast("list[object]", order)):
        if not isinstance(step, list) or len(cast("list[str]", step)) != 2:
            raise BadQuery("Invalid order")
        column, direction = cast("list[str]", step)
        falling = str(direction).lower() == "desc"
        have = [row for row in ordered if row.get(column) is not None]
        lack = [row for row in ordered if row.get(column) is None]
        have.sort(key=lambda row, name=column: row[name], reverse=falling)  # type: ignore[misc]
        ordered = have + lack
    return ordered
