"""A ledger in PostgreSQL when the server, or the way to it, fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress

import psycopg
import pytest
from tests.postgres import CuttingProxy, PostgresServer

from gpubroker.errors import BrokerClosed, InvalidValue, LedgerBusy, LedgerUnusable
from gpubroker.ledger.ledger import Ledger
from gpubroker.ledger.placeholders import for_psycopg
from gpubroker.ledger.verify import violations
from gpubroker.model.leases import LeaseState as S
from gpubroker.model.places import PostgresUrl, ledger_place

from .conftest import ENTROPY, NewLease

#: The end of the message that carries one; another one is READ COMMITTED.
COMMIT = b"COMMIT\0"


def opened(url: str, **options: float) -> Ledger:
    return Ledger(ledger_place(url), entropy=ENTROPY, **options)


@pytest.fixture
def there(database: str) -> Iterator[Ledger]:
    """The ledger by an undisturbed way, to look at what really is on record."""
    with closing(opened(database)) as ledger:
        yield ledger


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(postgres)
    yield proxy
    proxy.end()


@pytest.fixture
def ledger(
    there: Ledger, proxy: CuttingProxy, postgres: PostgresServer, database: str
) -> Iterator[Ledger]:
    """The ledger by a way that can be cut."""
    url = postgres.url(database.rpartition("/")[2], proxy.port)
    with closing(opened(url, resolving=20.0)) as ledger:
        yield ledger


class TestLostAnswers:
    def test_a_commit_that_was_done_is_no_error(
        self, ledger: Ledger, there: Ledger, proxy: CuttingProxy, new_lease: NewLease
    ) -> None:
        """Its answer was lost, but it is on record: once, and the caller gets its result."""
        row = new_lease()
        ledger.reserve(row, [])
        proxy.cut_after = COMMIT

        moved = ledger.move(row, S.PROVISIONING, 1.0, "accepted", machine_id="m-1")

        assert proxy.cuts == 1
        assert there.leases() == [moved]
        assert [event.kind for event in there.events()] == ["intent", "accepted"]

    def test_a_commit_that_was_not_done_has_not_happened(
        self, ledger: Ledger, there: Ledger, proxy: CuttingProxy, new_lease: NewLease
    ) -> None:
        """It never arrived: the caller is told so, and may try again."""
        row = new_lease()
        proxy.cut_before = COMMIT

        with pytest.raises(LedgerBusy, match="nothing has happened"):
            ledger.reserve(row, [])

        assert there.leases() == []
        ledger.reserve(row, [])
        assert there.leases() == [row]

    @pytest.mark.deep
    def test_a_commit_that_is_lost_on_the_way_holds_nobody_up(
        self, ledger: Ledger, there: Ledger, proxy: CuttingProxy, new_lease: NewLease
    ) -> None:
        """The server still waits for it, with the writers' lock held: it ends that by itself."""
        proxy.leave, proxy.cut_before = True, COMMIT

        with pytest.raises(LedgerBusy, match="nothing has happened"):
            ledger.reserve(new_lease(), [])

        assert there.leases() == []

    @pytest.mark.parametrize("message", [b"BEGIN", b"SELECT", b"UPDATE leases", b"INSERT INTO ev"])
    @pytest.mark.parametrize("answered", [True, False])
    def test_a_line_cut_before_the_commit_changes_nothing(
        self,
        ledger: Ledger,
        there: Ledger,
        proxy: CuttingProxy,
        new_lease: NewLease,
        message: bytes,
        answered: bool,
    ) -> None:
        """Whatever was sent or answered until then; only a fresh start is done over silently."""
        row = new_lease()
        ledger.reserve(row, [])
        if answered:
            proxy.cut_after = message
        else:
            proxy.cut_before = message

        with suppress(LedgerBusy):
            row = ledger.move(row, S.PROVISIONING, 1.0, "accepted")

        assert proxy.cuts == 1
        assert there.leases() == [row]
        assert violations(there.leases(), there.events()) == []

    def test_what_cannot_be_found_out_is_said(
        self,
        there: Ledger,
        proxy: CuttingProxy,
        postgres: PostgresServer,
        database: str,
        new_lease: NewLease,
    ) -> None:
        """Neither success nor failure is made up where the server does not answer any more."""
        url = postgres.url(database.rpartition("/")[2], proxy.port)
        row = new_lease()
        with closing(opened(url, resolving=0.2)) as ledger:
            ledger.reserve(row, [])
            proxy.cut_after, proxy.closed = COMMIT, True

            with pytest.raises(LedgerUnusable, match="whether it was done cannot be found out"):
                ledger.move(row, S.PROVISIONING, 1.0, "accepted")

        assert there.leases()[0].state is S.PROVISIONING

    def test_a_row_that_somebody_else_wrote_is_not_taken_for_ones_own(
        self, ledger: Ledger, there: Ledger, proxy: CuttingProxy, new_lease: NewLease
    ) -> None:
        """Other writers come and go while the answer is looked for."""
        proxy.cut_before = COMMIT
        there.put_swept("acme", 1.0)

        with pytest.raises(LedgerBusy):
            ledger.reserve(new_lease(), [])

        there.put_swept("acme", 2.0)
        assert there.leases() == []


class TestServer:
    def test_a_restart_between_two_operations_is_not_noticed(
        self, there: Ledger, postgres: PostgresServer, new_lease: NewLease
    ) -> None:
        """The connection is opened again."""
        row = new_lease()
        there.reserve(row, [])

        postgres.stop()
        with pytest.raises(LedgerBusy, match="cannot be reached"):
            there.leases()
        postgres.start()

        assert there.leases() == [row]

    def test_a_server_process_killed_inside_a_transaction_leaves_nothing_of_it(
        self, there: Ledger, postgres: PostgresServer, database: str, new_lease: NewLease
    ) -> None:
        """SIGKILL makes the whole server recover; then what was there before is there again."""
        row = new_lease()
        there.reserve(row, [])

        def emptied() -> None:
            with there._store.transaction() as sql:  # pyright: ignore[reportPrivateUsage]
                sql.execute("DELETE FROM leases")
                assert postgres.kill_backends(database.rpartition("/")[2]) == 1
                sql.execute("DELETE FROM events")

        with pytest.raises(LedgerBusy):
            emptied()
        postgres.wait()

        assert there.leases() == [row]
        assert violations(there.leases(), there.events()) == []

    def test_what_waiting_does_not_mend_is_said_at_once(
        self, postgres: PostgresServer, database: str
    ) -> None:
        """A database or user that is not there; without the password that was in the URL."""
        nowhere = database.replace("postgres@", "postgres:geheim-1@") + "_not"
        nobody = database.replace("postgres@", "nobody:geheim-2@")

        for url in (nowhere, nobody):
            with pytest.raises(LedgerUnusable, match="does not exist") as refused:
                opened(url)
            assert "geheim" not in str(refused.value)

    def test_a_server_that_is_not_there_is_waited_for(self, proxy: CuttingProxy) -> None:
        """It may be starting."""
        proxy.closed = True

        with pytest.raises(LedgerBusy, match="cannot be reached; nothing has happened"):
            opened(f"postgresql://postgres:geheim@127.0.0.1:{proxy.port}/x")

    def test_a_user_that_may_make_nothing_is_told_what_to_ask_for(
        self, postgres: PostgresServer, database: str
    ) -> None:
        """The words of the server, and the next step."""
        name = database.rpartition("/")[2]
        postgres.execute(f"CREATE ROLE guest_{name} LOGIN")

        with pytest.raises(LedgerUnusable, match="grant this user CREATE on the database"):
            opened(database.replace("postgres@", f"guest_{name}@"))

    def test_tables_are_kept_apart_from_everybody_elses(
        self, there: Ledger, postgres: PostgresServer, database: str
    ) -> None:
        """An application may have a table of the same name."""
        name = database.rpartition("/")[2]
        postgres.execute("CREATE TABLE leases (mine TEXT)", name)

        assert there.leases() == []
        assert postgres.execute(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('leases', 'facts')"
            " ORDER BY 1",
            name,
        ) == [("gpubroker",), ("public",)]

    def test_commits_wait_for_the_disk_whatever_the_database_says(
        self, postgres: PostgresServer, database: str
    ) -> None:
        """A create may leave on the word of a commit."""
        name = database.rpartition("/")[2]
        postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")

        with closing(opened(database)) as ledger:
            with ledger._store.transaction() as sql:  # pyright: ignore[reportPrivateUsage]
                shown = sql.execute("SHOW synchronous_commit").fetchone()

        assert shown == {"synchronous_commit": "on"}

    def test_a_closed_ledger_says_so(self, there: Ledger) -> None:
        """Reading and writing alike; closing again is no error."""
        there.close()
        there.close()

        with pytest.raises(BrokerClosed, match="closed"):
            there.leases()

    def test_text_that_postgres_refuses_does_not_stop_a_release(
        self, there: Ledger, new_lease: NewLease
    ) -> None:
        """NUL, from a vendor's error."""
        there.reserve(new_lease(title="a\0b"), [])

        assert there.leases()[0].title == "a\N{REPLACEMENT CHARACTER}b"


class TestStatements:
    @pytest.mark.parametrize(
        ("common", "psycopgs"),
        [
            ("SELECT :a, :a_1", "SELECT %(a)s, %(a_1)s"),
            ("SELECT ':a', 'it''s :b', :c", "SELECT ':a', 'it''s :b', %(c)s"),
            ("SELECT 1 % 2, '5 %' LIKE :p", "SELECT 1 %% 2, '5 %%' LIKE %(p)s"),
            ("SELECT x::text, :y::text", "SELECT x::text, %(y)s::text"),
        ],
    )
    def test_only_parameters_are_translated(self, common: str, psycopgs: str) -> None:
        """Not quoted text, and not casts; percent signs are escaped."""
        assert for_psycopg(common) == psycopgs.encode()


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql://u:secret@h/db", "postgresql://u:…@h/db"),
            ("postgres://u:sec@ret@h:1,h2/db?a=b", "postgres://u:…@h:1,h2/db?a=b"),
            ("postgresql://u@h/db?password=secret&x=y", "postgresql://u@h/db?password=…&x=y"),
            ("postgresql:///db?sslpassword=secret", "postgresql:///db?sslpassword=…"),
            ("postgresql:///db", "postgresql:///db"),
        ],
    )
    def test_a_password_is_never_shown(self, url: str, shown: str) -> None:
        """Neither as text nor as a repr; nor where a driver quotes it."""
        place = ledger_place(url)

        assert isinstance(place, PostgresUrl)
        assert str(place) == shown
        assert repr(place) == f"PostgresUrl({shown!r})"
        assert place.secret == url
        assert "sec" not in place.without_password("bad secret, bad sec@ret").replace(
            "secret", "" if "secret" not in url else "secret"
        ).replace("sec@ret", "" if "sec@ret" not in url else "sec@ret")

    def test_a_url_that_cannot_be_read_is_refused_without_its_password(self) -> None:
        """The driver's words, with the secret taken out."""
        with pytest.raises(InvalidValue, match="percent-encoded") as refused:
            opened("postgresql://u:geheim%zz@h/db")

        assert "geheim" not in str(refused.value)

    def test_another_database_is_refused(self) -> None:
        """Rather than taken for a file of that name."""
        with pytest.raises(InvalidValue, match="must be a file or begin with postgresql://"):
            ledger_place("mysql://u:geheim@h/db")


def test_many_writers_do_what_they_want_one_after_the_other(
    there: Ledger, database: str, new_lease: NewLease
) -> None:
    """The lock is that of the transaction: it is gone with it, and no session keeps it."""
    with closing(opened(database)) as second:
        for ledger in (there, second, there, second):
            ledger.reserve(new_lease(), [])

    assert len(there.leases()) == 4
    with psycopg.connect(database) as connection:
        held = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held.fetchone() == (0,)
