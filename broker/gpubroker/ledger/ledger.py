"""The durable record: leases, money, events. Every method is one transaction.

Writes to a lease are conditional on its epoch, so that a process which lost the lease can change
nothing, and on its state, so that only edges of the state table are taken. The event row of an
edge is part of the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpubroker.errors import LedgerUnusable
from gpubroker.ledger import costing, edges, pools, spending
from gpubroker.ledger.rows import (
    Owner,
    cooldown_from,
    event_from,
    experience_from,
    job_from,
    lease_from,
    owner_from,
    values_of,
)
from gpubroker.ledger.schema import is_current, migrate
from gpubroker.ledger.sql import Engine, Sql
from gpubroker.ledger.store import Store
from gpubroker.model.costs import Costs, CostsBy
from gpubroker.model.decisions import DecisionRecord
from gpubroker.model.leases import JobRow, LeaseRow, LeaseState, LedgerEvent
from gpubroker.model.marks import ledger_id
from gpubroker.model.money import Money
from gpubroker.model.places import Place, PostgresUrl
from gpubroker.policy.budget import Budget, Limit, MachineLimit, Usage
from gpubroker.policy.cooldown import Cooldown
from gpubroker.policy.experience import Experience
from gpubroker.policy.pool import Use
from gpubroker.policy.pricing import cost_so_far
from gpubroker.policy.transitions import HELD


class OverLimit(Exception):
    """A reservation does not fit a limit; nothing was written."""

    def __init__(self, limit: Limit, committed: Money, asked: Money) -> None:
        self.limit = limit
        self.committed = committed
        self.asked = asked
        super().__init__(
            f"{limit.name}: {asked} more would exceed {limit.amount}, of which {committed} is taken"
        )


class NoPlace(Exception):
    """As many machines are held as a limit allows; nothing was written."""

    def __init__(self, limit: MachineLimit, held: int) -> None:
        self.limit = limit
        self.held = held
        super().__init__(f"{limit.name}: {held} of {limit.machines} are held")


class Ledger:
    """The record of one installation, in one file or database that many processes may share.

    Args:
        place: the file or database; ``None`` keeps it in memory.
        entropy: random bytes, for the id of a new ledger.
        busy: seconds that one operation may wait for another process.
        resolving: seconds to find out what became of a COMMIT whose answer was lost.

    Attributes:
        id: names this ledger in its marks.
        new: there was none at `place` before.

    Raises:
        LedgerBusy: other processes held it, or it was out of reach, for too long.
        LedgerUnusable: it cannot be opened, or is no ledger.
    """

    def __init__(
        self, place: Place | None, *, entropy: bytes, busy: float = 0.2, resolving: float = 30.0
    ) -> None:
        self.place = place
        self._store = _engine(place, busy, resolving)
        try:
            self.id = self._prepare(entropy)
        except BaseException:
            self.close()
            raise

    def _prepare(self, entropy: bytes) -> str:
        """Bring the tables up to date, where they are not, and return the ledger's id."""
        with self._store.reading() as sql:
            current = is_current(sql)
            self.new = sql.version() == 0
        if not current:
            with self._store.transaction() as sql:
                migrate(sql)
                sql.execute(
                    "INSERT INTO facts (name, value) VALUES ('ledger id', :id) ON CONFLICT DO NOTHING",
                    {"id": ledger_id(entropy)},
                )
        with self._store.reading() as sql:
            return str(_value(sql, "SELECT value FROM facts WHERE name = 'ledger id'"))

    def close(self) -> None:
        """Close the file or connection."""
        self._store.close()

    def abandon(self) -> None:
        """Make an operation that hangs fail, and all later ones; from any thread."""
        self._store.abandon()

    def concerns(self) -> list[str]:
        """What its owner should put right, though it can be used, one line each."""
        return self._store.concerns()

    def damage(self) -> list[str]:
        """What the engine's own check of everything stored finds wrong, one line each."""
        return self._store.damage()

    # ---- owners ---------------------------------------------------------------------------

    def put_owner(self, owner: Owner) -> None:
        """Register an owner, or renew it."""
        with self._store.transaction() as sql:
            sql.execute(
                "INSERT INTO owners (id, host, pid, started, expires_at, closed_at)"
                " VALUES (:id, :host, :pid, :started, :expires_at, :closed_at)"
                " ON CONFLICT (id) DO UPDATE"
                " SET expires_at = excluded.expires_at, closed_at = excluded.closed_at",
                {name: getattr(owner, name) for name in Owner.__slots__},
            )

    def owners(self) -> dict[str, Owner]:
        """Every owner that holds an open lease, by id."""
        with self._store.reading() as sql:
            rows = sql.execute(
                "SELECT * FROM owners WHERE id IN (SELECT owner FROM leases"
                " WHERE state NOT IN ('released', 'refused'))"
            )
            return {row["id"]: owner_from(row) for row in rows}

    # ---- the life of a lease --------------------------------------------------------------

    def reserve(
        self, lease: LeaseRow, limits: Iterable[Limit], machines: Iterable[MachineLimit] = ()
    ) -> None:
        """Hold the worst case and write the intent: after this, and only then, a create may leave.

        Raises:
            OverLimit: a limit on money does not allow it.
            NoPlace: a limit on machines does not.
        """
        with self._store.transaction() as sql:
            # As it will be written: rounded up to whole micro-dollars.
            asked = Money.from_micros(lease.reserved.micros_up)
            if (over := spending.exceeded(sql, limits, asked)) is not None:
                raise OverLimit(*over, asked)
            if (taken := spending.full(sql, machines)) is not None:
                raise NoPlace(*taken)
            edges.insert(sql, lease)
            edges.write_event(
                sql, lease, lease.created_at, "intent", None, lease.state, lease.title
            )

    def committed(self, limit: Limit) -> Money:
        """What is reserved and spent, together, by the leases that `limit` counts."""
        with self._store.reading() as sql:
            return spending.committed(sql, limit)

    def usages(
        self, limits: Callable[[list[LeaseRow]], Iterable[Limit]], now: float
    ) -> tuple[list[Usage], list[LeaseRow]]:
        """How full each limit is at Unix time `now`, and the open leases at that moment.

        Args:
            limits: those to look at, given the open leases.
        """
        with self._store.reading() as sql:
            running = spending.open_leases(sql)
            return spending.usages(sql, limits(running), running, now), running

    def machines_held(self, limits: Iterable[MachineLimit]) -> list[tuple[MachineLimit, int]]:
        """How many machines are held of those that each limit counts."""
        with self._store.reading() as sql:
            return spending.machines_held(sql, limits)

    def costs(
        self,
        by: CostsBy,
        budget: Budget,
        *,
        since: float | None = None,
        until: float | None = None,
        now: float,
    ) -> Costs:
        """What the leases asked for within [`since`, `until`) have cost, and how full limits are.

        Args:
            budget: the limits, and the time zone of days.
            now: Unix seconds: what open leases have cost until then.
        """
        with self._store.reading() as sql:
            return costing.costs(sql, by, budget, since, until, now)

    def claim_alerts(self, names: Iterable[str], at: float) -> set[str]:
        """Those alerts that nobody has told of yet. They are the caller's to tell."""
        with self._store.transaction() as sql:
            return spending.claim_alerts(sql, names, at)

    def unclaim_alert(self, name: str) -> None:
        """Have an alert told again, since nobody could be told."""
        with self._store.transaction() as sql:
            spending.unclaim_alert(sql, name)

    def billed(self, provider: str, *, since: float) -> tuple[Money, Money]:
        """USD counted, and USD billed instead, for leases that were settled from `since` on."""
        with self._store.reading() as sql:
            return spending.billed(sql, provider, since)

    def move(
        self,
        lease: LeaseRow,
        target: LeaseState,
        at: float,
        kind: str,
        detail: str = "",
        **columns: float | str | Money | None,
    ) -> LeaseRow:
        """Take one edge of the state table, and set `columns` with it.

        Raises:
            StaleOwner: another process has taken the lease over.
            LedgerError: the table has no such edge from where the lease is now.
        """
        with self._store.transaction() as sql:
            return edges.move(sql, lease, target, at, kind, detail, columns)

    def note(
        self,
        lease: LeaseRow,
        at: float,
        kind: str,
        detail: str = "",
        **columns: float | str | Money | None,
    ) -> LeaseRow:
        """Write an event, and set `columns`, without a change of state."""
        with self._store.transaction() as sql:
            now = edges.current(sql, lease)
            result = edges.update(sql, now, columns)
            edges.write_event(sql, now, at, kind, None, None, detail)
            return result

    def request_release(self, lease: LeaseRow, at: float, reason: str) -> LeaseRow:
        """Ask for the release of a lease. Absorbing: the first request stands.

        A lease whose machine is not known yet keeps its state; the request is carried out as
        soon as the machine is.
        """
        with self._store.transaction() as sql:
            now = edges.current(sql, lease)
            asked: dict[str, Any] = {}
            if now.release_requested_at is None:
                asked = {"release_requested_at": at, "release_reason": reason}
            if now.state in HELD or now.state is LeaseState.ORPHANED:
                return edges.move(
                    sql, now, LeaseState.RELEASING, at, "release requested", reason, asked
                )
            if not asked or not now.state.open:
                return now
            result = edges.update(sql, now, asked)
            edges.write_event(sql, now, at, "release requested", None, None, reason)
            return result

    def request_drain(self, lease: LeaseRow, at: float, reason: str) -> LeaseRow:
        """Ask whoever holds a lease to give it up once no job runs on it. The first request stands."""
        with self._store.transaction() as sql:
            now = edges.current(sql, lease)
            if now.drain_reason or not now.state.open:
                return now
            result = edges.update(sql, now, {"drain_reason": reason})
            edges.write_event(sql, now, at, "drain requested", None, None, reason)
            return result

    def take_over(self, lease: LeaseRow, owner: str, at: float, detail: str) -> LeaseRow:
        """Make `owner` the holder: the epoch rises, and the former holder can change nothing.

        Raises:
            StaleOwner: it has changed hands since `lease` was read.
        """
        with self._store.transaction() as sql:
            now = edges.current(sql, lease)
            taken = {"owner": owner, "epoch": now.epoch + 1}
            result = edges.update(sql, now, taken)
            edges.write_event(sql, result, at, "taken over", None, None, detail)
            return result

    def adopt(self, lease: LeaseRow, at: float, detail: str, *, former: str | None = None) -> None:
        """Write a lease for a machine that carries our mark but has no row here.

        Args:
            former: the id of a lost ledger that its mark names; what else is its, is ours too.
        """
        with self._store.transaction() as sql:
            edges.insert(sql, lease)
            edges.write_event(sql, lease, at, "found", None, lease.state, detail)
            if former is not None:
                _put_fact(sql, f"former ledger {former}", repr(at))

    def former_ids(self) -> set[str]:
        """Ids of lost ledgers whose machines were adopted into this one."""
        with self._store.reading() as sql:
            return set(_facts(sql, "former ledger "))

    def settle(self, lease: LeaseRow, billed: Money, at: float) -> LeaseRow:
        """Put what the vendor billed for a released lease on record, in place of what was counted.

        Once: a second charge changes nothing.
        """
        with self._store.transaction() as sql:
            now = edges.read(sql, lease.id)
            if now.state is not LeaseState.RELEASED or now.settled_at is not None:
                return now
            settled = {"spent": billed, "counted": now.spent, "settled_at": at}
            result = edges.update(sql, now, settled)
            detail = f"counted {now.spent}, billed {billed}"
            edges.write_event(sql, now, at, "settled", None, None, detail)
            return result

    # ---- jobs -----------------------------------------------------------------------------

    def begin_job(
        self, lease: LeaseRow, job_id: str, title: str, tags: Sequence[str], at: float
    ) -> LeaseRow:
        """A job starts on a lease: the lease becomes busy, if it is not."""
        with self._store.transaction() as sql:
            sql.execute(
                "INSERT INTO jobs (id, lease_id, title, state, started_at, tags)"
                " VALUES (:id, :lease, :title, 'running', :at, :tags)",
                {
                    "id": job_id,
                    "lease": lease.id,
                    "title": title,
                    "at": at,
                    "tags": "\n".join(tags),
                },
            )
            now = edges.current(sql, lease)
            if now.state is not LeaseState.BUSY:
                return edges.move(sql, now, LeaseState.BUSY, at, "job started", title, {})
            edges.write_event(sql, now, at, "job started", None, None, title)
            return now

    def end_job(
        self, lease: LeaseRow, job_id: str, state: str, exit_code: int | None, at: float
    ) -> LeaseRow:
        """A job ended, its results are safe: with the last one the lease is idle, if it is held.

        It has cost what the lease has since the end of the job before it.
        """
        with self._store.transaction() as sql:
            now = edges.current(sql, lease)
            of_others = _value(
                sql, "SELECT COALESCE(SUM(cost), 0) FROM jobs WHERE lease_id = :id", {"id": now.id}
            )
            cost = max(0, cost_so_far(now, at).micros - int(of_others))
            sql.execute(
                "UPDATE jobs SET state = :state, exit_code = :code, ended_at = :at, cost = :cost"
                " WHERE id = :id AND ended_at IS NULL",
                {"id": job_id, "state": state, "code": exit_code, "at": at, "cost": cost},
            )
            detail = state if exit_code is None else f"{state} {exit_code}"
            if now.state is LeaseState.BUSY and not pools.jobs_running(sql, now):
                return edges.move(sql, now, LeaseState.IDLE, at, "job ended", detail, {})
            edges.write_event(sql, now, at, "job ended", None, None, detail)
            return now

    def job(self, job_id: str) -> JobRow | None:
        """The job with this id."""
        with self._store.reading() as sql:
            row = sql.execute("SELECT * FROM jobs WHERE id = :id", {"id": job_id}).fetchone()
            return None if row is None else job_from(row)

    def jobs(self, lease_id: str) -> list[JobRow]:
        """The jobs of one lease, the newest first."""
        with self._store.reading() as sql:
            rows = sql.execute(
                "SELECT * FROM jobs WHERE lease_id = :id ORDER BY started_at DESC, id",
                {"id": lease_id},
            )
            return [job_from(row) for row in rows]

    # ---- pools ----------------------------------------------------------------------------

    def extend(
        self, lease: LeaseRow, deadline: float, more: Money, limits: Iterable[Limit], at: float
    ) -> LeaseRow:
        """Move a lease's deadline to a later Unix time, once `more` is held for that.

        A lease whose price has changed since `lease` was read keeps it: `more` is too little then.

        Raises:
            OverLimit: a limit on money does not allow it. Nothing was written.
            StaleOwner: another process has taken the lease over.
        """
        with self._store.transaction() as sql:
            now = edges.current(sql, lease)
            settled = now.release_requested_at is not None or now.deadline >= deadline
            if settled or now.hourly != lease.hourly:
                return now
            asked = Money.from_micros(more.micros_up)
            if (over := spending.exceeded(sql, limits, asked)) is not None:
                raise OverLimit(*over, asked)
            return pools.extend(sql, now, deadline, now.reserved + asked, at)

    def park(self, lease: LeaseRow, idle_until: float, at: float) -> LeaseRow:
        """Leave a lease that no job runs on for whoever shares its pool, until Unix time `idle_until`.

        Raises:
            StaleOwner: another process has taken the lease over.
            LedgerError: it is not held any more.
        """
        with self._store.transaction() as sql:
            return pools.park(sql, lease, idle_until, at)

    def take(self, lease: LeaseRow, owner: str, at: float) -> LeaseRow:
        """Take a parked lease into `owner`'s hands; where it was another's, the epoch rises.

        Raises:
            StaleOwner: somebody else was quicker.
            LedgerError: it is to be given up.
        """
        with self._store.transaction() as sql:
            return pools.take(sql, lease, owner, at)

    def pool(self, name: str) -> list[LeaseRow]:
        """The open leases of a pool, whoever holds them, the newest first."""
        with self._store.reading() as sql:
            return spending.open_leases(sql, pool=name)

    def pool_uses(self, name: str, limit: int) -> list[Use]:
        """When the newest jobs of a pool's leases began and ended, the oldest first."""
        with self._store.reading() as sql:
            return pools.uses(sql, name, limit)

    def cold_starts(self, name: str, limit: int) -> list[float]:
        """Seconds that a pool's newest machines took from the request until they were set up."""
        with self._store.reading() as sql:
            return pools.cold_starts(sql, name, limit)

    def wait_in_pool(self, name: str, owner: str, since: float, until: float) -> None:
        """Tell who shares a pool that `owner` waits for a machine; that counts until Unix time `until`."""
        with self._store.transaction() as sql:
            pools.put_wait(sql, name, owner, since, until)

    def pool_waits(self, name: str, owner: str, host: str, now: float) -> list[float]:
        """Since when others than `owner` on its `host` wait for a machine of a pool."""
        with self._store.reading() as sql:
            return pools.waits(sql, name, owner, host, now)

    def jobs_cost(self, lease_id: str) -> Money:
        """USD that the jobs of a lease which have ended have cost."""
        with self._store.reading() as sql:
            return pools.jobs_cost(sql, lease_id)

    # ---- batches --------------------------------------------------------------------------

    def put_item(self, batch: str, item: str, result: str, at: float) -> None:
        """Put a finished item of a batch on record, with its result as JSON text."""
        with self._store.transaction() as sql:
            pools.put_item(sql, batch, item, result, at)

    def items(self, batch: str) -> dict[str, str]:
        """The finished items of a batch, each with its result as JSON text."""
        with self._store.reading() as sql:
            return pools.items(sql, batch)

    # ---- what is there --------------------------------------------------------------------

    def lease(self, lease_id: str) -> LeaseRow | None:
        """The lease with this id."""
        with self._store.reading() as sql:
            row = sql.execute("SELECT * FROM leases WHERE id = :id", {"id": lease_id}).fetchone()
            return None if row is None else lease_from(row)

    def lease_of_mark(self, mark: str) -> LeaseRow | None:
        """The lease whose machine carries this mark."""
        with self._store.reading() as sql:
            row = sql.execute("SELECT * FROM leases WHERE mark = :mark", {"mark": mark}).fetchone()
            return None if row is None else lease_from(row)

    def anything_open(self) -> bool:
        """Whether any lease is open."""
        with self._store.reading() as sql:
            row = sql.execute(
                "SELECT 1 AS found FROM leases WHERE state NOT IN ('released', 'refused') LIMIT 1"
            ).fetchone()
            return row is not None

    def leases(
        self, *, open_only: bool = True, provider: str | None = None, limit: int = 1_000_000
    ) -> list[LeaseRow]:
        """Leases, of one provider or of all, the newest first."""
        with self._store.reading() as sql:
            if open_only:
                return spending.open_leases(sql, provider=provider)[:limit]
            of_one = "TRUE" if provider is None else "provider = :provider"
            rows = sql.execute(
                f"SELECT * FROM leases WHERE {of_one} ORDER BY created_at DESC, id LIMIT :limit",  # noqa: S608
                {"provider": provider, "limit": limit},
            )
            return [lease_from(row) for row in rows]

    def undisturbed(self, owner: str) -> dict[str, int]:
        """The open leases of `owner` that nobody has asked to be given up: epochs, by id."""
        with self._store.reading() as sql:
            rows = sql.execute(
                "SELECT id, epoch FROM leases WHERE state NOT IN ('released', 'refused')"
                " AND owner = :owner AND release_requested_at IS NULL AND drain_reason = ''",
                {"owner": owner},
            )
            return {row["id"]: row["epoch"] for row in rows}

    def unsettled(self, provider: str, *, since: float, until: float) -> list[LeaseRow]:
        """Leases whose machines a provider really had, ended between two moments, not settled."""
        with self._store.reading() as sql:
            rows = sql.execute(
                "SELECT * FROM leases WHERE state = 'released' AND settled_at IS NULL"
                " AND provider = :provider AND ended_at >= :since AND ended_at <= :until"
                " AND machine_id IS NOT NULL ORDER BY created_at",
                {"provider": provider, "since": since, "until": until},
            )
            return [lease_from(row) for row in rows]

    def events(self, lease_id: str | None = None) -> list[LedgerEvent]:
        """The events of one lease, or all of them, the oldest first."""
        where = "" if lease_id is None else "WHERE lease_id = :id"
        with self._store.reading() as sql:
            rows = sql.execute(f"SELECT * FROM events {where} ORDER BY number", {"id": lease_id})  # noqa: S608
            return [event_from(row) for row in rows]

    # ---- decision records and sweeps ------------------------------------------------------

    def put_record(
        self,
        record: DecisionRecord,
        cooldowns: Iterable[Cooldown] = (),
        experiences: Iterable[Experience] = (),
    ) -> None:
        """Keep a decision record, or its newer version, and what was learnt under way."""
        with self._store.transaction() as sql:
            sql.execute(
                "INSERT INTO requests (id, at, record) VALUES (:id, :at, :record)"
                " ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                {"id": record.id, "at": record.asked_at, "record": record.to_json()},
            )
            for cooldown in cooldowns:
                _replace(sql, "cooldowns", values_of(cooldown))
            for experience in experiences:
                _replace(sql, "experience", values_of(experience))

    def memory(self) -> tuple[list[Cooldown], list[Experience]]:
        """Every cooldown, those that are over included, and what was seen of every host."""
        with self._store.reading() as sql:
            cooldowns = [cooldown_from(row) for row in sql.execute("SELECT * FROM cooldowns")]
            experiences = [experience_from(row) for row in sql.execute("SELECT * FROM experience")]
        return cooldowns, experiences

    def record(self, request_id: str | None = None) -> DecisionRecord | None:
        """The decision record of a request, or the newest one."""
        where = "" if request_id is None else "WHERE id = :id"
        with self._store.reading() as sql:
            found = _value(
                sql,
                f"SELECT record FROM requests {where} ORDER BY at DESC, id DESC LIMIT 1",  # noqa: S608
                {"id": request_id},
            )
        try:
            return None if found is None else DecisionRecord.from_json(str(found))
        except ValueError as error:
            raise LedgerUnusable("the ledger is damaged: a record makes no sense") from error

    def other_mark_key(self, fingerprint: str) -> list[str]:
        """That open leases have marks made with another key than that of this fingerprint, if so."""
        known = "SELECT value FROM facts WHERE name = 'mark key'"
        with self._store.reading() as sql:
            if _value(sql, known) == fingerprint:
                return []
        with self._store.transaction() as sql:
            before = _value(sql, known)
            held = _value(
                sql, "SELECT id FROM leases WHERE state NOT IN ('released', 'refused') LIMIT 1"
            )
            if before not in (None, fingerprint) and held is not None:
                return [
                    (
                        f"the marks of open leases, such as {held}, were made with another mark key,"
                        " and prove nothing to this one; every host of a ledger needs the same"
                    )
                ]
            _put_fact(sql, "mark key", fingerprint)
            return []

    def put_swept(self, provider: str, at: float) -> None:
        """Note a complete sweep of a provider."""
        with self._store.transaction() as sql:
            _put_fact(sql, f"swept {provider}", repr(at))

    def swept(self) -> dict[str, float]:
        """When each provider was last swept completely, in Unix seconds."""
        with self._store.reading() as sql:
            return {name: float(value) for name, value in _facts(sql, "swept ").items()}


def _put_fact(sql: Sql, name: str, value: str) -> None:
    sql.execute(
        "INSERT INTO facts (name, value) VALUES (:name, :value)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        {"name": name, "value": value},
    )


def _facts(sql: Sql, kind: str) -> dict[str, str]:
    """Every fact whose name begins with `kind`, by the rest of its name."""
    rows = sql.execute(
        "SELECT name, value FROM facts WHERE name LIKE :pattern", {"pattern": f"{kind}%"}
    )
    return {row["name"].removeprefix(kind): row["value"] for row in rows}


def _engine(place: Place | None, busy: float, resolving: float) -> Engine:
    if not isinstance(place, PostgresUrl):
        return Store(place, busy=busy)
    from gpubroker.ledger.store_postgres import PostgresStore

    return PostgresStore(place, busy=busy, resolving=resolving)


def _value(sql: Sql, query: str, values: dict[str, Any] | None = None) -> Any:
    row = sql.execute(query, values or {}).fetchone()
    return None if row is None else next(iter(row.values()))


def _replace(sql: Sql, table: str, values: dict[str, Any]) -> None:
    """Write a row whose primary key are its first three columns."""
    names = list(values)
    news = ", ".join(f"{name} = excluded.{name}" for name in names[3:])
    sql.execute(
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(':' + n for n in names)})"  # noqa: S608
        f" ON CONFLICT ({', '.join(names[:3])}) DO UPDATE SET {news}",
        values,
    )
