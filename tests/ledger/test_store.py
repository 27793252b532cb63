"""The file under the ledger: who may read it, and what becomes of it when things go wrong."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gpubroker.errors import BrokerClosed, LedgerBusy, LedgerUnusable
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.schema import MIGRATIONS
from gpubroker.ledger.store import Store
from gpubroker.ledger.verify import violations
from gpubroker.model.leases import LeaseState
from gpubroker.model.money import Money

from .conftest import ENTROPY, NewLease

_DURABILITY = ("journal_mode", "synchronous")


def held_by_another(path: Path) -> closing[sqlite3.Connection]:
    """Another connection in the middle of a transaction."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return closing(other)


@pytest.fixture
def readable_folder() -> Iterator[Path]:
    """A folder that every user may read, seen by one who may not write it."""
    with tempfile.TemporaryDirectory() as folder:
        root = os.geteuid() == 0
        place = Path(folder)
        Ledger(place / "ledger.db", entropy=ENTROPY).close()
        (place / "ledger.db").chmod(0o444)
        place.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            yield place
        finally:
            if root:
                os.seteuid(0)
            place.chmod(0o755)


class TestFile:
    def test_only_its_owner_may_read_it(
        self, ledger: Ledger, path: Path, new_lease: NewLease
    ) -> None:
        """Whatever the umask; the files beside it, and the folder made for it, likewise."""
        ledger.reserve(new_lease(), [])

        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

        assert modes["ledger.db"] == 0o600
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_every_commit_reaches_the_disk(self, path: Path) -> None:
        """A create may leave on the word of a commit, so power loss must not undo it."""
        store = Store(path)
        with store.reading() as sql:
            modes = [sql.execute(f"PRAGMA {name}").fetchone()[name] for name in _DURABILITY]
        store.close()

        assert modes == ["wal", 2]  # 2 is FULL: the log is synced at each commit

    def test_the_id_is_given_once(self, open_ledger: Callable[[], Ledger], path: Path) -> None:
        """Whoever opens the file later finds the id that its marks were made with."""
        first = open_ledger()
        second = Ledger(path, entropy=b"other")
        second.close()

        assert first.id == second.id
        assert len(first.id) == 8

    def test_a_ledger_in_memory_has_no_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_lease: NewLease
    ) -> None:
        """For dry runs: everything works, nothing is left."""
        monkeypatch.chdir(tmp_path)
        ledger = Ledger(None, entropy=ENTROPY)
        ledger.reserve(new_lease(), [])

        assert ledger.place is None
        assert len(ledger.leases()) == 1
        ledger.close()
        assert list(tmp_path.iterdir()) == []

    def test_money_is_kept_in_whole_numbers(
        self, ledger: Ledger, path: Path, new_lease: NewLease
    ) -> None:
        """No column with money in it is, or holds, a floating-point number."""
        row = new_lease("1.5", hourly=Money("0.1"))
        ledger.reserve(row, [])
        ledger.move(
            row, LeaseState.PROVISIONING, 1.0, "x", spent=Money("0.1"), reserved=Money("0.7")
        )

        with sqlite3.connect(path) as sql:
            columns = {name: kind for _, name, kind, *_ in sql.execute("PRAGMA table_info(leases)")}
            stored = sql.execute(
                "SELECT typeof(hourly), typeof(reserved), typeof(spent), hourly, reserved, spent"
                " FROM leases"
            ).fetchone()
        sql.close()

        assert [columns[name] for name in ("hourly", "reserved", "spent")] == ["BIGINT"] * 3
        assert stored == ("integer", "integer", "integer", 100_000, 700_000, 100_000)


def test_a_reading_that_sqlite_ends_by_itself_says_why(path: Path) -> None:
    """After an I/O error there may be no transaction left, and that is not what went wrong."""
    store = Store(path)

    def fail() -> None:
        with store.reading() as sql:
            sql.execute("ROLLBACK")
            raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(LedgerUnusable, match="disk I/O error"):
        fail()

    store.close()


class TestBusy:
    def test_a_locked_ledger_is_busy_and_nothing_is_written(
        self, ledger: Ledger, path: Path, new_lease: NewLease
    ) -> None:
        """Another process holds it longer than an operation waits."""
        with held_by_another(path), pytest.raises(LedgerBusy, match="held by another process"):
            ledger.reserve(new_lease(), [])

        assert ledger.leases() == []
        ledger.reserve(new_lease(), [])
        assert len(ledger.leases()) == 1

    def test_reading_waits_for_no_writer(
        self, ledger: Ledger, path: Path, new_lease: NewLease
    ) -> None:
        """What is there can be looked at while somebody writes."""
        row = new_lease()
        ledger.reserve(row, [])

        with held_by_another(path):
            assert ledger.leases() == [row]
            assert ledger.lease(row.id) == row

    def test_a_ledger_that_is_there_opens_while_somebody_writes(
        self, ledger: Ledger, path: Path
    ) -> None:
        """`gpubroker ps` works next to a busy broker."""
        with held_by_another(path):
            Ledger(path, entropy=ENTROPY, busy=0.01).close()


class TestUnusable:
    def test_what_is_no_database_is_refused(self, tmp_path: Path) -> None:
        """A file of something else is left as it is."""
        path = tmp_path / "ledger.db"
        path.write_bytes(b"shopping list " * 500)

        with pytest.raises(LedgerUnusable, match="not a database"):
            Ledger(path, entropy=ENTROPY)

        assert path.read_bytes() == b"shopping list " * 500

    def test_another_programs_database_is_refused(self, tmp_path: Path) -> None:
        """Its tables are not touched."""
        path = tmp_path / "ledger.db"
        with closing(sqlite3.connect(path)) as sql:
            sql.execute("CREATE TABLE leases (mine TEXT)")

        with pytest.raises(LedgerUnusable):
            Ledger(path, entropy=ENTROPY)

        with closing(sqlite3.connect(path)) as sql:
            assert sql.execute("SELECT sql FROM sqlite_master").fetchall() == [
                ("CREATE TABLE leases (mine TEXT)",)
            ]

    def test_a_corrupt_ledger_is_refused(
        self, open_ledger: Callable[[], Ledger], path: Path, new_lease: NewLease
    ) -> None:
        """Damage is an error, not an empty answer: no machine may be forgotten."""
        first = open_ledger()
        for _ in range(50):
            first.reserve(new_lease(), [])
        first.close()
        data = bytearray(path.read_bytes())
        data[2048:] = bytes(len(data) - 2048)
        path.write_bytes(data)

        with pytest.raises(LedgerUnusable):
            open_ledger().leases(open_only=False)

    def test_a_folder_is_no_ledger(self, tmp_path: Path) -> None:
        """The system's own words are in the error."""
        with pytest.raises(LedgerUnusable, match=r"cannot open the ledger .*[Dd]irectory"):
            Ledger(tmp_path, entropy=ENTROPY)

    def test_a_ledger_that_cannot_be_written_is_refused(self, readable_folder: Path) -> None:
        """Nothing could be recorded, so nothing must be rented."""
        with pytest.raises(LedgerUnusable, match="Permission denied"):
            Ledger(readable_folder / "ledger.db", entropy=ENTROPY)

        with pytest.raises(LedgerUnusable, match="Permission denied"):
            Ledger(readable_folder / "new.db", entropy=ENTROPY)

    def test_a_full_disk_is_an_error_and_leaves_a_good_ledger(self, path: Path) -> None:
        """What could not be written whole is not there at all; what was there before still is."""
        done = subprocess.run(
            [sys.executable, "-c", _FILL_THE_DISK, path],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        written, error = done.stdout.split(maxsplit=1)

        with closing(Ledger(path, entropy=ENTROPY)) as ledger:
            rows = ledger.leases()
            assert violations(rows, ledger.events()) == []
            assert len(rows) == int(written) > 0
        assert error.strip() == "LedgerUnusable"


_FILL_THE_DISK = """
import dataclasses, resource, sys
from pathlib import Path
from gpubroker.errors import LedgerError
from gpubroker.ledger.ledger import Ledger
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money

ledger = Ledger(Path(sys.argv[1]), entropy=b"12345")
zero = Money(0)
row = LeaseRow(id="", request_id="r", provider="p", state=LeaseState.REQUESTED, epoch=1, owner="o",
    mark="", title="t" * 500, offer_id="", machine_id=None, hourly=zero, quantum=1.0,
    reserved=zero, spent=zero, created_at=1.0, deadline=2.0)
size = Path(sys.argv[1] + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, size + 50_000))
written = 0
try:
    while written < 1000:
        number = str(written)
        ledger.reserve(dataclasses.replace(row, id=number, mark=number), [])
        written += 1
except LedgerError as error:
    print(written, type(error).__name__)
"""


class TestVersions:
    def test_an_empty_file_becomes_a_ledger(self, path: Path) -> None:
        """Every migration is applied, in order, and the version says so."""
        path.parent.mkdir()
        path.touch()

        with closing(Ledger(path, entropy=ENTROPY)) as ledger:
            assert ledger.leases() == []

        with closing(sqlite3.connect(path)) as sql:
            assert sql.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)

    def test_a_newer_ledger_is_refused_and_left_alone(
        self, open_ledger: Callable[[], Ledger], path: Path
    ) -> None:
        """An older program must not write what it does not understand."""
        open_ledger().close()
        with closing(sqlite3.connect(path)) as sql:
            sql.execute("PRAGMA user_version = 99")

        with pytest.raises(LedgerUnusable, match="version 99, newer than this gpubroker's"):
            open_ledger()

        with closing(sqlite3.connect(path)) as sql:
            assert sql.execute("PRAGMA user_version").fetchone() == (99,)

    def test_a_refused_ledger_is_not_kept_open(
        self, open_ledger: Callable[[], Ledger], path: Path
    ) -> None:
        """Whoever puts it right finds it free."""
        open_ledger().close()
        with closing(sqlite3.connect(path)) as sql:
            sql.execute("PRAGMA user_version = 99")
        before = len(list(Path("/dev/fd").iterdir()))

        for _ in range(3):
            with pytest.raises(LedgerUnusable):
                open_ledger()

        assert len(list(Path("/dev/fd").iterdir())) == before


_STOP_INSIDE = """
import sys, time
from pathlib import Path
from gpubroker.ledger.store import Store

with Store(Path(sys.argv[1])).transaction() as sql:
    sql.execute("INSERT INTO facts VALUES ('half', 'done')")
    sql.execute("DELETE FROM leases")
    print("inside", flush=True)
    time.sleep(60)
"""


class TestProcesses:
    def test_a_writer_killed_inside_a_transaction_leaves_nothing_of_it(
        self, ledger: Ledger, path: Path, new_lease: NewLease
    ) -> None:
        """SIGKILL between begin and commit: the old state stands and the file is free."""
        row = new_lease()
        ledger.reserve(row, [])
        with subprocess.Popen(
            [sys.executable, "-c", _STOP_INSIDE, path], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "inside\n"
            with pytest.raises(LedgerBusy):
                ledger.reserve(new_lease(), [])
            writer.send_signal(signal.SIGKILL)

        moved = ledger.move(row, LeaseState.PROVISIONING, 1.0, "accepted")

        assert ledger.leases() == [moved]
        assert ledger.swept() == {}
        assert violations(ledger.leases(), ledger.events()) == []

    def test_a_forked_child_is_told_to_open_its_own(
        self, ledger: Ledger, new_lease: NewLease
    ) -> None:
        """SQLite does not survive a fork; neither reading nor writing is tried."""
        ledger.reserve(new_lease(), [])
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            said: list[str] = []
            for act in (ledger.leases, lambda: ledger.reserve(new_lease(), [])):
                try:
                    act()
                except BrokerClosed as error:
                    said.append(str(error))
            ledger.close()
            os.write(write, "\n".join(said).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said_there = pipe.read().splitlines()
        os.waitpid(child, 0)

        assert (
            said_there == ["this broker belongs to the process before the fork; open a new one"] * 2
        )
        ledger.reserve(new_lease(), [])
        assert len(ledger.leases()) == 2

    def test_another_thread_is_told_so(self, ledger: Ledger) -> None:
        """One thread, one ledger."""
        said: list[str] = []

        def elsewhere() -> None:
            try:
                ledger.leases()
            except BrokerClosed as error:
                said.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

        assert len(said) == 1
        assert "another thread" in said[0]

    def test_a_closed_ledger_says_so(self, ledger: Ledger, new_lease: NewLease) -> None:
        """Reading and writing alike; closing again is no error."""
        ledger.close()
        ledger.close()

        with pytest.raises(BrokerClosed, match="closed"):
            ledger.leases()
        with pytest.raises(BrokerClosed, match="closed"):
            ledger.reserve(new_lease(), [])


_RESERVE = """
import dataclasses, sys
from pathlib import Path
from gpubroker.errors import LedgerBusy
from gpubroker.ledger.ledger import Ledger, OverLimit
from gpubroker.policy.budget import Limit
from gpubroker.model.leases import LeaseRow, LeaseState
from gpubroker.model.money import Money

path, worker = Path(sys.argv[1]), sys.argv[2]
limits = [Limit("day", Money(100), since=0.0, until=10.0)]
row = LeaseRow(id="", request_id=worker, provider="p", state=LeaseState.REQUESTED, epoch=1,
    owner=worker, mark="", title="", offer_id="", machine_id=None, hourly=Money(1), quantum=1.0,
    reserved=Money(1), spent=Money(0), created_at=1.0, deadline=2.0)
ledger = Ledger(path, entropy=b"12345", busy=5.0)
print("ready", flush=True)
sys.stdin.readline()
reserved = refused = 0
for number in range(20):
    name = f"{worker}-{number}"
    try:
        ledger.reserve(dataclasses.replace(row, id=name, mark=name), limits)
        reserved += 1
    except OverLimit:
        refused += 1
print(reserved, refused, flush=True)
"""


class TestRaces:
    def test_processes_that_race_never_reserve_more_than_the_limit(
        self, ledger: Ledger, path: Path
    ) -> None:
        """Eight processes want 160 dollars of 100: exactly 100 are had, and all is on record."""
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", _RESERVE, path, f"worker-{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(8)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        said = [worker.communicate(timeout=60)[0].split() for worker in workers]

        rows = ledger.leases()
        assert sum(int(reserved) for reserved, _ in said) == len(rows) == 100
        assert sum(int(refused) for _, refused in said) == 60
        assert sum((row.reserved for row in rows), Money(0)) == Money(100)
        assert violations(rows, ledger.events()) == []
