"""Rows of the listing as machines, and whether the listing is complete."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gpubroker import ErrorKind, Machine, MachineState, Mark, Money, ProviderError, Route, Scope
from gpubroker.rest import Row, one_line, rows
from gpubroker_runpod.vocabulary import STATES

MARK: Final = "GPUBROKER_MARK"
"""The variable that holds a pod's mark besides its name, which people may change."""

SSH_PORT: Final = "22/tcp"
"""Among a pod's ``ports``, if it is reached over SSH."""

_MOST_PAGES: Final = 400
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def is_id(text: str) -> bool:
    """Whether it may be an id of the vendor's, and so can stand in a path."""
    return _ID.fullmatch(text) is not None


class Listing:
    """The pages of one listing, put together. Anything that may have lost a row is an error."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._cursors: set[str] = set()

    def add(self, page: Row) -> str | None:
        """Take one page.

        Returns:
            The cursor of the next page; ``None`` after the last one.

        Raises:
            ProviderError: the page is malformed, or leads nowhere.
        """
        found = rows.entries(page.get("pods"))
        if found is None:
            raise _incomplete("there is no list of pods")
        for entry in found:
            row = rows.table(entry)
            pod_id = None if row is None else rows.text_identifier(row, "id")
            if row is None or pod_id is None:
                raise _incomplete("a pod has no id")
            earlier = self._rows.get(pod_id, row)
            if any(earlier.get(name) != row.get(name) for name in ("name", "createdAt")):
                raise _incomplete(f"two pods have the id {pod_id}")
            self._rows[pod_id] = row
        return self._next(page)

    def _next(self, page: Row) -> str | None:
        if page.get("pagination") is None:
            return None  # an API that lists all at once
        told = rows.table(page["pagination"]) or {}
        more, cursor = rows.flag(told, "hasNextPage"), rows.text(told, "nextCursor")
        if more is False or (more is None and "nextCursor" in told and told["nextCursor"] is None):
            return None
        if not cursor:
            raise _incomplete("a page has no usable cursor for the next one")
        if cursor in self._cursors or len(self._cursors) >= _MOST_PAGES:
            raise _incomplete("the pages never end")
        self._cursors.add(cursor)
        return cursor

    @property
    def rows(self) -> Iterable[tuple[str, Row]]:
        """Each pod's id and row."""
        return self._rows.items()


def machine_from(pod_id: str, row: Row) -> Machine:
    """A machine from its row; a part that makes no sense is left out.

    Nothing of its variables is kept but the mark: they are listed in full, secrets included.
    """
    state, progress = _state(row)
    ports = rows.entries(row.get("ports"))
    details = {
        "dc": rows.text(row, "dataCenterId"),
        "started": rows.text(row, "startedAt"),
    }
    return Machine(
        id=pod_id,
        state=state,
        mark=_mark(row),
        hourly=_hourly(row),
        created_at=rows.moment(row, "createdAt"),
        progress=progress,
        routes=_routes(row),
        ssh=ports is None or SSH_PORT in ports,
        details={name: value for name, value in details.items() if value},
    )


def gpus_of(row: Row) -> int | None:
    """How many GPUs a pod has, where it says so."""
    return rows.whole(rows.table(row.get("gpu")) or {}, "count")


def _state(row: Row) -> tuple[MachineState, str]:
    """A pod's state, and in which words to tell it."""
    status = rows.text(row, "status").upper()
    state = STATES.get(status, MachineState.BOOTING)
    if state is MachineState.RUNNING and gpus_of(row) == 0:
        return MachineState.BROKEN, "it has no GPUs"
    if state is MachineState.RUNNING and not rows.table(row.get("runtime")):
        # This is how a container that has died looks, too.
        return MachineState.BOOTING, "running, but nothing is seen of its container"
    return state, one_line(status.lower())[:80] or "accepted"


def _mark(row: Row) -> str | None:
    """The mark in its name, or else in its variables; or else its name."""
    name = rows.text(row, "name")
    kept = rows.text(rows.table(row.get("env")) or {}, MARK)
    if Mark.find(name) is None and Mark.find(kept) is not None:
        return kept
    return name or None


def _hourly(row: Row) -> Money | None:
    """USD per hour, disk included. Zero is said of pods that do not run, and sometimes wrongly."""
    cost = rows.decimal(row, "cost")
    return Money(cost) if cost is not None and cost > 0 else None


def _routes(row: Row) -> tuple[Route, ...]:
    """Straight to the pod's SSH server. The vendor's gateway knows the account's keys alone."""
    direct = rows.table((rows.table(row.get("ssh")) or {}).get("direct")) or {}
    runtime = rows.table(row.get("runtime")) or {}
    mapped = [
        port
        for port in map(rows.table, rows.entries(runtime.get("ports")) or [])
        if port is not None
        and rows.whole(port, "private") == 22
        and rows.text(port, "type").lower() == "tcp"
    ]
    found = [
        _route(rows.host(direct, "host"), rows.port(direct, "port")),
        *(_route(rows.host(port, "ip"), rows.port(port, "public")) for port in mapped),
    ]
    return tuple(dict.fromkeys(route for route in found if route is not None))


def _route(host: str | None, port: int | None) -> Route | None:
    return None if host is None or port is None else Route(host, port)


def _incomplete(problem: str) -> ProviderError:
    return ProviderError(
        f"the listing may be incomplete: {problem}",
        kind=ErrorKind.TRANSIENT,
        scope=Scope.PROVIDER,
    )
