"""Rows of the listing as machines, and whether the listing is complete."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gpubroker import ErrorKind, Machine, MachineState, Money, ProviderError, Route, Scope
from gpubroker.rest import Row, rows
from gpubroker_vast.vocabulary import BEFORE_RUNNING, BOOT_FAILURES, HEARSAY, STATES

_MOST_PAGES: Final = 400
_PROGRESS: Final = 200


class Listing:
    """The pages of one listing, put together. Anything that may have lost a row is an error."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._tokens: set[str] = set()
        self._pages = 0
        self._total: int | None = None

    def add(self, page: Row) -> str | None:
        """Take one page.

        Returns:
            The token of the next page; ``None`` after the last one.

        Raises:
            ProviderError: the page is malformed, or leads nowhere.
        """
        found = rows.entries(page.get("instances"))
        if found is None:
            raise _incomplete("a page has no list of machines")
        said = rows.whole(page, "instances_found")
        if said is not None and said != len(found):
            raise _incomplete(f"a page says {said} machines and has {len(found)}")
        for entry in found:
            row = rows.table(entry)
            machine_id = rows.identifier(row, "id") if row is not None else None
            if row is None or machine_id is None:
                raise _incomplete("a machine has no id")
            self._rows[machine_id] = row
        self._total = rows.whole(page, "total_instances")
        self._pages += 1
        return self._next(page)

    def _next(self, page: Row) -> str | None:
        token = page.get("next_token")
        if token is None:
            if "next_token" not in page and self._total is None:
                raise _incomplete("a page does not say whether it is the last one")
            return None
        if not isinstance(token, str) or not token:
            raise _incomplete("a page has no usable token for the next one")
        if token in self._tokens or self._pages >= _MOST_PAGES:
            raise _incomplete("the pages never end")
        self._tokens.add(token)
        return token

    @property
    def short(self) -> bool:
        """Whether there are more machines than were listed: new ones, or lost ones."""
        return self._total is not None and len(self._rows) < self._total

    @property
    def rows(self) -> Iterable[tuple[str, Row]]:
        """Each machine's id and row."""
        return self._rows.items()

    def check(self) -> None:
        """Refuse a listing that is short.

        Raises:
            ProviderError: it is.
        """
        if self.short:
            raise _incomplete(f"{self._total} machines were counted and {len(self._rows)} listed")


class Hearsay:
    """Believes a bad state that was wrong before only when two readings in a row show it."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def weigh(self, listed: Iterable[tuple[str, Row]]) -> set[str]:
        """The machines whose bad state this reading shows for the first time."""
        now = {
            machine_id: status
            for machine_id, row in listed
            if (status := rows.text(row, "actual_status").lower()) in HEARSAY
        }
        fresh = {machine_id for machine_id in now if machine_id not in self._seen}
        self._seen = now
        return fresh


def machine_from(machine_id: str, row: Row, *, doubted: bool = False) -> Machine:
    """A machine from its row; a part that makes no sense is left out.

    Args:
        doubted: its bad state was not seen before, and does not count yet.
    """
    state = _state(row)
    if doubted and state is MachineState.BROKEN and not _boot_failure(row):
        state = MachineState.BOOTING
    return Machine(
        id=machine_id,
        state=state,
        mark=rows.text(row, "label") or None,
        hourly=_hourly(row),
        created_at=rows.number(row, "start_date"),
        progress=_progress(row, state),
        host=rows.identifier(row, "machine_id"),
        routes=_routes(row),
    )


def _state(row: Row) -> MachineState:
    if _boot_failure(row):
        return MachineState.BROKEN
    if _being_destroyed(row) or _all_stopped(row):
        # Outbid, out of credit, or stopped by hand. What is reported of the container lags.
        return MachineState.STOPPED
    return STATES.get(rows.text(row, "actual_status").lower(), MachineState.BOOTING)


def _boot_failure(row: Row) -> bool:
    said = rows.text(row, "status_msg").lower()
    early = rows.text(row, "actual_status").lower() in BEFORE_RUNNING
    return early and any(phrase in said for phrase in BOOT_FAILURES)


def _all_stopped(row: Row) -> bool:
    names = ("intended_status", "cur_state", "next_state")
    return all(rows.text(row, name).lower() == "stopped" for name in names)


def _being_destroyed(row: Row) -> bool:
    return rows.text(row, "next_state").lower() == "unloaded"


def _progress(row: Row, state: MachineState) -> str:
    status = rows.text(row, "actual_status") or "accepted"
    if _being_destroyed(row):
        status = "being destroyed"
    elif state is MachineState.STOPPED and _all_stopped(row):
        status = "outbid" if rows.flag(row, "is_bid") else "stopped, not by its lease"
    # Of a long message the end is news.
    said = " ".join(rows.text(row, "status_msg").split())[-_PROGRESS:]
    return f"{status}: {said}" if said else status


def _hourly(row: Row) -> Money | None:
    """USD per hour, disk included, in the parts that an offer is priced by.

    Exact, where offers are rounded up: the same price, written with other digits, is no rise.
    """
    machine, disk = rows.decimal(row, "dph_base"), rows.decimal(row, "storage_total_cost")
    total = rows.decimal(row, "dph_total") if machine is None or disk is None else machine + disk
    if total is None or total < 0:
        return None
    return Money(total)


def _routes(row: Row) -> tuple[Route, ...]:
    """Straight to the container's SSH server where the host has ports, then through the gateway."""
    ports = rows.table(row.get("ports")) or {}
    bound = [rows.table(entry) or {} for entry in rows.entries(ports.get("22/tcp")) or ()]
    found = [_route(rows.host(row, "public_ipaddr"), rows.port(b, "HostPort")) for b in bound]
    proxy = _route(rows.host(row, "ssh_host"), rows.port(row, "ssh_port"), proxied=True)
    direct = [route for route in found if route is not None][:1]
    return (*direct, *((proxy,) if proxy is not None else ()))


def _route(host: str | None, port: int | None, *, proxied: bool = False) -> Route | None:
    return None if host is None or port is None else Route(host, port, proxied)


def _incomplete(problem: str) -> ProviderError:
    return ProviderError(
        f"the listing may be incomplete: {problem}",
        kind=ErrorKind.TRANSIENT,
        scope=Scope.PROVIDER,
    )
